"""Readers of an evolution's series: each yields label values and numbers from the resource. Pure.

They read the JSON that the API server returns. A reader may raise an exception on invalid content;
the whole evolution is then left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from selfemo_api.collapse import divergence
from selfemo_api.metrics import (
    REWARD_AT_MOST,
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


def status_number(*path: str) -> Callable[[Snapshot], Values]:
    """Return a reader of one number of the status."""

    def read(snapshot: Snapshot) -> Values:
        value: Any = snapshot.status
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        yield (), value

    return read


def limit(*path: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a limit in the resolved spec, by its path."""

    def read(snapshot: Snapshot) -> Values:
        value: Any = snapshot.spec
        for name in path:
            value = (value or {}).get(name)
        yield (), value

    return read


def info(snapshot: Snapshot) -> Values:
    """Yield one series with the model, the selection dataset, the uid and the folder of the run."""
    model, uid = snapshot.spec["model"]["uri"], snapshot.item["metadata"].get("uid", "")
    selected = snapshot.spec["evaluation"].get("selectionDataset")
    sources = snapshot.spec["dataset"]["sources"]
    evaluated = (source["name"] for source in sources if source["use"] == Use.EVALUATION.value)
    selection_dataset = selected or next(evaluated)
    yield (model, selection_dataset, uid, snapshot.status.get("uri") or ""), 1.0


