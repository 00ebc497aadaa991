"""Reads the recognizer's answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Between two labels: a comma, a line break, or "and".
_BETWEEN = re.compile(r"[,\n]|(?<![\w-])and(?![\w-])")
_AROUND = " \t\r\v\f.;:!?\"'`*()[]"


@dataclass(frozen=True)
class ParsedLabels:
    """What an answer says."""

    labels: tuple[str, ...]
    """The emotions it names, in the order of the label set."""
    well_formed: bool
    """Label names and nothing else, each once."""
    named: tuple[str, ...] = ()
    """The same emotions in the order of the answer."""

    @property
    def first(self) -> str | None:
        """The emotion named first, or None where none is."""
        return self.named[0] if self.named else None


def parse_labels(text: str, labels: Sequence[str]) -> ParsedLabels:
    """Return the labels that an answer names.

    An answer is well formed if it is one label name or several, separated by commas, line breaks
    or "and", in any case, punctuation around a name allowed. Anything else is not well formed; the
    labels that stand in it as whole words still count.

    Parameters
    ----------
    text
        The completion.
    labels
        The label set, lower case.
    """
    known = frozenset(labels)
    answer = text.lower().strip()
    pieces = [piece.strip(_AROUND) for piece in _BETWEEN.split(answer)]
    named = [piece for piece in pieces if piece in known]
    well_formed = bool(named) and named == _without_blanks(pieces, answer)
    if not well_formed:
        named = _words(answer, labels)
    unique = tuple(dict.fromkeys(named))
    return ParsedLabels(
        labels=tuple(label for label in labels if label in unique),
        well_formed=well_formed and len(unique) == len(named),
        named=unique,
    )


def _without_blanks(pieces: list[str], answer: str) -> list[str]:
    """Drop the empty pieces that ", and" and a trailing comma leave, if the answer has words."""
    return [piece for piece in pieces if piece] if answer else []


def _words(answer: str, labels: Sequence[str]) -> list[str]:
    """Return labels that stand in a text as whole words, in its order."""
    longest_first = sorted(labels, key=len, reverse=True)
    either = "|".join(re.escape(label) for label in longest_first)
    return re.findall(rf"(?<![\w-])(?:{either})(?![\w-])", answer)


def nearest_label(text: str, labels: Sequence[str]) -> str:
    """Return the label with the smallest edit distance to an answer, the first of equals.

    This is how InstructERC (arXiv 2309.11911) maps every answer to a label.
    """
    answer = text.strip().lower()
    return min(labels, key=lambda label: edit_distance(answer, label))


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and replacements, each 1."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            previous, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, previous + (left != right)),
            )
    return row[-1]
