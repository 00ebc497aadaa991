"""What Prometheus sees: one series set for each evolution that is there, and the operator's own.

The evolutions' series are made from the picture at each scrape, so they vanish with the resource.
Labels are few: namespace, name, stage, dataset, emotion, and the words of a state set. The
generation is a value, never a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from selfemo_api.status import ConditionType, Phase
from selfemo_operator.cluster.view import View
from selfemo_operator.collapse import divergence

Json = dict[str, Any]
Values = Iterable[tuple[tuple[str, ...], float | None]]

_WHO = ("namespace", "name")


@dataclass(frozen=True)
class Series:
    """One metric of an evolution: its name, what it says, its labels, and how it is read."""

    name: str
    help: str
    read: Callable[[Json], Values]
    labels: tuple[str, ...] = ()


def _status(*path: str) -> Callable[[Json], Values]:
    """Read one number of the status."""

    def read(item: Json) -> Values:
        value: Any = item.get("status", {})
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        yield (), value

    return read


def _score(field: str) -> Callable[[Json], Values]:
    """Read a figure of the last evaluated generation, for each dataset."""

    def read(item: Json) -> Values:
        for score in _last(item).get("scores", []):
            yield (score["source"],), score.get(field)

    return read


def _by_emotion(field: str) -> Callable[[Json], Values]:
    def read(item: Json) -> Values:
        emotions = item["spec"]["dataset"]["labels"]
        for score in _last(item).get("scores", []):
            for emotion, value in zip(emotions, score.get(field, []), strict=False):
                yield (score["source"], emotion), value

    return read


def _divergence(item: Json) -> Values:
    before = (item.get("status", {}).get("baseline") or {}).get("predictedShares", [])
    for score in _last(item).get("scores", [])[:1]:
        after = score.get("predictedShares", [])
        if before and len(before) == len(after):
            yield (score["source"],), divergence(after, before)


def _stage_metric(stage: str, field: str) -> Callable[[Json], Values]:
    """Read a figure of a stage of the generation under way, or else of none."""

    def read(item: Json) -> Values:
        for result in (item.get("status", {}).get("current") or {}).get("results", []):
            if result["stage"] == stage:
                yield (), result.get("metrics", {}).get(field)

    return read


def _seconds(item: Json) -> Values:
    seconds = dict(_last(item).get("stageSeconds", {}))
    for result in (item.get("status", {}).get("current") or {}).get("results", []):
        seconds[result["stage"]] = result.get("seconds")
    yield from (((stage,), value) for stage, value in sorted(seconds.items()))


def _last_of_history(field: str) -> Callable[[Json], Values]:
    def read(item: Json) -> Values:
        yield (), _last(item).get(field)

    return read


def _gpu_seconds(item: Json) -> Values:
    history = item.get("status", {}).get("history", [])
    yield (), sum(entry.get("gpuSeconds", 0.0) for entry in history)


def _phases(item: Json) -> Values:
    now = item.get("status", {}).get("phase", Phase.PENDING.value)
    yield from (((phase.value,), float(phase.value == now)) for phase in Phase)


def _conditions(item: Json) -> Values:
    said = {c["type"]: c["status"] for c in item.get("status", {}).get("conditions", [])}
    for kind in ConditionType:
        yield (kind.value,), float(said.get(kind.value) == "True")


def _time_of(field: str) -> Callable[[Json], Values]:
    def read(item: Json) -> Values:
        text = item.get("status", {}).get(field)
        yield (), datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None

    return read


def _last(item: Json) -> Json:
    """Return the last generation of the history that was evaluated."""
    history = item.get("status", {}).get("history", [])
    found: Json = next((e for e in reversed(history) if e.get("scores")), {})
    return found


_DATASET = ("dataset",)
#: All metrics of an evolution; docs/reference/metrics.md is made from them.
EVOLUTION: tuple[Series, ...] = (
    Series("generation", "Generation under way", _status("generation")),
    Series("attempt", "Attempt of the stage under way", _status("attempt")),
    Series(
        "stage_failures", "Attempts of this stage that failed by its own fault", _status("failures")
    ),
    Series(
        "stage_disruptions", "Attempts of this stage lost to the outside", _status("disruptions")
    ),
    Series("best_generation", "The best generation so far", _status("best", "generation")),
    Series("best_f1_ratio", "Weighted F1 of the best generation", _status("best", "f1")),
    Series(
        "goal_f1_ratio",
        "Weighted F1 at which the evolution stops",
        lambda i: [((), (i["spec"].get("evolution", {}).get("goal") or {}).get("f1"))],
    ),
    Series(
        "weighted_f1_ratio",
        "Weighted F1 of the last evaluated generation",
        _score("weightedF1"),
        _DATASET,
    ),
    Series(
        "weighted_f1_low_ratio",
        "Lower end of its 95 % interval",
        _score("weightedF1Low"),
        _DATASET,
    ),
    Series(
        "weighted_f1_high_ratio",
        "Upper end of its 95 % interval",
        _score("weightedF1High"),
        _DATASET,
    ),
    Series("macro_f1_ratio", "Macro F1", _score("macroF1"), _DATASET),
    Series("accuracy_ratio", "Accuracy", _score("accuracy"), _DATASET),
    Series(
        "unparsable_ratio", "Share of answers that name no label", _score("unparsable"), _DATASET
    ),
    Series(
        "label_entropy_ratio",
        "Entropy of the predicted labels over the highest possible",
        _score("labelEntropy"),
        _DATASET,
    ),
    Series(
        "label_divergence_ratio",
        "Jensen-Shannon divergence of the predicted labels from generation 0's",
        _divergence,
        _DATASET,
    ),
    Series(
        "emotion_f1_ratio", "F1 of one emotion", _by_emotion("f1ByLabel"), ("dataset", "emotion")
    ),
    Series("reward_mean", "Mean reward of the last scored generation", _status("reward")),
    Series(
        "consistency_ratio",
        "Mean agreement within groups, last finished generation",
        _last_of_history("consistency"),
    ),
    Series(
        "kept_candidates",
        "Candidates that the flywheel kept, last finished generation",
        _last_of_history("kept"),
    ),
    Series(
        "played_candidates",
        "Candidates of self-play, generation under way",
        _stage_metric("SelfPlay", "candidates"),
    ),
    Series(
        "generated_tokens",
        "Tokens of self-play, generation under way",
        _stage_metric("SelfPlay", "tokens"),
    ),
    Series(
        "response_diversity_ratio",
        "Distinct bigrams over all, generation under way",
        _stage_metric("SelfPlay", "diversity"),
    ),
    Series(
        "zero_variance_ratio",
        "Share of groups whose rewards are all equal, generation under way",
        _stage_metric("Score", "zeroVarianceShare"),
    ),
    Series(
        "trained_tokens",
        "Completion tokens trained on, generation under way",
        _stage_metric("Train", "tokens"),
    ),
    Series("stage_duration_seconds", "Wall time of a stage when it last ran", _seconds, ("stage",)),
    Series("gpu_seconds", "GPU-seconds of the generations in the history", _gpu_seconds),
    Series("phase", "1 for the phase that it is in", _phases, ("phase",)),
    Series("condition", "1 where the condition is True", _conditions, ("condition",)),
    Series("start_timestamp_seconds", "When it started", _time_of("startTime")),
    Series("completion_timestamp_seconds", "When it ended", _time_of("completionTime")),
    Series(
        "progress_timestamp_seconds",
        "When its stage last changed, or an attempt began",
        _time_of("lastProgressTime"),
    ),
)


class EvolutionCollector(Collector):
    """Makes the evolutions' series out of the operator's picture."""

    def __init__(self, view: View) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        """Nothing is registered by name: the series are made at each scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all series."""
        families = [
            GaugeMetricFamily(f"selfemo_evolution_{s.name}", s.help, labels=[*_WHO, *s.labels])
            for s in EVOLUTION
        ]
        info = InfoMetricFamily("selfemo_evolution", "What it evolves", labels=list(_WHO))
        for key in self._view.known():
            item = self._view.evolution(key)
            if item is None:
                continue
            for series, family in zip(EVOLUTION, families, strict=True):
                for labels, value in series.read(item):
                    if value is not None:
                        family.add_metric([*key, *labels], float(value))
            model = item["spec"]["model"]["uri"]
            info.add_metric(list(key), {"model": model, "uid": item["metadata"].get("uid", "")})
        yield from families
        yield info


class OperatorMetrics:
    """The operator's own figures.

    Parameters
    ----------
    view
        The picture whose evolutions are shown.
    resync_age, queue_length
        Asked at each scrape.
    """

    def __init__(
        self,
        view: View,
        resync_age: Callable[[], float | None],
        queue_length: Callable[[], int],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EvolutionCollector(view))
        self.passes = Counter(
            "selfemo_operator_reconciles",
            "Passes over evolutions by how they ended",
            ["result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "selfemo_operator_reconcile_duration_seconds",
            "Duration of a pass",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.leader = Gauge(
            "selfemo_operator_leader", "1 while this operator works", registry=self.registry
        )
        age = Gauge(
            "selfemo_operator_resync_age_seconds",
            "Seconds since everything was last listed; -1 before the first time",
            registry=self.registry,
        )
        age.set_function(lambda: _or(resync_age(), -1.0))
        queue = Gauge(
            "selfemo_operator_queue_length",
            "Evolutions that wait for a pass or are in one",
            registry=self.registry,
        )
        queue.set_function(lambda: float(queue_length()))
        build = Gauge("selfemo_operator_build_info", "Version", ["version"], registry=self.registry)
        build.labels(version("selfemo")).set(1)
        self.gauges = (age, queue, build)

    def ended_pass(self, result: str, seconds: float) -> None:
        """Count a pass."""
        self.passes.labels(result).inc()
        self.seconds.observe(seconds)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