def score(field_name: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a score of the last evaluated generation, for each dataset."""

    def read(snapshot: Snapshot) -> Values:
        yield from (((s["source"],), s.get(field_name)) for s in snapshot.scores)

    return read


def f1_by_emotion(snapshot: Snapshot) -> Values:
    """Yield the F1 of each emotion on each dataset."""
    emotions = snapshot.spec["dataset"]["labels"]
    for entry in snapshot.scores:
        for emotion, value in zip(emotions, entry.get("f1ByLabel", []), strict=False):
            yield (entry["source"], emotion), value


def expression(*path: str) -> Callable[[Snapshot], Values]:
    """Return a reader of an expression metric of the last evaluated generation, by its path."""

    def read(snapshot: Snapshot) -> Values:
        value: Any = snapshot.expression
        for name in path:
            value = (value or {}).get(name)
        yield (), value

    return read


def expression_by_emotion(snapshot: Snapshot) -> Values:
    """Yield the fraction of responses classified as intended, by the intended emotion."""
    emotions = snapshot.spec["dataset"]["labels"]
    shares = snapshot.expression.get("asIntendedByLabel", [])
    for emotion, share in zip(emotions, shares, strict=False):
        yield (emotion,), share


def evaluated_generation(snapshot: Snapshot) -> Values:
    """Yield the number of the last generation that has scores."""
    yield (), snapshot.evaluated.get("generation")


def label_divergence(snapshot: Snapshot) -> Values:
    """Yield the divergence of the labels from the baseline's, on the selection dataset."""
    before = (snapshot.status.get("baseline") or {}).get("predictedShares", [])
    for entry in snapshot.scores[:1]:
        after = entry.get("predictedShares", [])
        if before and len(before) == len(after):
            yield (entry["source"],), divergence(after, before)


def stage_metric(stage: Stage, name: StageMetric) -> Callable[[Snapshot], Values]:
    """Return a reader of a metric that a stage reported when it last succeeded."""

    def read(snapshot: Snapshot) -> Values:
        yield (), _metrics_of(snapshot, stage).get(name)

    return read


def train_metric(name: TrainMetric) -> Callable[[Snapshot], Values]:
    """Return a reader of a metric of the last training."""
    return stage_metric(Stage.TRAIN, name)


def stage_metrics(stage: Stage, prefix: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a stage's metrics with a prefix, labeled by the rest of the name."""

    def read(snapshot: Snapshot) -> Values:
        for name, value in _metrics_of(snapshot, stage).items():
            if name.startswith(prefix):
                yield (name.removeprefix(prefix),), value

    return read


def completion_tokens(snapshot: Snapshot) -> Values:
    """Yield the mean number of tokens in a completion of the last self-play."""
    metrics = _metrics_of(snapshot, Stage.SELF_PLAY)
    completions = metrics.get(SelfPlayMetric.CANDIDATES)
    if completions:
        yield (), metrics[SelfPlayMetric.TOKENS] / completions


def _cumulative_rewards(snapshot: Snapshot) -> list[tuple[float, float]]:
    """Return the upper edge and the cumulative count of each reward bucket."""
    counts = stage_metrics(Stage.SCORE, REWARD_AT_MOST)(snapshot)
    return sorted((float(edge), float(count or 0.0)) for (edge,), count in counts)


def reward_buckets(snapshot: Snapshot) -> Values:
    """Yield the cumulative count of the candidates up to each reward."""
    buckets = _cumulative_rewards(snapshot)
    for edge, count in buckets[:-1]:
        yield (repr(edge),), count
    if buckets:
        yield ("+Inf",), buckets[-1][1]


def reward_count(snapshot: Snapshot) -> Values:
    """Yield the number of scored candidates."""
    yield from (((), count) for _, count in _cumulative_rewards(snapshot)[-1:])


def reward_sum(snapshot: Snapshot) -> Values:
    """Yield the sum of the rewards."""
    mean = _metrics_of(snapshot, Stage.SCORE).get(ScoreMetric.REWARD_MEAN)
    if mean is not None:
        yield from (((), mean * count) for _, count in _cumulative_rewards(snapshot)[-1:])


def gpu_seconds(snapshot: Snapshot) -> Values:
    """Yield the GPU-seconds of each stage that may have GPUs; 0 before its first attempt ended."""
    for stage in STAGE_ORDER:
        if stage not in STAGES_WITHOUT_GPU:
            yield (stage.value,), snapshot.totals.get(stage.value, {}).get("gpuSeconds", 0.0)


def total_tokens(stage: Stage) -> Callable[[Snapshot], Values]:
    """Return a reader of the tokens of a stage in the whole run."""

    def read(snapshot: Snapshot) -> Values:
        yield (), snapshot.totals.get(stage.value, {}).get("tokens", 0.0)

    return read


def durations(snapshot: Snapshot) -> Values:
    """Yield the last duration of each stage that has succeeded."""
    for stage, totals in snapshot.totals.items():
        yield (stage,), totals.get("seconds") if totals.get("runs") else None


def attempts(snapshot: Snapshot) -> Values:
    """Yield the number of ended attempts of each stage."""
    for stage in STAGE_ORDER:
        totals = snapshot.totals.get(stage.value, {})
        yield (stage.value,), totals.get("runs", 0) + sum(totals.get("failures", {}).values())


def failures(snapshot: Snapshot) -> Values:
    """Yield the failed attempts of each stage by reason.

    Only `Failed` has a series before its first failure: each reason for each stage would take 48 of
    the series that an evolution may have. The dashboard counts the first failure of another reason
    from its new series.
    """
    for stage in STAGE_ORDER:
        counts = snapshot.totals.get(stage.value, {}).get("failures", {})
        for reason in StageFailure:
            if reason is StageFailure.FAILED or reason.value in counts:
                yield (stage.value, reason.value), counts.get(reason.value, 0)


def phases(snapshot: Snapshot) -> Values:
    """Yield 1 for the current phase and 0 for the others."""
    now = snapshot.status.get("phase", Phase.PENDING.value)
    yield from (((phase.value,), float(phase.value == now)) for phase in Phase)


def stages(snapshot: Snapshot) -> Values:
    """Yield 1 for the current stage and 0 for the others; only 0 when the evolution has ended."""
    now = None if snapshot.status.get("completionTime") else snapshot.status.get("stage")
    yield from (((stage.value,), float(stage.value == now)) for stage in STAGE_ORDER)


_REASONS = frozenset(reason.value for reason in Reason)


def conditions(snapshot: Snapshot) -> Values:
    """Yield 1 for each condition that is true and 0 for the others."""
    by_type = {c["type"]: c for c in snapshot.status.get("conditions", [])}
    for kind in ConditionType:
        if kind is ConditionType.RECOVERING and kind.value not in by_type:
            continue  # no alert needs it before there is one
        condition = by_type.get(kind.value, {})
        reason = condition.get("reason", "")
        label = reason if reason in _REASONS else ""  # never free text
        yield (kind.value, label), float(condition.get("status") == "True")


def time_of(field_name: str) -> Callable[[Snapshot], Values]:
    """Return a reader of a time of the status, in seconds since 1970."""

    def read(snapshot: Snapshot) -> Values:
        text = snapshot.status.get(field_name)
        yield (), datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None

    return read


def _metrics_of(snapshot: Snapshot, stage: Stage) -> Json:
    metrics: Json = snapshot.totals.get(stage.value, {}).get("metrics", {})
    return metrics
