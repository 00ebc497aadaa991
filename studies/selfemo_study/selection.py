"""How well a rise on dev, which promotes, foretells the one on test. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfemo_jobs.stages.evaluate.metrics import label_weights, weighted_f1
from selfemo_study.statistics import Confusion

#: With fewer points a correlation says nothing.
_LEAST = 3


@dataclass(frozen=True)
class Foretelling:
    """Pearson's correlation of dev's changes of F1 with test's, over promotions."""

    promotions: int
    plain: float
    """With dev as it comes."""
    weighed: float | None
    """With dev weighted to ``flywheel.labelPrior``; None without."""

    def to_json(self) -> dict[str, Any]:
        """Return it with three digits."""
        weighed = None if self.weighed is None else round(self.weighed, 3)
        return {
            "promotions": self.promotions,
            "correlation": round(self.plain, 3),
            "correlationWeighed": weighed,
        }


def rise(
    before: Confusion,
    after: Confusion,
    labels: Sequence[str],
    shares: Mapping[str, float] | None = None,
) -> float:
    """Return the change of weighted F1, weighed to shares of the labels or as it comes."""
    support = before.sum(axis=(0, 2))
    weights = label_weights(support, labels, shares)[:, np.newaxis]
    one, other = (weighted_f1(c.sum(axis=0) * weights) for c in (before, after))
    return float(other - one)


def foretelling(promotions: Sequence[Mapping[str, Any]]) -> Foretelling | None:
    """Return how well dev foretold test, or None where there is too little to say.

    Parameters
    ----------
    promotions
        The summary's, each with ``dev``, ``devWeighed`` and ``change``.
    """
    if len(promotions) < _LEAST:
        return None
    test = [step["change"]["value"] for step in promotions]
    plain = _correlation([step["dev"] for step in promotions], test)
    weighed = [step["devWeighed"] for step in promotions]
    if plain is None:
        return None
    return Foretelling(
        promotions=len(promotions),
        plain=plain,
        weighed=None if None in weighed else _correlation(weighed, test),
    )


def _correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return float(np.corrcoef(xs, ys)[0, 1])
