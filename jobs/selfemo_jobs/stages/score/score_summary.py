"""Summary of scoring: counts and sums that add up over parts, and the metrics made from them.

The summary of a part is stored beside its table as ``<part>.tally.json``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from selfemo_api.api_model import ApiModel
from selfemo_api.metrics import REWARD_AT_MOST, ScoreMetric
from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards.diversity import label_entropy

#: Bins of the reward histogram. With the default range of -1.5 to 1, a bin is a tenth wide.
BINS = 25
#: The metrics hold a coarser histogram, with these bins as upper edges. With the default weights
#: the edges are -0.5, 0, 0.2, 0.4, 0.6, 0.8, 0.9 and the best reward. The report has every bin.
METRIC_BINS = (10, 15, 17, 19, 21, 23, 24, BINS)
#: Decimal places of a metric: more would have no meaning, and the termination message is short.
DIGITS = 6


class RoleSummary(ApiModel):
    """Counts and sums of one role.

    They cover the candidates of the groups that are kept, except where noted.
    """

    candidates: int = 0
    """Number of all candidates, also those of dropped groups."""
    well_formed: int = 0
    """Number of all candidates that are well formed, also those of dropped groups."""
    rows: int = 0
    """Number of candidates."""
    groups: int = 0
    """Number of groups."""
    zero_variance: int = 0
    """Number of groups whose rewards are all equal."""
    consistency: float = 0.0
    """Sum of the consistency over groups. All other sums are over candidates."""
    reward: float = 0.0
    """Sum of the rewards."""
    reward_squared: float = 0.0
    """Sum of the squared rewards."""
    alignment: float = 0.0
    """Sum of the alignments."""
    penalty: float = 0.0
    """Sum of the penalties."""
    histogram: list[int] = [0] * BINS
    """Number of rewards in each bin of :func:`histogram_edges`."""


class ScoreSummary(ApiModel):
    """Counts and sums of both roles."""

    recognizer: RoleSummary = RoleSummary()
    """The recognizer's groups."""
    responder: RoleSummary = RoleSummary()
    """The responder's groups."""
    empty: int = 0
    """Number of groups dropped because no emotion reaches the threshold."""
    tied: int = 0
    """Number of groups dropped because the vote is tied."""
    consensus: list[int] = []
    """Number of kept recognizer groups whose consensus, or gold labels, contain each label. The
    order is that of the label set."""
    gold: int = 0
    """Number of groups with gold labels."""
    gold_voted: int = 0
    """Number of these groups whose vote has a result."""
    gold_right: int = 0
    """Number of these groups whose vote equals the gold labels."""
    names_emotion: int = 0
    """Number of responses that name an intended emotion."""
    repeats_context: int = 0
    """Number of responses that repeat the context."""
    bad_length: int = 0
    """Number of responses that are too short or too long."""


def merge_summaries(summaries: Iterable[ScoreSummary]) -> ScoreSummary:
    """Return the sum of the summaries of several parts.

    Parameters
    ----------
    summaries
        The summaries. There may be none.

    Returns
    -------
    ScoreSummary
        The summary of all parts together.

    Examples
    --------
    >>> merge_summaries([ScoreSummary(empty=1), ScoreSummary(empty=2, tied=1)]).empty
    3
    """
    dumps = [summary.model_dump() for summary in summaries]
    return ScoreSummary.model_validate(reduce(_add, dumps)) if dumps else ScoreSummary()


