"""How far a run's answers moved towards a collapse: the figures that the product bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfemo_api.collapse import divergence
from selfemo_jobs.rewards.diversity import label_entropy
from selfemo_study.row_record import DEV
from selfemo_study.statistics import Confusion


@dataclass(frozen=True)
class Signs:
    """Of one generation, on dev; `spec.evolution.collapse` bounds both."""

    entropy: float
    """Normalized entropy of the predicted labels over generation 0's."""
    divergence: float
    """Jensen-Shannon divergence (base 2) of the predicted labels from generation 0's."""


def signs_of(confusions: Mapping[tuple[int, str], Confusion]) -> dict[int, Signs]:
    """Return the signs of each generation after 0 that dev has measured.

    Parameters
    ----------
    confusions
        By generation and split, of shape (dialogues, labels, labels); columns are predicted.
    """
    shares = {g: _shares(c) for (g, split), c in sorted(confusions.items()) if split == DEV}
    zero = shares.pop(0, None)
    before = 0.0 if zero is None else label_entropy(zero)
    if zero is None or not before:
        return {}
    return {
        g: Signs(
            entropy=label_entropy(found) / before,
            divergence=divergence(found.tolist(), zero.tolist()),
        )
        for g, found in shares.items()
    }


def _shares(confusion: Confusion) -> NDArray[np.float64]:
    predicted: NDArray[np.int64] = confusion.sum(axis=(0, 1))
    return np.asarray(predicted / predicted.sum(), np.float64)
