"""The series of an evolution, and how each is read from the resource. Pure.

There are few labels: namespace, name, stage, dataset, emotion, and the values of a state set, a
reason or a filter. The generation is a value, never a label. Readers read the JSON that the API
server returns. A reader may raise an exception on invalid content; the whole evolution is then left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from selfemo_api.collapse import divergence
from selfemo_api.metrics import (
    DROPPED,
    REWARD_AT_MOST,
    FlywheelMetric,
    ScoreMetric,
    SelfPlayMetric,
    StageMetric,
    TrainMetric,
)
from selfemo_api.spec import Use
from selfemo_api.stage_resources import STAGES_WITHOUT_GPU
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import ConditionType, Phase, Reason, StageFailure
from selfemo_operator.controller.metrics.snapshot import Snapshot

Json = dict[str, Any]
Values = Iterable[tuple[tuple[str, ...], float | None]]
PREFIX = "selfemo_evolution_"
#: The labels of every series, before its own.
OBJECT_LABELS = ("namespace", "name")


@dataclass(frozen=True)
class Series:
    """The series of one name: their help text, labels and reader."""

    name: str
    """The name without the prefix."""
    help: str
    read: Callable[[Snapshot], Values]
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    @property
    def family(self) -> str:
        """The name of the metric family, as HELP and TYPE give it."""
        if self.kind != "histogram":
            return self.name
        return self.name.rsplit("_", 1)[0]


def _status(*path: str) -> Callable[[Snapshot], Values]:
    """Return a reader of one number of the status."""

    def read(snapshot: Snapshot) -> Values:
        value: Any = snapshot.status
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        yield (), value

    return read


def _limit(*path: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a limit in the resolved spec, by its path."""

    def read(snapshot: Snapshot) -> Values:
        value: Any = snapshot.spec
        for name in path:
            value = (value or {}).get(name)
        yield (), value

    return read


def _info(snapshot: Snapshot) -> Values:
    model, uid = snapshot.spec["model"]["uri"], snapshot.item["metadata"].get("uid", "")
    selected = snapshot.spec["evaluation"].get("selectionDataset")
    sources = snapshot.spec["dataset"]["sources"]
    evaluated = (source["name"] for source in sources if source["use"] == Use.EVALUATION.value)
    selection_dataset = selected or next(evaluated)
    yield (model, selection_dataset, uid), 1.0


