"""Measures of a collapse: does the model still say different things, and can it still learn?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

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
        lower value, so compare only equal numbers of texts.

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


def _to_shares(counts: Sequence[float] | Floats) -> Floats:
    values = np.asarray(counts, np.float64)
    total = values.sum()
    return values / total if total > 0 else values
