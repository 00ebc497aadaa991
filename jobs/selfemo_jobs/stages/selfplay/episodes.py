"""The episodes of a generation: which dialogues, targets and intended emotions self-play uses.

All functions are pure: everything follows from the seed. The plan covers all sources and is cut
into parts before the parts are assigned to shards. The number of shards therefore changes nothing
in what is generated.

A plan holds two numbers for each dialogue. Its episodes are made when they are iterated over, so
that a shard only reads the dialogues of its own parts.
"""

from __future__ import annotations

import copy
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from selfemo_api.seeds import ROLE_STREAMS, derive_seed
from selfemo_api.spec import Role, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_store import has_label_sets, turn_counts

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
    """All dialogues of the source, in a list or in a scratch file."""
    use_labels: bool = False
    """Whether the source's labels may be read."""
    draw: int | None = None
    """Number of dialogues to draw from this source in each generation. With None the source shares
    ``selfPlay.dialogues`` with the other sources."""

    @property
    def has_label_sets(self) -> bool:
        """Whether a turn has several labels that may be read."""
        return self.use_labels and has_label_sets(self.dialogues)


class EpisodePlan(Sequence[Episode]):
    """The episodes of a generation, in order; :func:`plan_episodes` makes it.

    An episode is made, and its dialogue is read, when it is taken from the plan. A slice is a plan
    of some of the episodes, and reads nothing.

    Parameters
    ----------
    sources
        The sources in the order of the spec.
    settings
        The number of targets in each dialogue, and of turns.
    labels
        The label set.
    seed
        The seed of the stage.
    drawn
        Shape (dialogues,): the drawn dialogues, as positions among those of all sources.
    """

    def __init__(
        self,
        sources: Sequence[SourceDialogues],
        settings: SelfPlaySpec,
        labels: Sequence[str],
        seed: int,
        drawn: NDArray[np.int64],
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._labels = labels
        self._seed = seed
        self._drawn = drawn
        self._source_ends = np.cumsum([len(source.dialogues) for source in sources])
        turns = np.concatenate([turn_counts(source.dialogues) for source in sources])
        targets = np.minimum(turns[drawn], settings.targets_per_dialogue)
        self._ends: NDArray[Any] = np.cumsum(targets, dtype=np.int64)
        self._numbers = range(int(self._ends[-1]) if len(drawn) else 0)

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> EpisodePlan: ...
    def __getitem__(self, index: int | slice) -> Episode | EpisodePlan:
        """Return one episode, or the plan of consecutive ones."""
        numbers = self._numbers[index]
        if isinstance(numbers, int):
            return next(self._episodes(range(numbers, numbers + 1)))
        if numbers.step != 1:
            raise ValueError("a plan can only be cut into consecutive episodes")
        plan = copy.copy(self)
        plan._numbers = numbers
        return plan

    def __iter__(self) -> Iterator[Episode]:
        """Yield the episodes in order. Each dialogue is read once."""
        return self._episodes(self._numbers)

    def _episodes(self, numbers: range) -> Iterator[Episode]:
        """Yield consecutive episodes."""
        if not numbers:
            return
        first = int(np.searchsorted(self._ends, numbers.start, side="right"))
        index = int(self._ends[first - 1]) if first else 0
        episodes = self._of_dialogues(first, index)
        yield from islice(episodes, numbers.start - index, numbers.stop - index)

    def _of_dialogues(self, first: int, index: int) -> Iterator[Episode]:
        """Yield the episodes of a drawn dialogue, whose first one has an index, and all later."""
        count, turns = self._settings.targets_per_dialogue, self._settings.turns
        for position in self._drawn[first:]:
            number = int(np.searchsorted(self._source_ends, position, side="right"))
            source = self._sources[number]
            before = int(self._source_ends[number - 1]) if number else 0
            dialogue = source.dialogues[int(position) - before]
            for utterance in _draw_targets(source.name, dialogue, count, self._seed):
                intended = tuple(
                    intended_emotions(self._labels, index * turns + turn, self._seed)
                    for turn in range(turns)
                )
                yield Episode(index, source.name, dialogue, utterance, source.use_labels, intended)
                index += 1


class EpisodeParts(Sequence[EpisodePlan]):
    """The episodes of each part, in the order of the episodes.

    Parameters
    ----------
    plan
        The episodes of the generation.
    size
        The number of episodes of a part; the last one may have fewer.
    """

    def __init__(self, plan: EpisodePlan, size: int) -> None:
        self._plan = plan
        self._starts = range(0, len(plan), size)

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> EpisodePlan: ...
    @overload
    def __getitem__(self, index: slice) -> list[EpisodePlan]: ...
    def __getitem__(self, index: int | slice) -> EpisodePlan | list[EpisodePlan]:
        """Return one part, or some of them."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        start = self._starts[index]
        return self._plan[start : start + self._starts.step]


def plan_episodes(
    sources: Sequence[SourceDialogues], settings: SelfPlaySpec, labels: Sequence[str], seed: int
) -> EpisodePlan:
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
    EpisodePlan
        The episodes; ``index`` is the position in the plan.
    """
    return EpisodePlan(
        sources, settings, labels, seed, _draw_dialogues(sources, settings.dialogues, seed)
    )


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


def split_into_parts(episodes: EpisodePlan, settings: SelfPlaySpec) -> EpisodeParts:
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
    EpisodeParts
        The parts, in the order of the episodes.
    """
    size = max(1, settings.batch_prompts // (len(settings.roles) * settings.turns))
    return EpisodeParts(episodes, size)


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
) -> NDArray[np.int64]:
    """Return the dialogues of a generation, in an order that mixes the sources.

    A dialogue is its position among those of all sources. Lists of numbers are shuffled like lists
    of dialogues: the order follows from the seed and the length.
    """
    ends = np.cumsum([len(source.dialogues) for source in sources]).tolist()
    positions = [range(end - len(s.dialogues), end) for s, end in zip(sources, ends, strict=True)]
    pool = array("q")
    for source, own in zip(sources, positions, strict=True):
        if source.draw is None:
            pool.extend(own)
    random.Random(derive_seed(seed, "dialogues")).shuffle(pool)
    drawn = pool[:dialogues]
    has_own_number = False
    for source, own in zip(sources, positions, strict=True):
        if source.draw is not None:
            has_own_number = True
            numbers = array("q", own)
            random.Random(derive_seed(seed, "dialogues", source.name)).shuffle(numbers)
            drawn.extend(numbers[: source.draw])
    if has_own_number:
        random.Random(derive_seed(seed, "order")).shuffle(drawn)
    return np.array(drawn, np.int64)


def _draw_targets(source: str, dialogue: Dialogue, count: int, seed: int) -> list[int]:
    """Return the indices of a dialogue's targets in order, drawn without replacement."""
    generator = random.Random(derive_seed(seed, "targets", source, dialogue.id))
    return sorted(generator.sample(range(len(dialogue.turns)), min(count, len(dialogue.turns))))
