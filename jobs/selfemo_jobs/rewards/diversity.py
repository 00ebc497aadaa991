"""Measures of a collapse: does the model still say different things, and can it still learn?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import exp, lgamma

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.word_units import split_words

Floats = npt.NDArray[np.float64]

#: Hexadecimal digits of a hash of :func:`bigram_hashes`: 32 bits.
BIGRAM_HASH = 8


def label_entropy(counts: Sequence[float] | Floats) -> float:
    """Return the normalized entropy of a label distribution.

    ``H = -sum_e p_e * log(p_e) / log(E)``

    Parameters
    ----------
    counts
        Count or share of each of the E labels, 0 or more. They need not sum to 1.

    Returns
    -------
    float
        A value from 0 (all one label) to 1 (all labels equally often). It is 0 if all counts are 0,
        and for fewer than two labels.

    Notes
    -----
    Shannon's entropy, divided by its maximum so that label sets of different sizes compare.

    Examples
    --------
    >>> label_entropy([5, 5, 0, 0])
    0.5
    >>> label_entropy([7, 0, 0])
    0.0
    """
    shares = _to_shares(counts)
    if len(shares) < 2:
        return 0.0
    positive = shares[shares > 0]
    return max(0.0, float(-(positive * np.log(positive)).sum() / np.log(len(shares))))


def distinct_bigrams(texts: Iterable[str]) -> float:
    """Return distinct-2: the number of different word pairs over the number of all word pairs.

    Parameters
    ----------
    texts
        The texts, in any script. A pair consists of two neighboring words of one text
        (:mod:`selfemo_jobs.rewards.word_units`). In Chinese each character is a word.

    Returns
    -------
    float
        A value from 0 to 1. It is 0 if no text has two words. More texts of the same kind give a
        lower value, and so do longer texts: see :func:`distinct_bigrams_of`.

    References
    ----------
    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models".

    Examples
    --------
    >>> distinct_bigrams(["what a day", "what a mess"])
    0.75
    >>> distinct_bigrams(["真开心", "真难过"])
    1.0
    """
    pairs = _word_pairs(texts)
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def distinct_bigrams_of(texts: Iterable[str], pairs: int) -> float:
    """Return the expected distinct-2 of a random subset of the word pairs.

    Longer texts have more pairs, and repeat more of them. With subsets of the same size, texts of
    different lengths can be compared.

    Parameters
    ----------
    texts
        The texts, as in :func:`distinct_bigrams`.
    pairs
        The number of pairs in the subset, from 1 to :func:`count_bigrams` of the texts.

    Returns
    -------
    float
        A value from 0 to 1: the mean of distinct-2 over all subsets of so many pairs.

    Raises
    ------
    ValueError
        If the texts have fewer pairs.

    Notes
    -----
    Rarefaction (Hurlbert 1971, "The Nonconcept of Species Diversity", equation 14): a pair that
    occurs ``k`` times among ``N`` is in a subset of ``n`` with the probability
    ``1 - C(N - k, n) / C(N, n)``.

    Examples
    --------
    >>> round(distinct_bigrams_of(["what a day", "what a mess"], 2), 4)
    0.9167
    """
    counts = Counter(_word_pairs(texts))
    total = counts.total()
    if not 1 <= pairs <= total:
        raise ValueError(f"there are {total} word pairs: choose a number from 1 to it, not {pairs}")
    of_frequency = Counter(counts.values())
    absent = sum(n * _absence(total, count, pairs) for count, n in of_frequency.items())
    return (len(counts) - absent) / pairs


def count_bigrams(texts: Iterable[str]) -> int:
    """Return the number of word pairs in the texts.

    Parameters
    ----------
    texts
        The texts, as in :func:`distinct_bigrams`.

    Examples
    --------
    >>> count_bigrams(["what a day", "what a mess"])
    4
    """
    return len(_word_pairs(texts))


def bigram_hashes(texts: Iterable[str]) -> list[str]:
    """Return a hash of each word pair of :func:`distinct_bigrams`, for texts in several places.

    Parameters
    ----------
    texts
        The texts, in any script.

    Returns
    -------
    list of str
        :data:`BIGRAM_HASH` hexadecimal digits of each pair, in order. Of ten thousand different
        pairs, hardly two have the same.

    Examples
    --------
    >>> hashes = bigram_hashes(["what a day", "what a mess"])
    >>> len(hashes), len(set(hashes))
    (4, 3)
    """
    return [
        hashlib.blake2b(" ".join(pair).encode(), digest_size=BIGRAM_HASH // 2).hexdigest()
        for pair in _word_pairs(texts)
    ]


def _word_pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    return [pair for text in texts for pair in pairwise(split_words(text))]


def _absence(total: int, count: int, drawn: int) -> float:
    """Return the probability that none of ``count`` items is among those drawn from ``total``."""
    if total - count < drawn:
        return 0.0
    return exp(
        lgamma(total - count + 1)
        - lgamma(total - count - drawn + 1)
        - lgamma(total + 1)
        + lgamma(total - drawn + 1)
    )


def _to_shares(counts: Sequence[float] | Floats) -> Floats:
    values = np.asarray(counts, np.float64)
    total = values.sum()
    return values / total if total > 0 else values
