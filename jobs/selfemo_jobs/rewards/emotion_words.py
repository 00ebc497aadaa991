"""The words that name an emotion outright: a label and its word forms, in any script.

How a label is found depends on its script:

- Latin: the label or one of its word forms is a word of the response.
- Other scripts with blanks between words: a word begins with the label and has a few more letters
  at most. In Arabic and Hebrew a few letters, such as an article, may also be before it.
- Scripts without blanks: the label's characters stand in the response one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby

import regex

from selfemo_jobs.rewards.word_units import contains_run, is_unspaced, normalize_text, split_words

#: Word forms of the labels of the published datasets, one word family in each line. Another label
#: in Latin script gets regular English endings. Synonyms ("furious") are not word forms: a response
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

#: The letters by which a word may be longer than the label that it names, in a script for which
#: there are no word forms. More than three are rarely an ending alone.
_MOST_ADDED_LETTERS = 3
#: The fewest letters of a label that longer words may begin with. One letter begins many words.
_FEWEST_LETTERS = 2
_SEPARATOR = regex.compile(r"[\s_/+&-]+")
_LATIN = regex.compile(r"\p{Latin}")
#: Korean endings follow each other, so a word may go on for any number of letters.
_HANGUL = regex.compile(r"\p{Hangul}")
#: Scripts whose articles and prepositions are written as one with the word.
_WITH_PREFIXES = regex.compile(r"[\p{Arabic}\p{Hebrew}]")
#: Marks of vowels in Arabic and Hebrew, which are usually left out, and the stroke that only
#: lengthens an Arabic word.
_OPTIONAL_MARK = regex.compile(r"(?<=[\p{Arabic}\p{Hebrew}]\p{M}*)\p{M}|\u0640")
#: The last letter of a longer Russian noun, which changes with its case.
_ENDING = regex.compile(r"(?<=\p{Cyrillic}{4})[аеёийоуыьэюя]$")


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


def names_any_label(words: Sequence[str], labels: Iterable[str]) -> bool:
    """Return whether the words contain a word form of one of the labels.

    Parameters
    ----------
    words
        Words in lower case, as :func:`~selfemo_jobs.rewards.word_units.split_words` returns them.
    labels
        The labels to look for, in any script. A label of several words, such as ``self-conscious``
        or ``very_happy``, is named if all its parts are among the words, in any order.

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
    >>> names_any_label(split_words("我今天真开心"), ["开心"])
    True
    """
    distinct = frozenset(words)
    return any(_names_label(words, distinct, label) for label in labels)


def has_label_sign(text: str, labels: Iterable[str]) -> bool:
    """Return whether a text has one of the labels that are signs, for example an emoji.

    Parameters
    ----------
    text
        The text of a response.
    labels
        The labels. Those with letters or digits are words and are left to
        :func:`names_any_label`.

    Examples
    --------
    >>> has_label_sign("Great 😀", ["😀", "joy"]), has_label_sign("joy", ["joy"])
    (True, False)
    """
    return any(not label_parts(label) and label in text for label in labels)


def _names_label(words: Sequence[str], distinct: frozenset[str], label: str) -> bool:
    parts = label_parts(label)
    if not parts:
        return False
    inflected = len(parts) == 1
    return all(
        _contains_characters(words, part)
        if is_unspaced(part[0])
        else _contains_word(distinct, part[0], inflected=inflected)
        for part in parts
    )


@cache
def label_parts(label: str) -> tuple[tuple[str, ...], ...]:
    """Return the parts of a label: its words, and its runs of characters without blanks.

    Parameters
    ----------
    label
        The label. Blanks, underscores, hyphens and slashes separate its parts.

    Returns
    -------
    tuple of tuple of str
        A word is a tuple of one; a run is a tuple of its characters. Empty if the label has
        neither letters nor digits.

    Examples
    --------
    >>> label_parts("self-conscious")
    (('self',), ('conscious',))
    >>> label_parts("非常开心")
    (('非', '常', '开', '心'),)
    """
    parts: list[tuple[str, ...]] = []
    for piece in _SEPARATOR.split(normalize_text(label)):
        for unspaced, group in groupby(split_words(piece), is_unspaced):
            words = tuple(group)
            parts += [words] if unspaced else [(word,) for word in words]
    return tuple(parts)


def _contains_characters(words: Sequence[str], run: tuple[str, ...]) -> bool:
    """Return whether the characters of a label stand one after the other.

    The end of a Japanese adjective changes with its form, so it is not looked for.
    """
    if len(run) > _FEWEST_LETTERS and run[-1] == "い":
        run = run[:-1]
    return contains_run(words, run)


def _contains_word(distinct: frozenset[str], label: str, *, inflected: bool) -> bool:
    """Return whether a word of a label is among the words, in one of its forms if `inflected`."""
    if not inflected:
        return label in distinct
    if _LATIN.match(label):
        return not word_forms(label).isdisjoint(distinct)
    stem = _ENDING.sub("", _OPTIONAL_MARK.sub("", label))
    return any(_is_form(_OPTIONAL_MARK.sub("", word), stem) for word in distinct)


def _is_form(word: str, stem: str) -> bool:
    """Return whether a word is the stem with a few letters added."""
    if len(stem) < _FEWEST_LETTERS:
        return word == stem
    prefix, middle, suffix = word.partition(stem)
    longest_prefix = _MOST_ADDED_LETTERS if _WITH_PREFIXES.match(stem) else 0
    longest_suffix = len(word) if _HANGUL.match(stem) else _MOST_ADDED_LETTERS
    return bool(middle) and len(prefix) <= longest_prefix and len(suffix) <= longest_suffix
