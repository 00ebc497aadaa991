"""Values of the finished stages, as the report shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfemo_api.metrics import FlywheelMetric, StageMetric
from selfemo_api.results import SourceScore
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.report.shown_metrics import SHOWN_METRICS
from selfemo_jobs.report.types import (
    Confusion,
    FunnelStep,
    Histogram,
    MetricRow,
    Point,
    Series,
)
from selfemo_jobs.runtime.run_reader import StageRecord

Records = Sequence[StageRecord]


def of_stage(records: Records, stage: Stage) -> list[StageRecord]:
    """Return the records of one stage, in the order of the generations.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    stage
        The stage.
    """
    return [r for r in records if r.manifest.stage is stage]


def scores_of(records: Records) -> dict[int, dict[str, SourceScore]]:
    """Return the scores by generation and evaluation source.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    return {
        r.manifest.generation: {score.source: score for score in r.manifest.scores}
        for r in of_stage(records, Stage.EVALUATE)
    }


def dataset_report(record: StageRecord, dataset: str | None) -> Mapping[str, Any]:
    """Return what an evaluation reports about one dataset.

    Parameters
    ----------
    record
        The record of an evaluation.
    dataset
        The name of the dataset, or None.
    """
    return mapping(mapping(record.manifest.report.get("sources")).get(dataset or ""))


def mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, or otherwise an empty mapping.

    Parameters
    ----------
    value
        A value of a manifest's report.
    """
    return value if isinstance(value, dict) else {}


def dataset_values(records: Records, dataset: str | None, key: str) -> tuple[Any, ...]:
    """Return a list of the first evaluation that reports it for a dataset, or otherwise nothing.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    dataset
        The name of the dataset, or None.
    key
        The key of the list in the report about the dataset.
    """
    reports = (dataset_report(record, dataset) for record in of_stage(records, Stage.EVALUATE))
    return next((tuple(values) for report in reports if (values := report.get(key))), ())


def metric_of(record: StageRecord | None, name: StageMetric) -> float | None:
    """Return a metric of a stage; None if the stage has not finished or not reported it.

    Parameters
    ----------
    record
        The record of the stage, or None.
    name
        The name of the metric.
    """
    return record.manifest.metrics.get(name) if record else None


def f1_series(records: Records, dataset: str | None) -> tuple[Series, ...]:
    """Return weighted F1 of each evaluation dataset, the selection dataset first.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    dataset
        The name of the selection dataset, or None.
    """
    points: dict[str, list[Point]] = {}
    for record in of_stage(records, Stage.EVALUATE):
        for s in record.manifest.scores:
            point = Point(
                record.manifest.generation, s.weighted_f1, s.weighted_f1_low, s.weighted_f1_high
            )
            points.setdefault(s.source, []).append(point)
    names = sorted(points, key=lambda name: (name != dataset, name))
    return tuple(Series(name, tuple(points[name])) for name in names)


def metric_series(
    records: Records, stage: Stage, *names: tuple[StageMetric, str]
) -> tuple[Series, ...]:
    """Return a series for each pair of metric and name, if the stage reports the metric.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    stage
        The stage.
    names
        Pairs of the metric and the name of its series.
    """
    series = [Series(name, metric_points(records, stage, key)) for key, name in names]
    return tuple(s for s in series if s.points)


def metric_points(records: Records, stage: Stage, key: StageMetric) -> tuple[Point, ...]:
    """Return a metric of a stage for each generation that reports it.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    stage
        The stage.
    key
        The name of the metric.
    """
    return tuple(
        Point(r.manifest.generation, r.manifest.metrics[key])
        for r in of_stage(records, stage)
        if key in r.manifest.metrics
    )


def entropy_series(records: Records, scores: Mapping[int, SourceScore]) -> tuple[Series, ...]:
    """Return the entropy of the predicted labels, and of the labels that the flywheel kept.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    scores
        The scores on the selection dataset, by generation.
    """
    predicted = tuple(Point(n, s.label_entropy) for n, s in sorted(scores.items()))
    kept = metric_series(records, Stage.FLYWHEEL, (FlywheelMetric.LABEL_ENTROPY, "kept"))
    return (*((Series("predicted", predicted),) if predicted else ()), *kept)


def label_f1(scores: Sequence[SourceScore], labels: int) -> tuple[tuple[float | None, ...], ...]:
    """Return F1 by label (rows) and evaluation (columns).

    Parameters
    ----------
    scores
        The scores of the evaluations in order.
    labels
        The number of labels.
    """
    if not any(score.f1_by_label for score in scores):
        return ()
    return tuple(
        tuple(s.f1_by_label[i] if i < len(s.f1_by_label) else None for s in scores)
        for i in range(labels)
    )


def confusions(
    by_key: Mapping[tuple[int, int], StageRecord],
    dataset: str | None,
    best: int | None,
    evaluated: Sequence[int],
) -> tuple[Confusion, ...]:
    """Return the confusion matrices of the best, the first and the last generation.

    Parameters
    ----------
    by_key
        The finished stages by their key.
    dataset
        The name of the selection dataset, or None.
    best
        The number of the best generation, or None.
    evaluated
        The numbers of the evaluated generations in order.
    """
    if best is None:
        return ()
    matrices = []
    for number in dict.fromkeys([best, evaluated[0], evaluated[-1]]):
        report = dataset_report(by_key[number, STAGE_ORDER.index(Stage.EVALUATE)], dataset)
        counts, labels = report.get("confusion"), report.get("labels")
        if counts and labels:
            role = "best" if number == best else "baseline" if number == 0 else "last"
            rows = tuple(tuple(int(c) for c in row) for row in counts)
            matrices.append(Confusion(f"Generation {number} ({role})", tuple(labels), rows))
    return tuple(matrices)


def funnels(records: Records) -> dict[int, tuple[FunnelStep, ...]]:
    """Return the filters of the flywheel with their counts, by generation.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    return {
        record.manifest.generation: tuple(
            FunnelStep(str(s["filter"]), int(s["before"]), int(s["after"])) for s in steps
        )
        for record in of_stage(records, Stage.FLYWHEEL)
        if (steps := record.manifest.report.get("funnel"))
    }


