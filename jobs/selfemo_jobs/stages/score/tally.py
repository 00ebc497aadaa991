"""What scoring came to, in numbers that add up over parts; the metrics and the report from them."""

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

#: Bins of the reward histogram: a tenth each over the default range of -1.5 to 1.
BINS = 25
#: Upper edges of the coarser histogram in the metrics, as numbers of bins; with the default weights
#: -0.5, 0, 0.2, 0.4, 0.6, 0.8, 0.9 and the best reward. The report has every bin.
STEPS = (10, 15, 17, 19, 21, 23, 24, BINS)
#: Digits kept of a metric: past any meaning, short in the termination message.
DIGITS = 6


class RoleTally(ApiModel):
    """One role's sums. Sums are over the candidates of the groups that are kept."""

    candidates: int = 0
    """Also those of dropped groups."""
    well_formed: int = 0
    """Of all candidates."""
    rows: int = 0
    groups: int = 0
    zero_variance: int = 0
    """Groups whose rewards are all equal."""
    consistency: float = 0.0
    """Over groups; the rest is over rows."""
    reward: float = 0.0
    reward_squared: float = 0.0
    alignment: float = 0.0
    penalty: float = 0.0
    histogram: list[int] = [0] * BINS


class Tally(ApiModel):
    """Both roles' sums."""

    recognizer: RoleTally = RoleTally()
    responder: RoleTally = RoleTally()
    empty: int = 0
    """Groups dropped since no emotion reaches the threshold."""
    tied: int = 0
    """Groups dropped since the vote is tied."""
    consensus: list[int] = []
    """Kept recognizer groups whose consensus (or gold) names each label, in the labels' order."""
    gold: int = 0
    """Groups with gold labels; the next two are of these."""
    gold_voted: int = 0
    """Whose vote has an outcome."""
    gold_right: int = 0
    """Whose vote's outcome is the gold labels."""
    names_emotion: int = 0
    repeats_context: int = 0
    bad_length: int = 0


def combined(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of some parts' tallies."""
    dumps = [tally.model_dump() for tally in tallies]
    return Tally.model_validate(reduce(_add, dumps)) if dumps else Tally()


def metrics_of(tally: Tally, reward: RewardSpec) -> dict[str, float]:
    """Return the stage's metrics. A mean over nothing is left out.

    ``rewardAtMost:<edge>`` counts the candidates with at most that reward.
    """
    roles = (tally.recognizer, tally.responder)
    rows = sum(r.rows for r in roles)
    groups = sum(r.groups for r in roles)
    dropped = tally.empty + tally.tied
    mean = _mean(sum(r.reward for r in roles), rows)
    square = _mean(sum(r.reward_squared for r in roles), rows)
    figures: dict[str, float | None] = {
        ScoreMetric.REWARD_MEAN: mean,
        ScoreMetric.REWARD_STD: None
        if mean is None or square is None
        else math.sqrt(max(0.0, square - mean**2)),
        ScoreMetric.REWARD_MEAN_RECOGNIZER: _mean(tally.recognizer.reward, tally.recognizer.rows),
        ScoreMetric.REWARD_MEAN_RESPONDER: _mean(tally.responder.reward, tally.responder.rows),
        ScoreMetric.ALIGNMENT_MEAN: _mean(sum(r.alignment for r in roles), rows),
        ScoreMetric.ALIGNMENT_MEAN_RECOGNIZER: _mean(
            tally.recognizer.alignment, tally.recognizer.rows
        ),
        ScoreMetric.ALIGNMENT_MEAN_RESPONDER: _mean(
            tally.responder.alignment, tally.responder.rows
        ),
        ScoreMetric.CONSISTENCY_MEAN: _mean(sum(r.consistency for r in roles), groups),
        ScoreMetric.PENALTY_MEAN: _mean(tally.responder.penalty, tally.responder.rows),
        ScoreMetric.FORMAT_MEAN: _mean(
            sum(r.well_formed for r in roles), sum(r.candidates for r in roles)
        ),
        # where no group is left there is nothing to learn from, as where none varies
        ScoreMetric.ZERO_VARIANCE_SHARE: sum(r.zero_variance for r in roles) / groups
        if groups
        else 1.0,
        ScoreMetric.GROUPS: groups,
        ScoreMetric.GROUPS_DROPPED: dropped,
        ScoreMetric.CONSENSUS_ENTROPY: label_entropy(tally.consensus)
        if any(tally.consensus)
        else None,
        ScoreMetric.CONSENSUS_ACCURACY: _mean(tally.gold_right, tally.gold_voted),
        **_cumulated(tally, reward, rows),
    }
    return {name: round(float(x), DIGITS) for name, x in figures.items() if x is not None}


def report_of(tally: Tally, labels: Sequence[str], reward: RewardSpec) -> dict[str, Any]:
    """Return the figures that are too large for the metrics."""
    roles = {"Recognizer": tally.recognizer, "Responder": tally.responder}
    report: dict[str, Any] = {
        "rewardHistogram": {
            "edges": reward_edges(reward),
            "counts": [sum(x) for x in zip(*(r.histogram for r in roles.values()), strict=True)],
            "countsByRole": {name: r.histogram for name, r in roles.items()},
        },
        "consensus": dict(zip(labels, tally.consensus or [0] * len(labels), strict=True)),
        "groupsByRole": {name: r.groups for name, r in roles.items()},
        "dropped": {"empty": tally.empty, "tied": tally.tied},
        "faults": {
            "namesEmotion": tally.names_emotion,
            "repeatsContext": tally.repeats_context,
            "badLength": tally.bad_length,
        },
    }
    if tally.gold:
        report["gold"] = {
            "groups": tally.gold,
            "voted": tally.gold_voted,
            "right": tally.gold_right,
            "accuracy": _rounded(_mean(tally.gold_right, tally.gold_voted)),
        }
    return report


def reward_edges(reward: RewardSpec) -> list[float]:
    """Return the histogram's edges: from the worst reward that the weights allow to the best."""
    w = reward.weights
    edges = np.linspace(-3 * reward.penalty, w.alignment + w.consistency + w.format, BINS + 1)
    return [round(float(edge), DIGITS) for edge in edges]


def _cumulated(tally: Tally, reward: RewardSpec, rows: int) -> dict[str, float]:
    if not rows:
        return {}
    counts = np.add(tally.recognizer.histogram, tally.responder.histogram).cumsum()
    edges = reward_edges(reward)
    return {f"{REWARD_AT_MOST}{edges[step]:g}": float(counts[step - 1]) for step in STEPS}


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, dict):
        return {key: _add(a[key], b[key]) for key in a}
    if isinstance(a, list):
        return [x + y for x, y in zip(a, b, strict=True)]
    return a + b


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
