"""What a response is penalized for: naming its emotion, repeating the context, its length.

A judge that reads "I am so angry" as anger says nothing of expression; these checks close the
shortest ways round the expression reward. Ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

#: A word: letters and digits, with apostrophes inside ("don't").
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

#: Word forms of the published label sets, one family a line. A label outside them gets its regular
#: inflections. Synonyms ("furious") are no word forms: to use them is to express.
_FAMILIES = tuple(
    frozenset(line.split())
    for line in (
        "anger angers angered angering angry angrier angriest angrily",
        "mad madder maddest madly madness maddening",
        "joy joys joyful joyfully joyfulness joyous joyously joyousness",
        "happy happier happiest happily happiness",
        "sad sadder saddest sadly sadness sadden saddens saddened saddening",
        "fear fears feared fearing fearful fearfully fearfulness",
        "scared scare scares scaring scary scarier scariest",
        "surprise surprises surprised surprising surprisingly",
        "disgust disgusts disgusted disgustedly disgusting disgustingly",
        "neutral neutrally neutrality",
        "peaceful peacefully peacefulness peace",
        "powerful powerfully powerfulness",
        "excited excitedly excite excites exciting excitingly excitement excitedness",
        "frustrated frustrate frustrates frustrating frustratingly frustration frustrations",
    )
)
_SUFFIXES = ("", "s", "es", "d", "ed", "ing", "ly", "ful", "fully", "ness", "ment", "ion", "y")

#: Words in a run that counts as taken from the context: three, as near-duplicate search uses.
RUN = 3
#: Share of a response's runs that may stand in the context: half of it may echo, as speech does.
MAX_REPEATED = 0.5


@dataclass(frozen=True)
class Faults:
    """What is wrong with one response."""

    names_emotion: bool
    repeats_context: bool
    bad_length: bool

    @property
    def count(self) -> int:
        """How many of the three."""
        return self.names_emotion + self.repeats_context + self.bad_length


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, punctuation left out."""
    return _WORD.findall(text.lower())


@cache
def word_forms(label: str) -> frozenset[str]:
    """Return the words that name an emotion outright: the label and its word forms."""
    for family in _FAMILIES:
        if label in family:
            return family
    stems = {label}
    if label.endswith("e"):
        stems.add(label[:-1])
    if label.endswith("y"):
        stems.add(label[:-1] + "i")
    return frozenset(stem + suffix for stem in stems for suffix in _SUFFIXES) - (stems - {label})


def names_any(words: Collection[str], labels: Iterable[str]) -> bool:
    """Return whether a word form of one of the labels is among the words.

    A compound label (``self-conscious``) is named by its parts side by side in any order.
    """
    found = set(words)
    for label in labels:
        first, *rest = label.split("-")
        forms = word_forms(first) if not rest else frozenset({first})
        if found & forms and all(part in found for part in rest):
            return True
    return False


def repeated_share(words: Sequence[str], turns: Iterable[Sequence[str]]) -> float:
    """Return the share of a response's runs of three words that stand in one of the turns.

    A response shorter than a run counts as repeated only where it is a whole turn of the context:
    "oh no" is heard in any dialogue.
    """
    turns = list(turns)
    if len(words) < RUN:
        return float(bool(words) and any(list(words) == list(turn) for turn in turns))
    seen = {run for turn in turns for run in _runs(turn)}
    runs = _runs(words)
    return sum(run in seen for run in runs) / len(runs)


def faults_of(
    response: str,
    context: Iterable[str],
    intended: Iterable[str],
    *,
    min_words: int,
    max_words: int,
) -> Faults:
    """Return what is wrong with a response.

    Parameters
    ----------
    response
        The text.
    context
        The turns before it.
    intended
        The emotions it is meant to express.
    min_words, max_words
        Bounds of its length, both allowed.
    """
    words = words_of(response)
    return Faults(
        names_emotion=names_any(words, intended),
        repeats_context=repeated_share(words, (words_of(turn) for turn in context)) > MAX_REPEATED,
        bad_length=not min_words <= len(words) <= max_words,
    )


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(RUN)), strict=False))
