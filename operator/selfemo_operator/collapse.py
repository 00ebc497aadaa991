"""Tells when an evolution has collapsed: the known end of label-free training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import CollapseBounds
from selfemo_api.stages import Stage


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
    return max(0.0, total)


def collapse_of(
    result: StageResult, baseline: SourceScore | None, bounds: CollapseBounds
) -> str | None:
    """Return how a result is past the bounds, in words, or None where all is well.

    Parameters
    ----------
    result
        Of SelfPlay (response diversity), Score (zero-variance share) or Evaluate (label entropy and
        divergence from generation 0 on the selecting source, which stands first in `scores`).
    baseline
        Generation 0 on the selecting source.
    bounds
        `spec.evolution.collapse`.
    """
    if result.stage is Stage.SELF_PLAY:
        return _below("response diversity", result.metrics.get("diversity"), bounds.min_diversity)
    if result.stage is Stage.SCORE:
        share = result.metrics.get("zeroVarianceShare")
        return _above("the share of groups without variance", share, bounds.max_zero_variance)
    if result.stage is Stage.EVALUATE and result.scores and baseline is not None:
        return _evaluated(result.scores[0], baseline, bounds)
    return None


def _evaluated(score: SourceScore, baseline: SourceScore, bounds: CollapseBounds) -> str | None:
    if baseline.label_entropy > 0.0:
        ratio = score.label_entropy / baseline.label_entropy
        found = _below("label entropy over generation 0's", ratio, bounds.min_entropy)
        if found:
            return found
    if len(score.predicted_shares) != len(baseline.predicted_shares):
        return None
    away = divergence(score.predicted_shares, baseline.predicted_shares)
    return _above("the divergence from generation 0's labels", away, bounds.max_divergence)


def _below(what: str, value: float | None, bound: float) -> str | None:
    return (
        f"{what} is {value:.3f}, below {bound:g}" if value is not None and value < bound else None
    )


def _above(what: str, value: float | None, bound: float) -> str | None:
    return (
        f"{what} is {value:.3f}, above {bound:g}" if value is not None and value > bound else None
    )
