"""The signs of a collapse: the planner acts on them, the report and the terminal show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfemo_api.metrics import ScoreMetric, SelfPlayMetric
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import CollapseBounds
from selfemo_api.stages import Stage


@dataclass(frozen=True)
class Sign:
    """One figure, and the bound past which the run has collapsed."""

    name: str
    value: float
    bound: float
    falls: bool
    """Whether a fall below the bound is the collapse, rather than a rise above it."""

    @property
    def crossed(self) -> bool:
        """Whether it says collapse."""
        return self.value < self.bound if self.falls else self.value > self.bound

    def __str__(self) -> str:
        word = "below" if self.falls else "above"
        return f"{self.name} is {self.value:.3f}, {word} {self.bound:g}"


def stage_signs(stage: Stage, metrics: Mapping[str, float], bounds: CollapseBounds) -> list[Sign]:
    """Return what the metrics of SelfPlay or Score tell; other stages tell nothing here."""
    if stage is Stage.SELF_PLAY and SelfPlayMetric.DIVERSITY in metrics:
        return [
            Sign(
                "response diversity", metrics[SelfPlayMetric.DIVERSITY], bounds.min_diversity, True
            )
        ]
    if stage is Stage.SCORE and ScoreMetric.ZERO_VARIANCE_SHARE in metrics:
        name = "the share of groups without variance"
        return [
            Sign(name, metrics[ScoreMetric.ZERO_VARIANCE_SHARE], bounds.max_zero_variance, False)
        ]
    return []


def label_signs(score: SourceScore, baseline: SourceScore, bounds: CollapseBounds) -> list[Sign]:
    """Return what an evaluation tells: both scores are of the selecting source.

    A figure that cannot be had is left out: entropy where generation 0 has none, the divergence
    where the shares are not there.
    """
    signs = []
    if baseline.label_entropy > 0.0:
        ratio = score.label_entropy / baseline.label_entropy
        signs.append(Sign("label entropy over generation 0's", ratio, bounds.min_entropy, True))
    if len(score.predicted_shares) == len(baseline.predicted_shares) > 0:
        away = divergence(score.predicted_shares, baseline.predicted_shares)
        name = "the divergence from generation 0's labels"
        signs.append(Sign(name, away, bounds.max_divergence, False))
    return signs


def crossed_bound(
    result: StageResult, baseline: SourceScore | None, bounds: CollapseBounds
) -> str | None:
    """Return which collapse bound a result crosses, as a sentence, or None.

    Parameters
    ----------
    result
        The result of SelfPlay (response diversity), Score (share of groups without variance) or
        Evaluate (label entropy and divergence from the baseline on the selection dataset, whose
        score is the first in ``scores``).
    baseline
        The baseline's score on the selection dataset. None: an evaluation crosses no bound.
    bounds
        The bounds, ``spec.evolution.collapse``.
    """
    signs = stage_signs(result.stage, result.metrics, bounds)
    if result.stage is Stage.EVALUATE and result.scores and baseline is not None:
        signs = label_signs(result.scores[0], baseline, bounds)
    return next((str(sign) for sign in signs if sign.crossed), None)


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the Jensen-Shannon divergence of two label distributions, base 2 (0 to 1).

    Parameters
    ----------
    p, q
        Shares in the same label order; each sums to 1. Two empty sequences diverge by 0.

    References
    ----------
    Lin 1991, "Divergence measures based on the Shannon entropy", eq. 4.1 with equal weights.
    """
    total = 0.0
    for a, b in zip(p, q, strict=True):
        mean = (a + b) / 2
        for share in (a, b):
            if share > 0.0:
                total += share / 2 * math.log2(share / mean)
    return min(1.0, max(0.0, total))
