"""The episodes of a generation: which dialogues, targets and intended emotions self-play uses.

All functions are pure: everything follows from the seed. The plan covers all sources and is cut
into parts before the parts are assigned to shards. The number of shards therefore changes nothing
in what is generated.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfemo_api.seeds import ROLE_STREAMS, derive_seed
from selfemo_api.spec import Role, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance

#: Name of the speaker who responds in a monologue.
LISTENER = "Listener"


@dataclass(frozen=True)
class Episode:
    """One target utterance, and the turns that self-play adds after it.

    In each turn the recognizer reads the last utterance and the responder answers it.
    """

    index: int
    """Number of the episode within the generation, from 0."""
    source: str
    """Name of the data source."""
    dialogue: Dialogue
    """The source's dialogue."""
    utterance: int
    """Index of the target within its dialogue."""
    use_labels: bool
    """Whether the source's labels may be read."""
    intended: tuple[tuple[str, ...], ...]
    """The emotions that the response of each turn is to express."""

    @property
    def target(self) -> Utterance:
        """The source's utterance that the episode starts with."""
        return self.dialogue.turns[self.utterance]


@dataclass(frozen=True)
class SourceDialogues:
    """The dialogues of one data source."""

    name: str
    """Name of the source."""
    dialogues: Sequence[Dialogue]
    """All dialogues of the source."""
    use_labels: bool = False
    """Whether the source's labels may be read."""
    draw: int | None = None
    """Number of dialogues to draw from this source in each generation. With None the source shares
    ``selfPlay.dialogues`` with the other sources."""

    @property
    def has_label_sets(self) -> bool:
        """Whether a turn has several labels that may be read."""
        turns = (turn for dialogue in self.dialogues for turn in dialogue.turns)
        return self.use_labels and any(len(turn.labels) > 1 for turn in turns)


def plan_episodes(
    sources: Sequence[SourceDialogues], settings: SelfPlaySpec, labels: Sequence[str], seed: int
) -> list[Episode]:
    """Return the episodes of a generation, in order.

    Parameters
    ----------
    sources
        The sources in the order of the spec. Their labels are not used.
    settings
        The number of dialogues, of targets in each dialogue, and of turns.
    labels
        The label set.
    seed
        The seed of the stage. It is different in each generation, and so are the drawn dialogues.

    Returns
    -------
    list of Episode
        The episodes; ``index`` is the position in the list.
    """
    episodes: list[Episode] = []
    for source, dialogue in _draw_dialogues(sources, settings.dialogues, seed):
        for utterance in _draw_targets(source.name, dialogue, settings.targets_per_dialogue, seed):
            index = len(episodes)
            intended = tuple(
                intended_emotions(labels, index * settings.turns + turn, seed)
                for turn in range(settings.turns)
            )
            episodes.append(
                Episode(index, source.name, dialogue, utterance, source.use_labels, intended)
            )
    return episodes


def intended_emotions(labels: Sequence[str], number: int, seed: int) -> tuple[str, ...]:
    """Return the emotions that one response is to express: a single one, balanced over responses.

    The responses are divided into blocks of as many responses as there are labels. In each block
    every label occurs once, in a random order. All labels are therefore intended equally often.

    Parameters
    ----------
    labels
        The label set. Its order does not matter.
    number
        Number of the response within the generation, from 0.
    seed
        The seed of the stage.

    Returns
    -------
    tuple of str
        One label.

    Examples
    --------
    >>> labels = ["neutral", "anger", "joy"]
    >>> sorted(intended_emotions(labels, number, seed=7)[0] for number in range(3))
    ['anger', 'joy', 'neutral']
    """
    block, place = divmod(number, len(labels))
    order = sorted(labels)
    random.Random(derive_seed(seed, "intended", block)).shuffle(order)
    return (order[place],)


def split_into_parts(episodes: Sequence[Episode], settings: SelfPlaySpec) -> list[list[Episode]]:
    """Return the episodes of each part.

    A part has at most ``batchPrompts`` prompts, but at least one episode. An episode is never
    divided, since its later turns follow from its earlier ones.

    Parameters
    ----------
    episodes
        The episodes of the generation.
    settings
        The batch size, the roles and the number of turns.

    Returns
    -------
    list of list of Episode
        The parts, in the order of the episodes.
    """
    size = max(1, settings.batch_prompts // (len(settings.roles) * settings.turns))
    return [list(episodes[start : start + size]) for start in range(0, len(episodes), size)]


def parts_of_shard(parts: int, shard: int, shards: int) -> list[int]:
    """Return the numbers of the parts that a shard generates: every ``shards``-th one.

    Parameters
    ----------
    parts
        Number of all parts.
    shard
        Number of the shard, from 0.
    shards
        Number of all shards.

    Returns
    -------
    list of int
        Part numbers in ascending order.

    Examples
    --------
    >>> parts_of_shard(parts=7, shard=1, shards=3)
    [1, 4]
    """
    return list(range(shard, parts, shards))


def responding_speaker(dialogue: Dialogue, utterance: int) -> str:
    """Return the name of the speaker who responds to an utterance: another one of its dialogue.

    It is the other speaker who spoke last before the utterance, otherwise the one who speaks first
    after it. Two people therefore alternate. In a monologue it is :data:`LISTENER`.

    Parameters
    ----------
    dialogue
        The dialogue.
    utterance
        Index of the utterance within the dialogue.

    Returns
    -------
    str
        The speaker's name.

    Examples
    --------
    >>> dialogue = Dialogue("d1", (Utterance("Ann", "Hi."), Utterance("Bob", "Hello.")))
    >>> responding_speaker(dialogue, 1)
    'Ann'
    """
    speaker = dialogue.turns[utterance].speaker
    around = [*reversed(dialogue.turns[:utterance]), *dialogue.turns[utterance + 1 :]]
    return next((turn.speaker for turn in around if turn.speaker != speaker), LISTENER)


def group_id(episode: Episode, generation: int, turn: int, role: Role) -> str:
    """Return the id of a group, which is unique within a run.

    Parameters
    ----------
    episode
        The episode of the group.
    generation
        Number of the generation.
    turn
        Number of the turn within the episode, from 0.
    role
        The role that generated the group.

    Returns
    -------
    str
        The id, made of generation, source, dialogue, utterance, turn and role.
    """
    place = f"{episode.source}/{episode.dialogue.id}/{episode.utterance}"
    return f"g{generation:03d}/{place}/{turn}/{ROLE_STREAMS[role]}"


def _draw_dialogues(
    sources: Sequence[SourceDialogues], dialogues: int | None, seed: int
) -> list[tuple[SourceDialogues, Dialogue]]:
    """Return the dialogues of a generation, in an order that mixes the sources."""
    pool = [(s, dialogue) for s in sources if s.draw is None for dialogue in s.dialogues]
    random.Random(derive_seed(seed, "dialogues")).shuffle(pool)
    drawn = pool[:dialogues]
    with_own_number = [source for source in sources if source.draw is not None]
    for source in with_own_number:
        own = list(source.dialogues)
        random.Random(derive_seed(seed, "dialogues", source.name)).shuffle(own)
        drawn += [(source, dialogue) for dialogue in own[: source.draw]]
    if with_own_number:
        random.Random(derive_seed(seed, "order")).shuffle(drawn)
    return drawn


def _draw_targets(source: str, dialogue: Dialogue, count: int, seed: int) -> list[int]:
    """Return the indices of a dialogue's targets in order, drawn without replacement."""
    generator = random.Random(derive_seed(seed, "targets", source, dialogue.id))
    return sorted(generator.sample(range(len(dialogue.turns)), min(count, len(dialogue.turns))))
