"""Parses the recognizer's answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Separates two labels: a comma, a line break, or "and".
_SEPARATOR = re.compile(r"[,\n]|(?<![\w-])and(?![\w-])")
#: Characters that may stand around a label.
_PUNCTUATION = " \t\r\v\f.;:!?\"'`*()[]"


@dataclass(frozen=True)
class ParsedLabels:
    """The emotions that an answer names."""

    labels: tuple[str, ...]
    """The emotions, in the order of the label set."""
    well_formed: bool
    """Whether the answer has label names, each once, and nothing else."""
    named: tuple[str, ...] = ()
    """The same emotions, in the order of the answer."""

    @property
    def first(self) -> str | None:
        """The first emotion of the answer, or None if it names none."""
        return self.named[0] if self.named else None


def parse_labels(text: str, labels: Sequence[str]) -> ParsedLabels:
    """Return the labels that an answer names.

    An answer is well formed if it has one or more label names, in any case, and nothing else.
    Commas, line breaks or "and" separate them, and punctuation may stand around them. Other answers
    are not well formed, but the labels in them count if they are whole words.

    Parameters
    ----------
    text
        The completion.
    labels
        The label set, in lower case.

    Examples
    --------
    >>> parse_labels("Joy and surprise.", ["joy", "fear", "surprise"]).labels
    ('joy', 'surprise')
    >>> parse_labels("It sounds like joy", ["joy", "fear"])
    ParsedLabels(labels=('joy',), well_formed=False, named=('joy',))
    """
    known = frozenset(labels)
    answer = text.lower().strip()
    pieces = [piece.strip(_PUNCTUATION) for piece in _SEPARATOR.split(answer)]
    named = [piece for piece in pieces if piece in known]
    well_formed = bool(named) and named == _without_blanks(pieces, answer)
    if not well_formed:
        named = _labels_in(answer, labels)
    unique = tuple(dict.fromkeys(named))
    return ParsedLabels(
        labels=tuple(label for label in labels if label in unique),
        well_formed=well_formed and len(unique) == len(named),
        named=unique,
    )


def _without_blanks(pieces: list[str], answer: str) -> list[str]:
    """Return the pieces without empty ones, which ", and" and a trailing comma leave."""
    return [piece for piece in pieces if piece] if answer else []


def _labels_in(answer: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that are whole words of an answer, in its order."""
    longest_first = sorted(labels, key=len, reverse=True)
    either = "|".join(re.escape(label) for label in longest_first)
    return re.findall(rf"(?<![\w-])(?:{either})(?![\w-])", answer)


def nearest_label(text: str, labels: Sequence[str]) -> str:
    """Return the label with the smallest edit distance to an answer; of equal ones, the first.

    InstructERC (arXiv 2309.11911) maps each answer to a label in this way.

    Examples
    --------
    >>> nearest_label("Angry", ["joy", "sadness", "anger"])
    'anger'
    """
    answer = text.strip().lower()
    return min(labels, key=lambda label: edit_distance(answer, label))


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance of two texts: each edit of a character counts 1.

    Examples
    --------
    >>> edit_distance("joy", "joyful")
    3
    """
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            previous, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, previous + (left != right)),
            )
    return row[-1]
