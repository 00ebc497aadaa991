"""How near each generation came to a collapse: the figures that the product bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfemo_api.collapse import divergence
from selfemo_jobs.rewards.diversity import label_entropy
from selfemo_study.row_result import DEV
from selfemo_study.statistics import Confusion


@dataclass(frozen=True)
class CollapseMetrics:
    """The figures of one generation on dev; ``spec.stopping.collapse`` bounds both."""

    entropy: float
    """Normalized entropy of the predicted labels, divided by generation 0's."""
    divergence: float
    """Jensen-Shannon divergence (base 2) of the predicted labels from generation 0's."""


def collapse_metrics_by_generation(
    confusions: Mapping[tuple[int, str], Confusion],
) -> dict[int, CollapseMetrics]:
    """Return the metrics of each generation after 0 that was measured on dev.

    The result is empty where generation 0 was not measured, or predicts a single label.

    Parameters
    ----------
    confusions
        The confusion matrices by generation and split, each of shape (dialogues, labels, labels).
        Columns are the predicted labels.

    Examples
    --------
    >>> even, one_label = np.array([[[1, 0], [0, 1]]]), np.array([[[1, 0], [1, 0]]])
    >>> collapse_metrics_by_generation({(0, "dev"): even, (1, "dev"): one_label})[1].entropy
    0.0
    """
    shares = {g: _label_shares(c) for (g, split), c in sorted(confusions.items()) if split == DEV}
    baseline = shares.pop(0, None)
    baseline_entropy = 0.0 if baseline is None else label_entropy(baseline)
    if baseline is None or not baseline_entropy:
        return {}
    return {
        generation: CollapseMetrics(
            entropy=label_entropy(predicted) / baseline_entropy,
            divergence=divergence(predicted.tolist(), baseline.tolist()),
        )
        for generation, predicted in shares.items()
    }


def _label_shares(confusion: Confusion) -> NDArray[np.float64]:
    """Return the share of each label among the predictions; shape (labels,)."""
    predicted: NDArray[np.int64] = confusion.sum(axis=(0, 1))
    return np.asarray(predicted / predicted.sum(), np.float64)
