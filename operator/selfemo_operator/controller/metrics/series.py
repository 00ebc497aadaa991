"""The series of an evolution: which there are, and how each is read from the resource. Pure.

Labels are few: namespace, name, stage, dataset, emotion, and the words of a state set, a reason or
a filter. The generation is a value, never a label. What is read is JSON as the API server gave it;
a reader may raise on what makes no sense, and the evolution is then left out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import ConditionType, Phase, Reason, StageFailure

Json = dict[str, Any]
Values = Iterable[tuple[tuple[str, ...], float | None]]
PREFIX = "selfemo_evolution_"
#: Labels of every series, before its own.
WHO = ("namespace", "name")


@dataclass(frozen=True)
class Picture:
    """An evolution with what several readers look for."""

    item: Json
    spec: Json
    status: Json
    totals: dict[str, Json] = field(default_factory=dict)
    """`status.stages` by stage."""
    evaluated: Json = field(default_factory=dict)
    """The last generation of the history that was evaluated."""

    @property
    def scores(self) -> list[Json]:
        """Scores of the last evaluated generation, the selecting source first."""
        scores: list[Json] = self.evaluated.get("scores", [])
        return scores


def picture_of(item: Json) -> Picture:
    """Return an evolution as the readers want it."""
    status = item.get("status") or {}
    scored = (e for e in reversed(status.get("history", [])) if e.get("scores"))
    totals = {t["stage"]: t for t in status.get("stages", [])}
    return Picture(item, item["spec"], status, totals, next(scored, {}))


@dataclass(frozen=True)
class Series:
    """Series of one name: what they say, their own labels, and how they are read."""

    name: str
    """Without the prefix."""
    help: str
    read: Callable[[Picture], Values]
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    @property
    def family(self) -> str:
        """The name that HELP and TYPE stand under."""
        if self.kind != "histogram":
            return self.name
        return self.name.rsplit("_", 1)[0]


def _status(*path: str) -> Callable[[Picture], Values]:
    """Read one number of the status."""

    def read(seen: Picture) -> Values:
        value: Any = seen.status
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        yield (), value

    return read


def _limit(field_name: str, *below: str) -> Callable[[Picture], Values]:
    """Read a bound of `spec.evolution`."""

    def read(seen: Picture) -> Values:
        value: Any = (seen.spec.get("evolution") or {}).get(field_name)
        for name in below:
            value = (value or {}).get(name)
        yield (), value

    return read


def _info(seen: Picture) -> Values:
    model, uid = seen.spec["model"]["uri"], seen.item["metadata"].get("uid", "")
    evaluation = seen.spec.get("evaluation") or {}
    selecting = evaluation.get("selectionDataset") or seen.spec["dataset"]["evaluation"][0]["name"]
    yield (model, selecting, uid), 1.0


def _score(field_name: str) -> Callable[[Picture], Values]:
    """Read a figure of the last evaluated generation, for each dataset."""

    def read(seen: Picture) -> Values:
        yield from (((s["source"],), s.get(field_name)) for s in seen.scores)

    return read


def _by_emotion(seen: Picture) -> Values:
    emotions = seen.spec["dataset"]["labels"]
    for score in seen.scores:
        for emotion, value in zip(emotions, score.get("f1ByLabel", []), strict=False):
            yield (score["source"], emotion), value


def _divergence(seen: Picture) -> Values:
    before = (seen.status.get("baseline") or {}).get("predictedShares", [])
    for score in seen.scores[:1]:
        after = score.get("predictedShares", [])
        if before and len(before) == len(after):
            yield (score["source"],), divergence(after, before)


def _figure(stage: Stage, name: StageMetric) -> Callable[[Picture], Values]:
    """Read a figure of a stage when it last ended well."""

    def read(seen: Picture) -> Values:
        yield (), _metrics(seen, stage).get(name)

    return read


def _family(stage: Stage, prefix: str) -> Callable[[Picture], Values]:
    """Read the figures of a stage whose names begin alike, by the rest of the name."""

    def read(seen: Picture) -> Values:
        for name, value in _metrics(seen, stage).items():
            if name.startswith(prefix):
                yield (name.removeprefix(prefix),), value

    return read


def _rewards(seen: Picture) -> list[tuple[float, float]]:
    found = _family(Stage.SCORE, REWARD_AT_MOST)(seen)
    return sorted((float(edge), float(count or 0.0)) for (edge,), count in found)


def _reward_buckets(seen: Picture) -> Values:
    buckets = _rewards(seen)
    for edge, count in buckets[:-1]:
        yield (repr(edge),), count
    if buckets:
        yield ("+Inf",), buckets[-1][1]


def _reward_count(seen: Picture) -> Values:
    yield from (((), count) for _, count in _rewards(seen)[-1:])


def _reward_sum(seen: Picture) -> Values:
    mean = _metrics(seen, Stage.SCORE).get(ScoreMetric.REWARD_MEAN)
    if mean is not None:
        yield from (((), mean * count) for _, count in _rewards(seen)[-1:])


def _total(field_name: str) -> Callable[[Picture], Values]:
    """Read a figure of each stage's totals; 0 before its first attempt has ended."""

    def read(seen: Picture) -> Values:
        for stage in STAGE_ORDER:
            yield (stage.value,), seen.totals.get(stage.value, {}).get(field_name, 0.0)

    return read


