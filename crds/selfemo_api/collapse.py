"""The collapse indicators. The planner acts on them; the report and the terminal show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfemo_api.metrics import ScoreMetric, SelfPlayMetric
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import CollapseBounds
from selfemo_api.stages import Stage


@dataclass(frozen=True)
class CollapseIndicator:
    """One value, and the threshold at which the run has collapsed."""

    name: str
    """What the value measures, for messages and charts."""
    value: float
    """The measured value."""
    bound: float
    """The threshold, from ``spec.stopping.collapse``."""
    falls: bool
    """Whether values below the threshold are a collapse. If false, values above it are."""
    counts: bool = True
    """Whether a value past the threshold is a collapse. If false, the value is only shown."""

    @property
    def crossed(self) -> bool:
        """Whether the value is a collapse."""
        is_past = self.value < self.bound if self.falls else self.value > self.bound
        return self.counts and is_past

    def __str__(self) -> str:
        word = "below" if self.falls else "above"
        return f"{self.name} is {self.value:.3f}, {word} {self.bound:g}"


def stage_indicators(
    stage: Stage,
    metrics: Mapping[str, float],
    bounds: CollapseBounds,
    *,
    imitation: bool = False,
) -> list[CollapseIndicator]:
    """Return the collapse indicators in the metrics of SelfPlay or Score; none for other stages.

    Parameters
    ----------
    stage
        The stage that produced the metrics.
    metrics
        The metrics by name. Without the one that is compared, there is no indicator.
    bounds
        The thresholds, ``spec.stopping.collapse``.
    imitation
        Whether training imitates the consensus of recognizer groups (``training.imitation`` above
        0). Groups without variance then teach it, and their fraction does not count.

    Examples
    --------
    >>> metrics = {ScoreMetric.ZERO_VARIANCE_SHARE_RESPONDER: 0.99}
    >>> [str(indicator) for indicator in stage_indicators(Stage.SCORE, metrics, CollapseBounds())]
    ["the fraction of the responder's groups without variance is 0.990, above 0.98"]
    """
    if stage is Stage.SELF_PLAY and SelfPlayMetric.DIVERSITY in metrics:
        value = metrics[SelfPlayMetric.DIVERSITY]
        return [CollapseIndicator("response diversity", value, bounds.min_diversity, True)]
    if stage is Stage.SCORE:
        return _variance_indicators(metrics, bounds.max_zero_variance, imitation)
    return []


def _variance_indicators(
    metrics: Mapping[str, float], bound: float, imitation: bool
) -> list[CollapseIndicator]:
    """Return the indicator of each role: one role must not hide that the other has collapsed.

    If no group is left, or an earlier version wrote the metrics, there is one for both roles.
    """
    shares = (
        (ScoreMetric.ZERO_VARIANCE_SHARE_RECOGNIZER, "the recognizer's groups", not imitation),
        (ScoreMetric.ZERO_VARIANCE_SHARE_RESPONDER, "the responder's groups", True),
    )
    indicators = [
        CollapseIndicator(
            f"the fraction of {groups} without variance", metrics[name], bound, False, counts
        )
        for name, groups, counts in shares
        if name in metrics
    ]
    if indicators or ScoreMetric.ZERO_VARIANCE_SHARE not in metrics:
        return indicators
    value = metrics[ScoreMetric.ZERO_VARIANCE_SHARE]
    return [CollapseIndicator("the fraction of groups without variance", value, bound, False)]


def label_indicators(
    score: SourceScore, baseline: SourceScore, bounds: CollapseBounds, *, improved: bool = False
) -> list[CollapseIndicator]:
    """Return the collapse indicators of an evaluation.

    An indicator whose value is not available is left out: the entropy if the baseline's is 0, and
    the divergence if a score has no label frequencies.

    The divergence of a generation that improved, and whose entropy is at least the baseline's,
    does not count: it corrects a baseline that predicts few labels. Always predicting the most
    frequent label of MELD has a divergence of 0.33 from the true labels.

    Parameters
    ----------
    score
        The score of a generation on the selection dataset.
    baseline
        The baseline's score on the selection dataset.
    bounds
        The thresholds, ``spec.stopping.collapse``.
    improved
        Whether the generation is better than the best before it, so that it may be promoted.
    """
    indicators = []
    if baseline.label_entropy > 0.0:
        ratio = score.label_entropy / baseline.label_entropy
        indicators.append(
            CollapseIndicator(
                "label entropy relative to the baseline's", ratio, bounds.min_entropy, True
            )
        )
    if len(score.predicted_shares) == len(baseline.predicted_shares) > 0:
        value = divergence(score.predicted_shares, baseline.predicted_shares)
        name = "the divergence from the baseline's labels"
        bound = bounds.max_divergence
        corrects = improved and score.label_entropy >= baseline.label_entropy
        # below the threshold, it counts: the next generation is compared with the threshold again
        indicators.append(
            CollapseIndicator(name, value, bound, False, counts=value <= bound or not corrects)
        )
    return indicators


def crossed_indicator(
    result: StageResult,
    baseline: SourceScore | None,
    bounds: CollapseBounds,
    *,
    improved: bool = False,
    imitation: bool = False,
) -> str | None:
    """Return which collapse threshold a result crosses, as a sentence, or None.

    Parameters
    ----------
    result
        The result of SelfPlay (response diversity), Score (fraction of groups without variance, by
        role) or Evaluate (label entropy and divergence from the baseline on the selection dataset,
        whose score is the first in ``scores``).
    baseline
        The baseline's score on the selection dataset. If None, an evaluation crosses no threshold.
    bounds
        The thresholds, ``spec.stopping.collapse``.
    improved
        Whether an evaluation is better than the best before it, so that it may be promoted.
    imitation
        Whether training imitates the consensus of recognizer groups.
    """
    indicators = stage_indicators(result.stage, result.metrics, bounds, imitation=imitation)
    if result.stage is Stage.EVALUATE and result.scores and baseline is not None:
        indicators = label_indicators(result.scores[0], baseline, bounds, improved=improved)
    return next((str(indicator) for indicator in indicators if indicator.crossed), None)


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the Jensen-Shannon divergence of two distributions of labels, to base 2 (0 to 1).

    Parameters
    ----------
    p, q
        The label frequencies, shape (K,), in the same order. Each sums to 1. The divergence of
        two empty sequences is 0.

    References
    ----------
    Lin 1991, "Divergence measures based on the Shannon entropy", eq. 4.1 with equal weights.

    Examples
    --------
    >>> divergence([1.0, 0.0], [0.0, 1.0])
    1.0
    """
    total = 0.0
    for a, b in zip(p, q, strict=True):
        mean = (a + b) / 2
        for share in (a, b):
            if share > 0.0:
                total += share / 2 * math.log2(share / mean)
    return min(1.0, max(0.0, total))