def _score(field_name: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a score of the last evaluated generation, for each dataset."""

    def read(snapshot: Snapshot) -> Values:
        yield from (((s["source"],), s.get(field_name)) for s in snapshot.scores)

    return read


def _by_emotion(snapshot: Snapshot) -> Values:
    emotions = snapshot.spec["dataset"]["labels"]
    for score in snapshot.scores:
        for emotion, value in zip(emotions, score.get("f1ByLabel", []), strict=False):
            yield (score["source"], emotion), value


def _divergence(snapshot: Snapshot) -> Values:
    before = (snapshot.status.get("baseline") or {}).get("predictedShares", [])
    for score in snapshot.scores[:1]:
        after = score.get("predictedShares", [])
        if before and len(before) == len(after):
            yield (score["source"],), divergence(after, before)


def _stage_metric(stage: Stage, name: StageMetric) -> Callable[[Snapshot], Values]:
    """Return a reader of a metric that a stage reported when it last succeeded."""

    def read(snapshot: Snapshot) -> Values:
        yield (), _metrics_of(snapshot, stage).get(name)

    return read


def _stage_metrics(stage: Stage, prefix: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a stage's metrics with a prefix, labeled by the rest of the name."""

    def read(snapshot: Snapshot) -> Values:
        for name, value in _metrics_of(snapshot, stage).items():
            if name.startswith(prefix):
                yield (name.removeprefix(prefix),), value

    return read


def _cumulative_rewards(snapshot: Snapshot) -> list[tuple[float, float]]:
    """Return the upper edge and the cumulative count of each reward bucket."""
    counts = _stage_metrics(Stage.SCORE, REWARD_AT_MOST)(snapshot)
    return sorted((float(edge), float(count or 0.0)) for (edge,), count in counts)


def _reward_buckets(snapshot: Snapshot) -> Values:
    buckets = _cumulative_rewards(snapshot)
    for edge, count in buckets[:-1]:
        yield (repr(edge),), count
    if buckets:
        yield ("+Inf",), buckets[-1][1]


def _reward_count(snapshot: Snapshot) -> Values:
    yield from (((), count) for _, count in _cumulative_rewards(snapshot)[-1:])


def _reward_sum(snapshot: Snapshot) -> Values:
    mean = _metrics_of(snapshot, Stage.SCORE).get(ScoreMetric.REWARD_MEAN)
    if mean is not None:
        yield from (((), mean * count) for _, count in _cumulative_rewards(snapshot)[-1:])


def _gpu_seconds(snapshot: Snapshot) -> Values:
    """Only stages that may have GPUs; 0 before the first attempt of a stage has ended."""
    for stage in STAGE_ORDER:
        if stage not in STAGES_WITHOUT_GPU:
            yield (stage.value,), snapshot.totals.get(stage.value, {}).get("gpuSeconds", 0.0)


def _tokens(stage: Stage) -> Callable[[Snapshot], Values]:
    def read(snapshot: Snapshot) -> Values:
        yield (), snapshot.totals.get(stage.value, {}).get("tokens", 0.0)

    return read


def _durations(snapshot: Snapshot) -> Values:
    """Only stages that have succeeded have a duration."""
    for stage, totals in snapshot.totals.items():
        yield (stage,), totals.get("seconds") if totals.get("runs") else None


def _attempts(snapshot: Snapshot) -> Values:
    for stage in STAGE_ORDER:
        totals = snapshot.totals.get(stage.value, {})
        yield (stage.value,), totals.get("runs", 0) + sum(totals.get("failures", {}).values())


def _failures(snapshot: Snapshot) -> Values:
    """Only the reason that alerts use has a series before its first failure."""
    for stage in STAGE_ORDER:
        failures = snapshot.totals.get(stage.value, {}).get("failures", {})
        for reason in StageFailure:
            if reason is StageFailure.FAILED or reason.value in failures:
                yield (stage.value, reason.value), failures.get(reason.value, 0)


def _phases(snapshot: Snapshot) -> Values:
    now = snapshot.status.get("phase", Phase.PENDING.value)
    yield from (((phase.value,), float(phase.value == now)) for phase in Phase)


def _stages(snapshot: Snapshot) -> Values:
    now = None if snapshot.status.get("completionTime") else snapshot.status.get("stage")
    yield from (((stage.value,), float(stage.value == now)) for stage in STAGE_ORDER)


_REASONS = frozenset(reason.value for reason in Reason)


def _conditions(snapshot: Snapshot) -> Values:
    conditions = {c["type"]: c for c in snapshot.status.get("conditions", [])}
    for kind in ConditionType:
        if kind is ConditionType.RECOVERING and kind.value not in conditions:
            continue  # no alert needs it before there is one
        condition = conditions.get(kind.value, {})
        reason = condition.get("reason", "")
        label = reason if reason in _REASONS else ""  # never free text
        yield (kind.value, label), float(condition.get("status") == "True")


def _time_of(field_name: str) -> Callable[[Snapshot], Values]:
    def read(snapshot: Snapshot) -> Values:
        text = snapshot.status.get(field_name)
        yield (), datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None

    return read


def _metrics_of(snapshot: Snapshot, stage: Stage) -> Json:
    metrics: Json = snapshot.totals.get(stage.value, {}).get("metrics", {})
    return metrics


_DATASET, _STAGE = ("dataset",), ("stage",)
_SCORED = "last scored generation"
#: All series of an evolution, the most important first: if there are too many, the last ones are
#: left out. docs/reference/metrics.md is generated from them.
EVOLUTION: tuple[Series, ...] = (
    Series(
        "info",
        "Always 1; the model, and the selection dataset as `dataset`",
        _info,
        ("model", "dataset", "uid"),
    ),
    Series("phase", "1 for the current phase, 0 for the others", _phases, ("phase",)),
    Series(
        "condition",
        "1 if the condition is True, otherwise 0; with its reason",
        _conditions,
        ("condition", "reason"),
    ),
    Series("stage", "1 for the current stage, 0 for the others", _stages, _STAGE),
    Series("generation", "Current generation", _status("generation")),
    Series(
        "max_generations",
        "Highest generation that the spec allows",
        _limit("stopping", "maxGenerations"),
    ),
    Series("attempt", "Current attempt of the current stage", _status("attempt")),
    Series(
        "failed_attempts",
        "Failed attempts of the current stage, disruptions not counted",
        _status("failures"),
    ),
    Series(
        "replaced_pods",
        "Pods of the current stage that the platform removed and their Job created again",
        _status("replacedPods"),
    ),
    Series("best_generation", "Best generation so far", _status("best", "generation")),
    Series("best_f1_ratio", "Weighted F1 of the best generation", _status("best", "f1")),
    Series(
        "f1_ratio",
        "Weighted F1 of the last evaluated generation on the selection dataset",
        _status("f1"),
    ),
    Series(
        "baseline_f1_ratio",
        "Weighted F1 of the baseline (generation 0) on the selection dataset",
        _status("baseline", "weightedF1"),
    ),
    Series("goal_f1_ratio", "Weighted F1 at which the evolution stops", _limit("stopping", "goal")),
    Series(
        "generations_without_improvement",
        "Generations since the best one",
        _status("withoutImprovement"),
    ),
    Series("start_timestamp_seconds", "Time at which the evolution started", _time_of("startTime")),
    Series(
        "completion_timestamp_seconds",
        "Time at which the evolution ended",
        _time_of("completionTime"),
    ),
    Series(
        "progress_timestamp_seconds",
        "Time at which the stage last changed, or an attempt started",
        _time_of("lastProgressTime"),
    ),
    Series(
        "stage_duration_seconds",
        "Wall time of a stage when it last succeeded",
        _durations,
        _STAGE,
    ),
    Series(
        "stage_attempts_total",
        "Attempts of a stage that have ended",
        _attempts,
        _STAGE,
        "counter",
    ),
    Series(
        "stage_failures_total",
        "Attempts of a stage that have failed, by reason",
        _failures,
        ("stage", "reason"),
        "counter",
    ),
    Series(
        "gpu_seconds_total",
        "GPU-seconds of successful attempts",
        _gpu_seconds,
        _STAGE,
        "counter",
    ),
    Series(
        "generated_tokens_total",
        "Tokens that self-play generated",
        _tokens(Stage.SELF_PLAY),
        kind="counter",
    ),
    Series(
        "trained_tokens_total",
        "Completion tokens that training read",
        _tokens(Stage.TRAIN),
        kind="counter",
    ),
    Series(
        "reward_mean",
        f"Mean reward of the {_SCORED}",
        _stage_metric(Stage.SCORE, ScoreMetric.REWARD_MEAN),
    ),
    Series(
        "reward_bucket",
        f"Rewards of the {_SCORED}; not cumulative over time, so do not use rate()",
        _reward_buckets,
        ("le",),
        "histogram",
    ),
    Series("reward_sum", f"Sum of the rewards of the {_SCORED}", _reward_sum, kind="histogram"),
    Series(
        "reward_count", f"Number of the rewards of the {_SCORED}", _reward_count, kind="histogram"
    ),
    Series(
        "consistency_ratio",
        f"Mean consistency of the groups of the {_SCORED}",
        _stage_metric(Stage.SCORE, ScoreMetric.CONSISTENCY_MEAN),
    ),
    Series(
        "zero_variance_ratio",
        f"Share of groups whose rewards are all equal, of the {_SCORED}",
        _stage_metric(Stage.SCORE, ScoreMetric.ZERO_VARIANCE_SHARE),
    ),
    Series(
        "response_diversity_ratio",
        "Share of distinct bigrams in the responses of the last self-play",
        _stage_metric(Stage.SELF_PLAY, SelfPlayMetric.DIVERSITY),
    ),
    Series(
        "played_candidates",
        "Candidates of the last self-play",
        _stage_metric(Stage.SELF_PLAY, SelfPlayMetric.CANDIDATES),
    ),
    Series(
        "scored_candidates",
        "Candidates that the last flywheel read",
        _stage_metric(Stage.FLYWHEEL, FlywheelMetric.CANDIDATES),
    ),
    Series(
        "dropped_candidates",
        "Candidates that the last flywheel dropped, by filter",
        _stage_metrics(Stage.FLYWHEEL, DROPPED),
        ("filter",),
    ),
    Series(
        "replayed_candidates",
        "Candidates of earlier generations that the last flywheel added",
        _stage_metric(Stage.FLYWHEEL, FlywheelMetric.REPLAYED_CANDIDATES),
    ),
    Series(
        "kept_candidates",
        "Candidates that the last flywheel kept for training, including replayed ones",
        _stage_metric(Stage.FLYWHEEL, FlywheelMetric.KEPT),
    ),
    Series(
        "train_loss", "Last loss of the last training", _stage_metric(Stage.TRAIN, TrainMetric.LOSS)
    ),
    Series(
        "label_divergence_ratio",
        "Jensen-Shannon divergence of the predicted labels from the baseline's",
        _divergence,
        _DATASET,
    ),
    Series(
        "weighted_f1_ratio",
        "Weighted F1 of the last evaluated generation",
        _score("weightedF1"),
        _DATASET,
    ),
    Series(
        "label_entropy_ratio",
        "Entropy of the predicted labels, divided by its maximum",
        _score("labelEntropy"),
        _DATASET,
    ),
    Series(
        "weighted_f1_low_ratio",
        "Lower end of the 95 % confidence interval of the weighted F1",
        _score("weightedF1Low"),
        _DATASET,
    ),
    Series(
        "weighted_f1_high_ratio",
        "Upper end of the 95 % confidence interval of the weighted F1",
        _score("weightedF1High"),
        _DATASET,
    ),
    Series(
        "macro_f1_ratio", "Macro F1 of the last evaluated generation", _score("macroF1"), _DATASET
    ),
    Series(
        "micro_f1_ratio",
        "Micro F1 of the last evaluated generation, for datasets that are compared by sets of "
        "labels",
        _score("microF1"),
        _DATASET,
    ),
    Series(
        "samples_f1_ratio",
        "Mean F1 of the utterances' sets of labels in the last evaluated generation",
        _score("samplesF1"),
        _DATASET,
    ),
    Series(
        "jaccard_ratio",
        "Mean intersection over union of the utterances' sets of labels in the last evaluated "
        "generation",
        _score("jaccard"),
        _DATASET,
    ),
    Series(
        "labels_per_answer",
        "Mean number of labels in an answer of the last evaluated generation, for datasets that "
        "are compared by sets of labels",
        _score("labelsPerAnswer"),
        _DATASET,
    ),
    Series(
        "unparsable_ratio", "Share of answers that contain no label", _score("unparsable"), _DATASET
    ),
    Series(
        "emotion_f1_ratio",
        "F1 of one emotion in the last evaluated generation",
        _by_emotion,
        ("dataset", "emotion"),
    ),
)
