"""Dialogues that are there twice: within a source, or in two sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.rewards.word_units import split_words

#: Turns in a row that make two dialogues the same in part. Two turns may be alike by chance.
_WINDOW = 3
#: The fewest words of turns that count as the same: greetings and thanks are alike everywhere.
_LEAST_WORDS = 8

_Key = tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """How many dialogues of a source are in another one, too."""

    count: int
    """The number of dialogues, in whole or with three turns in a row."""
    example: str
    """The id of the first of them."""
    twin: str
    """The id of the dialogue that it is like."""


class DialogueIndex:
    """The dialogues of a source, to be found by their texts.

    Speakers, labels, case and punctuation are not compared.

    Parameters
    ----------
    dialogues
        The dialogues.
    """

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        self._dialogues = dialogues
        self._keys = [tuple(turn_key(turn.text) for turn in d.turns) for d in dialogues]
        self._whole: dict[_Key, str] = {}
        self._parts: dict[_Key, str] = {}
        self.repeated: list[tuple[str, str]] = []
        """The id of each dialogue that repeats an earlier one as a whole, and of that one."""
        for dialogue, key in zip(dialogues, self._keys, strict=True):
            if _words(key) < _LEAST_WORDS:
                continue
            first = self._whole.setdefault(key, dialogue.id)
            if first != dialogue.id:
                self.repeated.append((dialogue.id, first))
            for part in _windows(key):
                self._parts.setdefault(part, dialogue.id)

    def overlap(self, other: DialogueIndex) -> Overlap | None:
        """Return how many dialogues of this source are in the other one; None if none is."""
        twins = [
            (dialogue.id, twin)
            for dialogue, key in zip(self._dialogues, self._keys, strict=True)
            if (twin := other._twin(key)) is not None
        ]
        return Overlap(len(twins), *twins[0]) if twins else None

    def _twin(self, key: _Key) -> str | None:
        """Return the id of a dialogue with the same turns, or with three of them in a row."""
        if key in self._whole:
            return self._whole[key]
        return next((self._parts[part] for part in _windows(key) if part in self._parts), None)


def turn_key(text: str) -> str:
    """Return the form in which texts are compared: the words in lower case.

    Examples
    --------
    >>> turn_key("Oh, my  GOD!") == turn_key("oh my god")
    True
    """
    return " ".join(split_words(text)) or text


def _windows(key: _Key) -> Iterator[_Key]:
    """Yield each three turns in a row that have enough words."""
    for start in range(len(key) - _WINDOW + 1):
        part = key[start : start + _WINDOW]
        if _words(part) >= _LEAST_WORDS:
            yield part


def _words(key: _Key) -> int:
    return sum(text.count(" ") + 1 for text in key)
