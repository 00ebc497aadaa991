"""Dialogues that are there twice: within a source, or in two sources."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    Speakers, labels, case and punctuation are not compared. Texts are compared by hashes of 64
    bits, of which a dialogue of ten turns has nine. So the index takes a hundred bytes for it.

    Parameters
    ----------
    dialogues
        The dialogues.
    """

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        self._dialogues = dialogues
        wholes, whole_of = array("Q"), array("I")
        parts, part_of = array("Q"), array("I")
        for number, dialogue in enumerate(dialogues):
            key = tuple(turn_key(turn.text) for turn in dialogue.turns)
            if _words(key) < _LEAST_WORDS:
                continue
            wholes.append(_hash(key))
            whole_of.append(number)
            for part in _windows(key):
                parts.append(_hash(part))
                part_of.append(number)
        self._wholes = _Hashes(wholes, whole_of)
        self._parts = _Hashes(parts, part_of)
        first = self._wholes.find(self._wholes)
        numbers = np.flatnonzero(first != self._wholes.numbers)
        self.repeated: list[tuple[str, str]] = [
            (dialogues[int(self._wholes.numbers[i])].id, dialogues[int(first[i])].id)
            for i in numbers
        ]
        """The id of each dialogue that repeats an earlier one as a whole, and of that one."""

    def overlap(self, other: DialogueIndex) -> Overlap | None:
        """Return how many dialogues of this source are in the other one; None if none is."""
        twins = np.full(len(self._dialogues), -1, np.int64)
        for mine, others in ((self._parts, other._parts), (self._wholes, other._wholes)):
            matches = others.find(mine)
            places = np.flatnonzero(matches >= 0)[::-1]  # the first of a dialogue is set last
            twins[mine.numbers[places]] = matches[places]
        alike = np.flatnonzero(twins >= 0)
        if not len(alike):
            return None
        first = int(alike[0])
        return Overlap(
            len(alike), self._dialogues[first].id, other._dialogues[int(twins[first])].id
        )


class _Hashes:
    """Hashes of texts, with the number of the dialogue that each is of.

    Parameters
    ----------
    hashes, numbers
        Shape (texts,): the hash, and the number of the dialogue, in the order of the dialogues.
    """

    def __init__(self, hashes: array[int], numbers: array[int]) -> None:
        self.hashes: NDArray[np.uint64] = np.asarray(hashes)
        self.numbers: NDArray[np.uint32] = np.asarray(numbers)
        self._sorted, self._first = np.unique(self.hashes, return_index=True)

    def find(self, others: _Hashes) -> NDArray[np.int64]:
        """Return the first dialogue here that has each of some texts; -1 where none has."""
        result = np.full(len(others.hashes), -1, np.int64)
        if len(self._sorted):
            places = np.searchsorted(self._sorted, others.hashes)
            places[places == len(self._sorted)] = 0
            is_here = self._sorted[places] == others.hashes
            result[is_here] = self.numbers[self._first[places[is_here]]]
        return result


def _hash(key: _Key) -> int:
    text = "\n".join(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


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