def _tokens(stage: Stage) -> Callable[[Picture], Values]:
    def read(seen: Picture) -> Values:
        yield (), seen.totals.get(stage.value, {}).get("tokens", 0.0)

    return read


def _durations(seen: Picture) -> Values:
    """Only of stages that have ended well: none took no time."""
    for stage, totals in seen.totals.items():
        yield (stage,), totals.get("seconds") if totals.get("runs") else None


def _attempts(seen: Picture) -> Values:
    for stage in STAGE_ORDER:
        totals = seen.totals.get(stage.value, {})
        yield (stage.value,), totals.get("runs", 0) + sum(totals.get("failures", {}).values())


def _failures(seen: Picture) -> Values:
    """Zero is shown for the reason that alerts watch; the others appear with their first."""
    for stage in STAGE_ORDER:
        said = seen.totals.get(stage.value, {}).get("failures", {})
        for why in StageFailure:
            if why is StageFailure.FAILED or why.value in said:
                yield (stage.value, why.value), said.get(why.value, 0)


def _phases(seen: Picture) -> Values:
    now = seen.status.get("phase", Phase.PENDING.value)
    yield from (((phase.value,), float(phase.value == now)) for phase in Phase)


def _stages(seen: Picture) -> Values:
    now = None if seen.status.get("completionTime") else seen.status.get("stage")
    yield from (((stage.value,), float(stage.value == now)) for stage in STAGE_ORDER)


_REASONS = frozenset(reason.value for reason in Reason)


def _conditions(seen: Picture) -> Values:
    said = {c["type"]: c for c in seen.status.get("conditions", [])}
    for kind in ConditionType:
        one = said.get(kind.value, {})
        reason = one.get("reason", "")
        known = reason if reason in _REASONS else ""  # never free words
        yield (kind.value, known), float(one.get("status") == "True")


def _time_of(field_name: str) -> Callable[[Picture], Values]:
    def read(seen: Picture) -> Values:
        text = seen.status.get(field_name)
        yield (), datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None

    return read


def _metrics(seen: Picture, stage: Stage) -> Json:
    found: Json = seen.totals.get(stage.value, {}).get("metrics", {})
    return found


