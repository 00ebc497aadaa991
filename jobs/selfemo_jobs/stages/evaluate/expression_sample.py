"""Which contexts the responder answers, and which human turns are read beside its responses.

The sample is a part of the measure, like the dataset. It follows from the dialogues and the label
set alone, so that all generations, and runs with other seeds, are measured on the same contexts.
All functions are pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfemo_api.seeds import derive_seed
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.inference.responses import reply_speaker

#: The most responses. With 512 the 95% interval of a share reaches about 0.04 to each side, which
#: is less than the gains that are looked for, and a GPU generates them in seconds.
MOST_RESPONSES = 512
#: The most responses for each labeled utterance of the source. On a CPU, a response takes about six
#: times the work of a prediction (`benchmarks/expression.py`): it is drawn token by token, and then
#: read. So the measure stays below the work of the predictions of this one source.
RESPONSES_PER_UTTERANCE = 0.125
#: The seed of the sample. Every number would do; it must not change, or generations that were
#: measured before could not be compared.
_SEED = 0


@dataclass(frozen=True)
class HeldOutContext:
    """The turns of a dialogue that the responder answers."""

    dialogue: Dialogue
    """The dialogue."""
    utterance: int
    """The index of the turn that is answered. The turns after it are not shown."""
    speaker: str
    """The name of the speaker who responds: of the one who really spoke next, where there is a next
    turn."""

    @property
    def turns(self) -> tuple[Utterance, ...]:
        """The turns up to the one that is answered."""
        return self.dialogue.turns[: self.utterance + 1]


@dataclass(frozen=True)
class HumanTurn:
    """A human turn with a label."""

    dialogue: Dialogue
    """The dialogue."""
    utterance: int
    """The index of the turn."""

    @property
    def turn(self) -> Utterance:
        """The turn."""
        return self.dialogue.turns[self.utterance]


def number_of_contexts(utterances: int, labels: int) -> int:
    """Return the number of contexts. Each is answered once for each label.

    Parameters
    ----------
    utterances
        The number of labeled utterances of the source.
    labels
        The number of labels, at least 1.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> number_of_contexts(utterances=1109, labels=7)
    19
    >>> number_of_contexts(utterances=100_000, labels=7), number_of_contexts(5, 28)
    (73, 1)
    """
    responses = min(MOST_RESPONSES, int(utterances * RESPONSES_PER_UTTERANCE))
    return max(1, responses // labels)


def draw_contexts(dialogues: Sequence[Dialogue], count: int) -> list[HeldOutContext]:
    """Return contexts of different dialogues, as far as there are enough dialogues.

    A turn is preferred that another speaker really answered.

    Parameters
    ----------
    dialogues
        The dialogues of a source. Their labels are not used.
    count
        The largest number of contexts.

    Returns
    -------
    list of HeldOutContext
        The contexts, in the order of the draw. There are fewer if the dialogues have fewer turns.
    """
    order = [dialogue for dialogue in dialogues if dialogue.turns]
    _generator("dialogues").shuffle(order)
    remaining = [_places(dialogue) for dialogue in order]
    contexts: list[HeldOutContext] = []
    while len(contexts) < count and any(remaining):
        for dialogue, places in zip(order, remaining, strict=True):
            if places and len(contexts) < count:
                contexts.append(_context(dialogue, places.pop(0)))
    return contexts


def draw_human_turns(
    dialogues: Sequence[Dialogue], labels: Sequence[str], count: int
) -> list[HumanTurn]:
    """Return human turns, as many of each emotion as possible up to a number.

    Parameters
    ----------
    dialogues
        The dialogues of a source, with their labels.
    labels
        The label set.
    count
        The largest number of turns of each emotion. The first label of a turn counts.

    Returns
    -------
    list of HumanTurn
        The turns, label after label.
    """
    by_label: dict[str, list[HumanTurn]] = {label: [] for label in labels}
    for dialogue in dialogues:
        for index, turn in enumerate(dialogue.turns):
            if turn.labels:
                by_label[turn.labels[0]].append(HumanTurn(dialogue, index))
    drawn = []
    for label, turns in by_label.items():
        _generator("human", label).shuffle(turns)
        drawn += turns[:count]
    return drawn


def _places(dialogue: Dialogue) -> list[int]:
    """Return the indices of the turns that may be answered, in the order in which they are drawn.

    Turns that another speaker answered are first. The last turn is answered only if there is no
    other one.
    """
    turns = dialogue.turns
    places = list(range(len(turns) - 1)) or [0]
    _generator("places", dialogue.id).shuffle(places)
    if len(turns) == 1:
        return places
    return sorted(places, key=lambda i: turns[i + 1].speaker == turns[i].speaker)


def _context(dialogue: Dialogue, utterance: int) -> HeldOutContext:
    following = dialogue.turns[utterance + 1 : utterance + 2]
    before = dialogue.turns[: utterance + 1]
    speaker = following[0].speaker if following else reply_speaker(before)
    return HeldOutContext(dialogue, utterance, speaker)


def _generator(*names: object) -> random.Random:
    return random.Random(derive_seed(_SEED, "expression", *names))