def score_metrics(summary: ScoreSummary, reward: RewardSpec) -> dict[str, float]:
    """Return the metrics of the stage. A mean over nothing is left out.

    A metric ``rewardAtMost:<edge>`` counts the candidates whose reward is at most the edge.

    Parameters
    ----------
    summary
        The summary of all parts.
    reward
        The field ``spec.reward``, from which the edges follow.

    Returns
    -------
    dict of str to float
        The metrics by name (:class:`selfemo_api.metrics.ScoreMetric`).
    """
    recognizer, responder = summary.recognizer, summary.responder
    roles = (recognizer, responder)
    rows = sum(r.rows for r in roles)
    groups = sum(r.groups for r in roles)
    dropped = summary.empty + summary.tied
    mean = _mean(sum(r.reward for r in roles), rows)
    square = _mean(sum(r.reward_squared for r in roles), rows)
    metrics: dict[str, float | None] = {
        ScoreMetric.REWARD_MEAN: mean,
        ScoreMetric.REWARD_STD: None
        if mean is None or square is None
        else math.sqrt(max(0.0, square - mean**2)),
        ScoreMetric.REWARD_MEAN_RECOGNIZER: _mean(recognizer.reward, recognizer.rows),
        ScoreMetric.REWARD_MEAN_RESPONDER: _mean(responder.reward, responder.rows),
        ScoreMetric.ALIGNMENT_MEAN: _mean(sum(r.alignment for r in roles), rows),
        ScoreMetric.ALIGNMENT_MEAN_RECOGNIZER: _mean(recognizer.alignment, recognizer.rows),
        ScoreMetric.ALIGNMENT_MEAN_RESPONDER: _mean(responder.alignment, responder.rows),
        ScoreMetric.CONSISTENCY_MEAN: _mean(sum(r.consistency for r in roles), groups),
        ScoreMetric.PENALTY_MEAN: _mean(responder.penalty, responder.rows),
        ScoreMetric.FORMAT_MEAN: _mean(
            sum(r.well_formed for r in roles), sum(r.candidates for r in roles)
        ),
        # without any group there is nothing to learn, as where all rewards are equal
        ScoreMetric.ZERO_VARIANCE_SHARE: sum(r.zero_variance for r in roles) / groups
        if groups
        else 1.0,
        ScoreMetric.ZERO_VARIANCE_SHARE_RECOGNIZER: _mean(
            recognizer.zero_variance, recognizer.groups
        ),
        ScoreMetric.ZERO_VARIANCE_SHARE_RESPONDER: _mean(responder.zero_variance, responder.groups),
        ScoreMetric.GROUPS: groups,
        ScoreMetric.GROUPS_DROPPED: dropped,
        ScoreMetric.CONSENSUS_ENTROPY: label_entropy(summary.consensus)
        if any(summary.consensus)
        else None,
        ScoreMetric.CONSENSUS_ACCURACY: _mean(summary.gold_right, summary.gold_voted),
        **_cumulative_histogram(summary, reward, rows),
    }
    return {name: round(float(x), DIGITS) for name, x in metrics.items() if x is not None}


def score_report(
    summary: ScoreSummary, labels: Sequence[str], reward: RewardSpec
) -> dict[str, Any]:
    """Return the numbers for the report, which are too many for the metrics.

    Parameters
    ----------
    summary
        The summary of all parts.
    labels
        The label set.
    reward
        The field ``spec.reward``, from which the edges of the histogram follow.

    Returns
    -------
    dict
        The histogram of rewards, the consensus by label, the groups by role, the reasons of drops,
        the faults, and the accuracy of the votes if there are gold labels.
    """
    roles = {"Recognizer": summary.recognizer, "Responder": summary.responder}
    report: dict[str, Any] = {
        "rewardHistogram": {
            "edges": histogram_edges(reward),
            "counts": [sum(x) for x in zip(*(r.histogram for r in roles.values()), strict=True)],
            "countsByRole": {name: r.histogram for name, r in roles.items()},
        },
        "consensus": dict(zip(labels, summary.consensus or [0] * len(labels), strict=True)),
        "groupsByRole": {name: r.groups for name, r in roles.items()},
        "dropped": {"empty": summary.empty, "tied": summary.tied},
        "faults": {
            "namesEmotion": summary.names_emotion,
            "repeatsContext": summary.repeats_context,
            "badLength": summary.bad_length,
        },
    }
    if summary.gold:
        report["gold"] = {
            "groups": summary.gold,
            "voted": summary.gold_voted,
            "right": summary.gold_right,
            "accuracy": _rounded(_mean(summary.gold_right, summary.gold_voted)),
        }
    return report


def histogram_edges(reward: RewardSpec) -> list[float]:
    """Return the edges of the reward histogram, from the worst possible reward to the best.

    Parameters
    ----------
    reward
        The field ``spec.reward``.

    Returns
    -------
    list of float
        The edges of the :data:`BINS` bins, in ascending order.

    Examples
    --------
    >>> edges = histogram_edges(RewardSpec())
    >>> len(edges), edges[0], edges[-1]
    (26, -1.5, 1.0)
    """
    w = reward.weights
    edges = np.linspace(-3 * reward.penalty, w.alignment + w.consistency + w.format, BINS + 1)
    return [round(float(edge), DIGITS) for edge in edges]


def _cumulative_histogram(summary: ScoreSummary, reward: RewardSpec, rows: int) -> dict[str, float]:
    """Return the number of candidates up to each edge of the coarser histogram."""
    if not rows:
        return {}
    counts = np.add(summary.recognizer.histogram, summary.responder.histogram).cumsum()
    edges = histogram_edges(reward)
    return {f"{REWARD_AT_MOST}{edges[bin_]:g}": float(counts[bin_ - 1]) for bin_ in METRIC_BINS}


def _add(a: Any, b: Any) -> Any:
    """Return the sum of two summaries as JSON values, key by key and item by item."""
    if isinstance(a, dict):
        return {key: _add(a[key], b[key]) for key in a}
    if isinstance(a, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    return a + b


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
