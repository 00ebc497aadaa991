"""Parses the recognizer's answers, with labels of any script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from selfemo_jobs.rewards.word_units import SPACED, normalize_answer

#: Words that stand between two labels, as a comma does: those of the languages that a built-in
#: prompt set has, and of Japanese, which has no blanks around it either.
_AND = ("and", "以及", "和", "与", "と")
#: Commas of the scripts that have their own. Fullwidth commas are normalized to the usual one.
_COMMAS = r",、\ufe51\u060c\u055d\u1363\u104a"
#: A set: the signs that may stand around a label. Of ASCII's punctuation these are a few, so that a
#: label in a formula or in code is not well formed. Of other scripts' it is all but the commas.
_AROUND = rf"""[ \t\r\v\f.;:!?"'`*()\[\][[\p{{P}}\p{{Z}}\p{{Cf}}]--[\p{{ASCII}}{_COMMAS}]]]"""
#: A set: what continues a word of a script with blanks between words.
_IN_WORD = rf"[{SPACED}\p{{M}}_\-]"


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
    Commas of any script, line breaks, "and" or "和" separate them, and punctuation may stand around
    them. Other answers are not well formed, but the labels in them count. In a script with blanks
    between words they must be whole words.

    Parameters
    ----------
    text
        The completion.
    labels
        The label set, in any script.

    Examples
    --------
    >>> parse_labels("Joy and surprise.", ["joy", "fear", "surprise"]).labels
    ('joy', 'surprise')
    >>> parse_labels("It sounds like joy", ["joy", "fear"])
    ParsedLabels(labels=('joy',), well_formed=False, named=('joy',))
    >>> parse_labels("惊讶、开心。", ["开心", "惊讶"])
    ParsedLabels(labels=('开心', '惊讶'), well_formed=True, named=('惊讶', '开心'))
    """
    forms = _label_forms(tuple(labels))
    answer = normalize_answer(text)
    whole = forms.answer.fullmatch(answer)
    names = whole.captures("label") if whole else forms.label.findall(answer)
    unique = tuple(dict.fromkeys(forms.spelling[name] for name in names))
    return ParsedLabels(
        labels=tuple(label for label in labels if label in unique),
        well_formed=whole is not None and len(unique) == len(names),
        named=unique,
    )


@dataclass(frozen=True)
class _LabelForms:
    """How the labels of a set are found in an answer."""

    spelling: dict[str, str]
    """The label by its normalized text."""
    label: regex.Pattern[str]
    """Matches one label."""
    answer: regex.Pattern[str]
    """Matches a well-formed answer as a whole."""


@lru_cache(maxsize=64)
def _label_forms(labels: tuple[str, ...]) -> _LabelForms:
    spelling: dict[str, str] = {}
    for label in labels:
        spelling.setdefault(normalize_answer(label), label)
    longest_first = sorted(spelling, key=len, reverse=True)
    label = "(?P<label>" + "|".join(_whole_word(name) for name in longest_first) + ")"
    between = "|".join((rf"[{_COMMAS}\n]", *(_whole_word(word) for word in _AND)))
    # lazy: a label may begin with such signs or words itself
    rest = f"(?:{_AROUND}|{between})*?"
    answer = f"{rest}{label}(?:{_AROUND}*?(?:{between}){rest}{label})*{rest}"
    return _LabelForms(spelling, regex.compile(label, regex.V1), regex.compile(answer, regex.V1))


def _whole_word(text: str) -> str:
    """Return the pattern of a text that does not continue a word, and that no word continues."""
    before = rf"(?<!{_IN_WORD})" if regex.match(_IN_WORD, text[:1], regex.V1) else ""
    after = rf"(?!{_IN_WORD})" if regex.match(_IN_WORD, text[-1:], regex.V1) else ""
    if len(text) > 1 and regex.search(r"\p{Hangul}$", text):
        after = ""  # Korean particles follow without a blank
    return before + str(regex.escape(text, special_only=True)) + after


def nearest_label(text: str, labels: Sequence[str]) -> str:
    """Return the label with the smallest edit distance to an answer; of equal ones, the first.

    InstructERC (arXiv 2309.11911) maps each answer to a label in this way.

    Examples
    --------
    >>> nearest_label("Angry", ["joy", "sadness", "anger"])
    'anger'
    """
    answer = normalize_answer(text)
    return min(labels, key=lambda label: edit_distance(answer, normalize_answer(label)))


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
