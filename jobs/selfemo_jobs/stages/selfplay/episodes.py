"""Who episodes what: dialogues, targets and intended emotions. Pure: all follows from the seed.

The plan is made over all sources and cut into parts before it is dealt to shards, so the number
of shards changes nothing in what is played.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfemo_api.seeds import ROLE_STREAMS, derive_seed
from selfemo_api.spec import Context, Role, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance

#: Who answers a monologue.
LISTENER = "Listener"


@dataclass(frozen=True)
class Episode:
    """One target utterance that is played from: through all turns, both roles."""

    index: int
    """Over all episodes of the generation."""
    source: str
    dialogue: Dialogue
    utterance: int
    """Index of the target within its dialogue."""
    use_labels: bool
    """Whether the source's labels may be read."""
    intended: tuple[tuple[str, ...], ...]
    """Emotions that the response of each turn is to express."""

    @property
    def target(self) -> Utterance:
        """The source's utterance that is played from."""
        return self.dialogue.turns[self.utterance]


@dataclass(frozen=True)
class SourceDialogues:
    """A source's dialogues."""

    name: str
    dialogues: Sequence[Dialogue]
    use_labels: bool = False
    draw: int | None = None
    """Dialogues drawn from it; None: it shares ``selfPlay.dialogues`` with the others."""


def plan_episodes(
    sources: Sequence[SourceDialogues], settings: SelfPlaySpec, labels: Sequence[str], seed: int
) -> list[Episode]:
    """Return the generation's episodes in order.

    Parameters
    ----------
    sources
        In the spec's order; their labels are not looked at.
    settings
        How many dialogues and targets, and how many turns.
    labels
        The label set.
    seed
        The stage's seed; it differs from generation to generation, and so do the draws.
    """
    drawn = _drawn(sources, settings.dialogues, seed)
    episodes: list[Episode] = []
    for source, dialogue in drawn:
        for utterance in _targets(source.name, dialogue, settings.targets_per_dialogue, seed):
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
    """Return the emotions that a response is to express.

    One each: in every run of as many responses as there are labels each label comes once, in an
    order of its own, so all are asked for equally often.

    Parameters
    ----------
    labels
        The label set.
    number
        The response's number within the generation.
    seed
        The stage's seed.
    """
    block, place = divmod(number, len(labels))
    order = sorted(labels)
    random.Random(derive_seed(seed, "intended", block)).shuffle(order)
    return (order[place],)


def cut_parts(episodes: Sequence[Episode], settings: SelfPlaySpec) -> list[list[Episode]]:
    """Return the episodes of each part: up to ``batchPrompts`` prompts, at least one episode.

    An episode stays whole, since its later turns follow from its earlier ones.
    """
    size = max(1, settings.batch_prompts // (len(settings.roles) * settings.turns))
    return [list(episodes[start : start + size]) for start in range(0, len(episodes), size)]


def parts_of_shard(parts: int, shard: int, shards: int) -> list[int]:
    """Return the numbers of the parts that a shard episodes: every ``shards``-th."""
    return list(range(shard, parts, shards))


def respondent(dialogue: Dialogue, utterance: int) -> str:
    """Return who answers an utterance: another speaker of its dialogue.

    The one who spoke last before it, else the one who speaks first after it: two people alternate.
    In a monologue it is :data:`LISTENER`.
    """
    speaker = dialogue.turns[utterance].speaker
    around = [*reversed(dialogue.turns[:utterance]), *dialogue.turns[utterance + 1 :]]
    return next((turn.speaker for turn in around if turn.speaker != speaker), LISTENER)


def past_turns(turns: Sequence[Utterance], past: int) -> tuple[Utterance, ...]:
    """Return the last so many turns before a target."""
    return tuple(turns[max(0, len(turns) - past) :])


def heard_turns(turns: Sequence[Utterance], context: Context) -> tuple[Utterance, ...]:
    """Return the turns that the responder sees: at least the one that it answers."""
    return past_turns(turns, max(1, context.past))


def group_id(play: Episode, generation: int, turn: int, role: Role) -> str:
    """Return the name of a group, unique within a run."""
    place = f"{play.source}/{play.dialogue.id}/{play.utterance}"
    return f"g{generation:03d}/{place}/{turn}/{ROLE_STREAMS[role]}"


def _drawn(
    sources: Sequence[SourceDialogues], dialogues: int | None, seed: int
) -> list[tuple[SourceDialogues, Dialogue]]:
    """Return the dialogues of a generation, in an order that mixes the sources."""
    pool = [(s, dialogue) for s in sources if s.draw is None for dialogue in s.dialogues]
    random.Random(derive_seed(seed, "dialogues")).shuffle(pool)
    drawn = pool[:dialogues]
    fixed = [source for source in sources if source.draw is not None]
    for source in fixed:
        own = list(source.dialogues)
        random.Random(derive_seed(seed, "dialogues", source.name)).shuffle(own)
        drawn += [(source, dialogue) for dialogue in own[: source.draw]]
    if fixed:
        random.Random(derive_seed(seed, "order")).shuffle(drawn)
    return drawn


def _targets(source: str, dialogue: Dialogue, count: int, seed: int) -> list[int]:
    """Return the targets of a dialogue in order, drawn without return."""
    draw = random.Random(derive_seed(seed, "targets", source, dialogue.id))
    return sorted(draw.sample(range(len(dialogue.turns)), min(count, len(dialogue.turns))))