_DATASET, _STAGE = ("dataset",), ("stage",)
_LAST_SCORED = "last scored generation"
#: All series of an evolution, the most wanted first: where there would be too many, the last are
#: left out. docs/reference/metrics.md is made from them.
EVOLUTION: tuple[Series, ...] = (
    Series(
        "info",
        "What it evolves; `dataset` is the source that selects the best generation",
        _info,
        ("model", "dataset", "uid"),
    ),
    Series("phase", "1 for the phase that it is in", _phases, ("phase",)),
    Series(
        "condition",
        "1 where the condition is True, 0 where it is not; with its reason",
        _conditions,
        ("condition", "reason"),
    ),
    Series("stage", "1 for the stage under way", _stages, _STAGE),
    Series("generation", "Generation under way", _status("generation")),
    Series("max_generations", "The last generation it may come to", _limit("maxGenerations")),
    Series("attempt", "Attempt of the stage under way", _status("attempt")),
    Series(
        "failed_attempts",
        "Attempts of the stage under way that failed by its own fault",
        _status("failures"),
    ),
    Series("best_generation", "The best generation so far", _status("best", "generation")),
    Series("best_f1_ratio", "Weighted F1 of the best generation", _status("best", "f1")),
    Series(
        "f1_ratio", "Weighted F1 of the last evaluated generation, selecting source", _status("f1")
    ),
    Series(
        "baseline_f1_ratio",
        "Weighted F1 of generation 0, selecting source",
        _status("baseline", "weightedF1"),
    ),
    Series("goal_f1_ratio", "Weighted F1 at which it stops", _limit("goal", "f1")),
    Series(
        "generations_without_improvement",
        "Generations since the best one that were not better",
        _status("withoutImprovement"),
    ),
    Series("start_timestamp_seconds", "When it started", _time_of("startTime")),
    Series("completion_timestamp_seconds", "When it ended", _time_of("completionTime")),
    Series(
        "progress_timestamp_seconds",
        "When its stage last changed, or an attempt began",
        _time_of("lastProgressTime"),
    ),
    Series(
        "stage_duration_seconds",
        "Wall time of a stage when it last ended well",
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
        "Those that failed, by reason",
        _failures,
        ("stage", "reason"),
        "counter",
    ),
    Series(
        "gpu_seconds_total",
        "GPU-seconds of the attempts that ended well",
        _total("gpuSeconds"),
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
        f"Mean reward of the {_LAST_SCORED}",
        _figure(Stage.SCORE, ScoreMetric.REWARD_MEAN),
    ),
    Series(
        "reward_bucket",
        f"Rewards of the {_LAST_SCORED}: not cumulated over time, so read them without rate()",
        _reward_buckets,
        ("le",),
        "histogram",
    ),
    Series("reward_sum", "Their sum", _reward_sum, kind="histogram"),
    Series("reward_count", "Their number", _reward_count, kind="histogram"),
    Series(
        "consistency_ratio",
        f"Mean agreement within groups, {_LAST_SCORED}",
        _figure(Stage.SCORE, ScoreMetric.CONSISTENCY_MEAN),
    ),
    Series(
        "zero_variance_ratio",
        f"Share of groups whose rewards are all equal, {_LAST_SCORED}",
        _figure(Stage.SCORE, ScoreMetric.ZERO_VARIANCE_SHARE),
    ),
    Series(
        "response_diversity_ratio",
        "Distinct bigrams over all, last self-play",
        _figure(Stage.SELF_PLAY, SelfPlayMetric.DIVERSITY),
    ),
    Series(
        "played_candidates",
        "Candidates of the last self-play",
        _figure(Stage.SELF_PLAY, SelfPlayMetric.CANDIDATES),
    ),
    Series(
        "scored_candidates",
        "Candidates that the last flywheel was given",
        _figure(Stage.FLYWHEEL, FlywheelMetric.CANDIDATES),
    ),
    Series(
        "dropped_candidates",
        "Those that it dropped, by filter",
        _family(Stage.FLYWHEEL, DROPPED),
        ("filter",),
    ),
    Series(
        "replayed_candidates",
        "Candidates of earlier generations that it added",
        _figure(Stage.FLYWHEEL, FlywheelMetric.REPLAYED_CANDIDATES),
    ),
    Series(
        "kept_candidates",
        "Candidates that it gave to training, replayed ones included",
        _figure(Stage.FLYWHEEL, FlywheelMetric.KEPT),
    ),
    Series("train_loss", "Last loss of the last training", _figure(Stage.TRAIN, TrainMetric.LOSS)),
    Series(
        "label_divergence_ratio",
        "Jensen-Shannon divergence of the predicted labels from generation 0's",
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
        "Entropy of the predicted labels over the highest possible",
        _score("labelEntropy"),
        _DATASET,
    ),
    Series(
        "weighted_f1_low_ratio",
        "Lower end of the weighted F1's 95 % interval",
        _score("weightedF1Low"),
        _DATASET,
    ),
    Series(
        "weighted_f1_high_ratio",
        "Upper end of the weighted F1's 95 % interval",
        _score("weightedF1High"),
        _DATASET,
    ),
    Series("macro_f1_ratio", "Macro F1", _score("macroF1"), _DATASET),
    Series(
        "unparsable_ratio", "Share of answers that name no label", _score("unparsable"), _DATASET
    ),
    Series("emotion_f1_ratio", "F1 of one emotion", _by_emotion, ("dataset", "emotion")),
)
