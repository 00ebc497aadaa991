"""How well a change on dev, which decides promotion, predicts the change on test. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfemo_jobs.evaluation.metrics import label_weights, weighted_f1
from selfemo_study.statistics import Confusion

#: With fewer promotions a correlation has no meaning.
_MIN_PROMOTIONS = 3


@dataclass(frozen=True)
class PromotionCorrelation:
    """Pearson's correlation of the changes of F1 on dev and on test, over promotions."""

    promotions: int
    """The number of promotions."""
    plain: float
    """The correlation with dev as it is."""
    weighted: float | None
    """The correlation with dev weighted to ``dataset.labelPrior``. None where the study has no
    label prior."""

    def to_json(self) -> dict[str, Any]:
        """Return the correlations, rounded to three digits."""
        return {
            "promotions": self.promotions,
            "correlation": round(self.plain, 3),
            "correlationWeighed": None if self.weighted is None else round(self.weighted, 3),
        }


def f1_change(
    before: Confusion,
    after: Confusion,
    labels: Sequence[str],
    label_prior: Mapping[str, float] | None = None,
) -> float:
    """Return the change of weighted F1 from one model to another.

    Parameters
    ----------
    before
        The confusion matrices of the first model, shape (dialogues, labels, labels).
    after
        The confusion matrices of the second model, on the same dialogues.
    labels
        The labels, in the order of the matrices.
    label_prior
        The share of each label where the model is used. Utterances are weighted so that their
        labels have these shares. None: all utterances count the same.
    """
    support = before.sum(axis=(0, 2))
    weights = label_weights(support, labels, label_prior)[:, np.newaxis]
    f1_before, f1_after = (weighted_f1(c.sum(axis=0) * weights) for c in (before, after))
    return float(f1_after - f1_before)


def correlate_promotions(promotions: Sequence[Mapping[str, Any]]) -> PromotionCorrelation | None:
    """Return how well dev's changes predict test's, or None where there is too little data.

    Parameters
    ----------
    promotions
        The promotions of the summary, each with ``dev``, ``devWeighed`` and ``change``.
    """
    if len(promotions) < _MIN_PROMOTIONS:
        return None
    test = [promotion["change"]["value"] for promotion in promotions]
    plain = _correlation([promotion["dev"] for promotion in promotions], test)
    weighted = [promotion["devWeighed"] for promotion in promotions]
    if plain is None:
        return None
    return PromotionCorrelation(
        promotions=len(promotions),
        plain=plain,
        weighted=None if None in weighted else _correlation(weighted, test),
    )


def _correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return Pearson's correlation, or None where one side does not vary."""
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return float(np.corrcoef(xs, ys)[0, 1])
