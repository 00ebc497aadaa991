"""Figures by which a collapse shows: what the model still says, and whether it can still learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.words import words_of

Floats = npt.NDArray[np.float64]


def label_entropy(counts: Sequence[float] | Floats) -> float:
    """Return the entropy of a label distribution over log(E): 0 (one label) to 1 (all alike).

    Parameters
    ----------
    counts
        Counts or shares by label, 0 or more. All zero: 0.
    """
    shares = _shares(counts)
    if len(shares) < 2:
        return 0.0
    some = shares[shares > 0]
    return max(0.0, float(-(some * np.log(some)).sum() / np.log(len(shares))))


def jensen_shannon(p: Sequence[float] | Floats, q: Sequence[float] | Floats) -> float:
    """Return the Jensen-Shannon divergence of two label distributions, base 2: 0 to 1.

    Parameters
    ----------
    p, q
        Counts or shares in the same label order.

    Raises
    ------
    ValueError
        If one is all zero: it is no distribution.

    References
    ----------
    Lin 1991, "Divergence measures based on the Shannon entropy", eq. 4.1 with equal weights.
    """
    a, b = _shares(p), _shares(q)
    if not a.any() or not b.any():
        raise ValueError("a distribution needs at least one count above 0")
    middle = (a + b) / 2

    def relative(x: Floats) -> float:
        some = x > 0
        return float((x[some] * np.log2(x[some] / middle[some])).sum())

    return min(1.0, max(0.0, (relative(a) + relative(b)) / 2))


def distinct_bigrams(texts: Iterable[str]) -> float:
    """Return distinct-2: distinct word pairs over all word pairs of the texts; none at all: 0.

    References
    ----------
    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models".
    """
    pairs = [pair for text in texts for pair in pairwise(words_of(text))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def zero_variance_share(zero_variance: npt.NDArray[np.bool_]) -> float:
    """Return the share of groups whose rewards are all equal; of no groups at all: 1.

    Where no group is left there is nothing to learn from, as where none varies.
    """
    return float(zero_variance.mean()) if zero_variance.size else 1.0


def _shares(counts: Sequence[float] | Floats) -> Floats:
    values = np.asarray(counts, np.float64)
    total = values.sum()
    return values / total if total > 0 else values
