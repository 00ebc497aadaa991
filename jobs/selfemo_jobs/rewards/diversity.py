"""Figures by which a collapse shows: what the model still says, and whether it can still learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.penalties import words_of

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
