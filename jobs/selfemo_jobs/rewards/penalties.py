"""Penalties of a response: it names its emotion, repeats the context, or has a bad length.

The expression reward has shortcuts. A judge reads "I am so angry" as anger, although the sentence
only states the emotion and does not express it. These checks close the shortest of them. Ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfemo_jobs.rewards.emotion_words import has_label_sign, names_any_label, word_forms
from selfemo_jobs.rewards.word_units import split_words

__all__ = [
    "MAX_REPEATED_SHARE",
    "NGRAM_WORDS",
    "Faults",
    "find_faults",
    "names_any_label",
    "repeated_share",
    "split_words",
    "word_forms",
]

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


def repeated_share(words: Sequence[str], turns: Iterable[Sequence[str]]) -> float:
    """Return the share of a response's n-grams (three words each) that occur in the context.

    Parameters
    ----------
    words
        Words of the response, as :func:`~selfemo_jobs.rewards.word_units.split_words` returns them.
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
        The text of the response, in any script (:mod:`selfemo_jobs.rewards.word_units`).
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
    emotions = list(intended)
    turns = (split_words(turn) for turn in context)
    return Faults(
        names_emotion=names_any_label(words, emotions) or has_label_sign(response, emotions),
        repeats_context=repeated_share(words, turns) > MAX_REPEATED_SHARE,
        bad_length=not min_words <= len(words) <= max_words,
    )


def _ngrams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(NGRAM_WORDS)), strict=False))