def kept_labels(records: Records) -> dict[int, dict[str, int]]:
    """Return the number of kept rows by generation and label.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    return {
        record.manifest.generation: dict(mapping(labels))
        for record in of_stage(records, Stage.FLYWHEEL)
        if (labels := record.manifest.report.get("labels"))
    }


def histograms(records: Records) -> dict[int, Histogram]:
    """Return the histogram of the rewards, by generation.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    by_generation = {}
    for record in of_stage(records, Stage.SCORE):
        histogram = mapping(record.manifest.report.get("rewardHistogram"))
        edges, counts = histogram.get("edges", []), histogram.get("counts", [])
        if counts and len(edges) == len(counts) + 1:
            by_generation[record.manifest.generation] = Histogram(tuple(edges), tuple(counts))
    return by_generation


def stage_metrics(
    by_key: Mapping[tuple[int, int], StageRecord], numbers: Sequence[int]
) -> tuple[MetricRow, ...]:
    """Return a row for each metric that at least one generation reports.

    Parameters
    ----------
    by_key
        The finished stages by their key.
    numbers
        The numbers of the generations.
    """
    rows = []
    for stage, names in SHOWN_METRICS.items():
        for key, name in names:
            index = STAGE_ORDER.index(stage)
            values = tuple(metric_of(by_key.get((n, index)), key) for n in numbers)
            if any(value is not None for value in values):
                rows.append(MetricRow(stage.value, name, values))
    return tuple(rows)


def stage_seconds(records: Records) -> dict[int, dict[str, float]]:
    """Return the wall time of each finished stage in seconds, by generation and stage.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    seconds: dict[int, dict[str, float]] = {}
    for record in records:
        if record.seconds is not None:
            stage = record.manifest.stage.value
            seconds.setdefault(record.manifest.generation, {})[stage] = record.seconds
    return seconds
