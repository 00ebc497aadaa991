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
#: The number of hashes that are looked up at once, so that this takes little memory.
_BLOCK = 1 << 16

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
    bits, of which a dialogue of ten turns has nine. So the index takes 108 bytes for it.

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
        pairs: list[tuple[int, int]] = []
        for numbers, firsts in self._wholes.find(self._wholes):
            is_repeated = numbers != firsts
            pairs += zip(numbers[is_repeated].tolist(), firsts[is_repeated].tolist(), strict=True)
        self.repeated: list[tuple[str, str]] = [
            (dialogues[number].id, dialogues[first].id) for number, first in sorted(pairs)
        ]
        """The id of each dialogue that repeats an earlier one as a whole, and of that one."""

    def overlap(self, other: DialogueIndex) -> Overlap | None:
        """Return how many dialogues of this source are in the other one; None if none is."""
        none = len(other._dialogues)
        twins = np.full(len(self._dialogues), none, np.int64)
        for numbers, firsts in other._parts.find(self._parts):
            np.minimum.at(twins, numbers, firsts)
        for numbers, firsts in other._wholes.find(self._wholes):
            twins[numbers] = firsts  # the same dialogue is a better example than a similar one
        alike = np.flatnonzero(twins < none)
        if not len(alike):
            return None
        first = int(alike[0])
        return Overlap(
            len(alike), self._dialogues[first].id, other._dialogues[int(twins[first])].id
        )


class _Hashes:
    """Hashes of texts in their order, with the number of the dialogue that each is of.

    Of equal hashes, the first has the smallest number.

    Parameters
    ----------
    hashes, numbers
        Shape (texts,): the hash, and the number of the dialogue, in the order of the dialogues.
    """

    def __init__(self, hashes: array[int], numbers: array[int]) -> None:
        unordered = np.asarray(hashes)
        order = np.argsort(unordered, kind="stable")
        self._hashes: NDArray[np.uint64] = unordered[order]
        self._numbers: NDArray[np.uint32] = np.asarray(numbers)[order]

    def find(self, others: _Hashes) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
        """Yield the dialogues of texts that are here too, and the first dialogue here of each."""
        for start in range(0, len(others._hashes) if len(self._hashes) else 0, _BLOCK):
            hashes = others._hashes[start : start + _BLOCK]
            places = np.searchsorted(self._hashes, hashes)
            places[places == len(self._hashes)] = 0
            is_here = self._hashes[places] == hashes
            numbers = others._numbers[start : start + _BLOCK]
            yield numbers[is_here], self._numbers[places[is_here]]


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
