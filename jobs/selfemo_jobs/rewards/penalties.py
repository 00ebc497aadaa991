"""Penalties of a response: it names its emotion, repeats the context, or has a bad length.

The expression reward has shortcuts. A judge reads "I am so angry" as anger, although the sentence
only states the emotion and does not express it. These checks close the shortest of them. Ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

#: A word: letters and digits, with apostrophes inside ("don't").
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

#: Word forms of the labels of the published datasets, one word family in each line. A label of
#: another dataset gets its regular inflections. Synonyms ("furious") are not word forms: a response
#: that uses one expresses the emotion.
_WORD_FAMILIES = tuple(
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

#: Words in an n-gram that counts as copied from the context. The near-duplicate filter of the
#: flywheel uses the same number.
NGRAM_WORDS = 3
#: Largest share of a response's n-grams that may occur in the context. People repeat each other to
#: some extent, so half is allowed.
MAX_REPEATED_SHARE = 0.5


@dataclass(frozen=True)
class Faults:
    """The faults of one response; each of them costs one penalty."""

    names_emotion: bool
    """A word form of an intended emotion is in the response."""
    repeats_context: bool
    """More than half of the response's n-grams occur in the turns before it."""
    bad_length: bool
    """The response has too few or too many words."""

    @property
    def count(self) -> int:
        """Number of faults, 0 to 3."""
        return self.names_emotion + self.repeats_context + self.bad_length


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation.

    Parameters
    ----------
    text
        Any text. Apostrophes within a word are part of the word.

    Returns
    -------
    list of str
        The words, in order.

    Examples
    --------
    >>> split_words("Oh no, don't!")
    ['oh', 'no', "don't"]
    """
    return _WORD.findall(text.lower())


@cache
def word_forms(label: str) -> frozenset[str]:
    """Return the words that name an emotion outright: the label and its word forms.

    Parameters
    ----------
    label
        The label, one word in lower case.

    Returns
    -------
    frozenset of str
        The word family of the label. A label that is not in the published datasets gets regular
        English endings.

    Examples
    --------
    >>> sorted(word_forms("peaceful"))
    ['peace', 'peaceful', 'peacefully', 'peacefulness']
    >>> "loved" in word_forms("love"), "lovely" in word_forms("love")
    (True, True)
    """
    for family in _WORD_FAMILIES:
        if label in family:
            return family
    stems = {label}
    if label.endswith("e"):
        stems.add(label[:-1])
    if label.endswith("y"):
        stems.add(label[:-1] + "i")
    return frozenset(stem + suffix for stem in stems for suffix in _SUFFIXES) - (stems - {label})


def names_any_label(words: Collection[str], labels: Iterable[str]) -> bool:
    """Return whether the words contain a word form of one of the labels.

    Parameters
    ----------
    words
        Words in lower case, as :func:`split_words` returns them.
    labels
        The labels to look for. A compound label such as ``self-conscious`` is named if all its
        parts are among the words, in any order.

    Returns
    -------
    bool
        True if at least one label is named.

    Examples
    --------
    >>> names_any_label(["i", "am", "angry"], ["joy", "anger"])
    True
    >>> names_any_label(["i", "could", "scream"], ["anger"])
    False
    """
    distinct = set(words)
    for label in labels:
        first, *rest = label.split("-")
        forms = word_forms(first) if not rest else frozenset({first})
        if distinct & forms and all(part in distinct for part in rest):
            return True
    return False


def repeated_share(words: Sequence[str], turns: Iterable[Sequence[str]]) -> float:
    """Return the share of a response's n-grams (three words each) that occur in the context.

    Parameters
    ----------
    words
        Words of the response, as :func:`split_words` returns them.
    turns
        Words of each turn of the context.

    Returns
    -------
    float
        A value from 0 to 1. A response of fewer than three words has no n-gram. It gets 1 if it
        equals a whole turn and 0 otherwise, since short phrases such as "oh no" occur in any
        dialogue.

    Examples
    --------
    >>> repeated_share("well where were you then".split(), ["where were you last night".split()])
    0.3333333333333333
    """
    turns = list(turns)
    if len(words) < NGRAM_WORDS:
        return float(bool(words) and any(list(words) == list(turn) for turn in turns))
    context_ngrams = {ngram for turn in turns for ngram in _ngrams(turn)}
    ngrams = _ngrams(words)
    return sum(ngram in context_ngrams for ngram in ngrams) / len(ngrams)


def find_faults(
    response: str,
    context: Iterable[str],
    intended: Iterable[str],
    *,
    min_words: int,
    max_words: int,
) -> Faults:
    """Return the faults of a response.

    Parameters
    ----------
    response
        The text of the response.
    context
        The texts of the turns before it.
    intended
        The emotions that the response is to express.
    min_words, max_words
        The smallest and the largest number of words that are allowed.

    Returns
    -------
    Faults
        Which of the three faults the response has.

    Examples
    --------
    >>> find_faults("I am so angry!", ["Where were you?"], ["anger"], min_words=2, max_words=40)
    Faults(names_emotion=True, repeats_context=False, bad_length=False)
    """
    words = split_words(response)
    turns = (split_words(turn) for turn in context)
    return Faults(
        names_emotion=names_any_label(words, intended),
        repeats_context=repeated_share(words, turns) > MAX_REPEATED_SHARE,
        bad_length=not min_words <= len(words) <= max_words,
    )


def _ngrams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(NGRAM_WORDS)), strict=False))
