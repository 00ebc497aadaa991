"""Derives the content of the report from the manifests. All functions are pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import (
    FlywheelMetric,
    ScoreMetric,
    SelfPlayMetric,
    StageMetric,
    TrainMetric,
)
from selfemo_api.results import SourceScore
from selfemo_api.stages import STAGE_ORDER, Stage, next_stage
from selfemo_api.status import ConditionType
from selfemo_jobs.report.collapse_signs import collapse_signs
from selfemo_jobs.report.run_reader import Sample, StageRecord
from selfemo_jobs.report.set_scores import set_scores
from selfemo_jobs.report.shown_metrics import SHOWN_METRICS
from selfemo_jobs.report.types import (
    Confusion,
    FunnelStep,
    GenerationRow,
    Histogram,
    MetricRow,
    Point,
    ReportData,
    Series,
)
from selfemo_jobs.report.warm_start import warm_start_of

#: The place of a trained model below the storage; the group is the generation.
_TRAINED_MODEL = re.compile(r"/generations/(\d{3})/train/")


def build_report(
    records: Sequence[StageRecord],
    *,
    run: str,
    evolution: EmotionEvolution | None = None,
    samples: Sequence[Sample] = (),
) -> ReportData:
    """Return the content of the page.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    run
        The name of the run, ``<namespace>/<name>-<uid8>``.
    evolution
        The resource, if it is available. It contains the goal, the selection dataset, and the
        outcomes that the planner recorded. An outcome that it does not contain is derived from
        the scores.
    samples
        The groups of self-play to show.
    """
    by_key = {r.key: r for r in records}
    dataset = _selection_dataset(records, evolution)
    scores = _scores(records, dataset)
    evaluated = tuple(sorted(scores))
    best = _best(scores, evolution)
    labels = _dataset_values(records, dataset, "labels")
    if not labels and evolution:
        labels = tuple(evolution.spec.dataset.labels)
    numbers = sorted({r.manifest.generation for r in records})
    goal = evolution.spec.stopping.goal if evolution else None
    return ReportData(
        run=run,
        labels=labels,
        selection_dataset=dataset,
        goal=goal,
        generations=_generations(by_key, numbers, scores, evolution),
        best=best,
        pending=_pending(records, evolution),
        state=_phase_and_message(evolution),
        warm_start=warm_start_of(records),
        f1=_f1_series(records, dataset),
        set_scores=set_scores(records, dataset),
        rewards=_metric_series(
            records,
            Stage.SCORE,
            (ScoreMetric.REWARD_MEAN, "reward"),
            (ScoreMetric.CONSISTENCY_MEAN, "consistency"),
        ),
        entropy=_entropy_series(records, scores),
        label_f1=_label_f1([scores[n] for n in evaluated], len(labels)),
        support=_dataset_values(records, dataset, "support"),
        weighted_to_prior=bool(_dataset_values(records, dataset, "shares")),
        evaluated=evaluated,
        confusions=_confusions(by_key, dataset, best, evaluated),
        funnels=_funnels(records),
        kept_labels={
            r.manifest.generation: dict(_mapping(r.manifest.report.get("labels")))
            for r in records
            if r.manifest.stage is Stage.FLYWHEEL and r.manifest.report.get("labels")
        },
        histograms=_histograms(records),
        signs=collapse_signs(
            records, scores, evolution.spec.stopping.collapse if evolution else None
        ),
        generated_tokens=_points(records, Stage.SELF_PLAY, SelfPlayMetric.TOKENS),
        trained_tokens=_points(records, Stage.TRAIN, TrainMetric.TOKENS),
        stage_metrics=_stage_metrics(by_key, numbers),
        seconds=_seconds(records),
        samples=tuple(samples),
        versions=_versions(records),
        records=tuple(records),
    )


def _of_stage(records: Sequence[StageRecord], stage: Stage) -> list[StageRecord]:
    """Return the records of one stage, in the order of the generations."""
    return [r for r in records if r.manifest.stage is stage]


def _selection_dataset(
    records: Sequence[StageRecord], evolution: EmotionEvolution | None
) -> str | None:
    """Return the name of the dataset that decides which generation is best, or else the first."""
    names = [s.source for r in _of_stage(records, Stage.EVALUATE) for s in r.manifest.scores]
    if evolution and evolution.spec.selection_dataset in names:
        return evolution.spec.selection_dataset
    return names[0] if names else None


def _scores(records: Sequence[StageRecord], dataset: str | None) -> dict[int, SourceScore]:
    """Return the scores on one evaluation dataset, by generation."""
    return {
        r.manifest.generation: score
        for r in _of_stage(records, Stage.EVALUATE)
        for score in r.manifest.scores
        if score.source == dataset
    }


def _best(scores: Mapping[int, SourceScore], evolution: EmotionEvolution | None) -> int | None:
    """Return the best generation: the one in the status, or else the one with the highest F1."""
    recorded = evolution.status.best if evolution else None
    if recorded and recorded.generation in scores:
        return recorded.generation
    return max(scores, key=lambda n: (scores[n].weighted_f1, -n), default=None)


def _dataset_report(record: StageRecord, dataset: str | None) -> Mapping[str, Any]:
    """Return what an evaluation reports about one dataset."""
    return _mapping(_mapping(record.manifest.report.get("sources")).get(dataset or ""))


def _mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, or else an empty mapping."""
    return value if isinstance(value, dict) else {}


def _dataset_values(
    records: Sequence[StageRecord], dataset: str | None, key: str
) -> tuple[Any, ...]:
    """Return a list of the first evaluation that reports it for a dataset, or else nothing."""
    reports = (_dataset_report(record, dataset) for record in _of_stage(records, Stage.EVALUATE))
    return next((tuple(values) for report in reports if (values := report.get(key))), ())


def _pending(records: Sequence[StageRecord], evolution: EmotionEvolution | None) -> str:
    """Return a sentence about the next stage of a generation that is not finished."""
    if not records:
        return "No stage has finished yet."
    last = records[-1].manifest
    if last.stage is Stage.EVALUATE:
        return ""
    if evolution is None and last.stage is Stage.CHECK:
        return "Generation 0 is not finished."  # whether a warm start follows is in the resource
    warm_start = evolution is None or evolution.spec.has_warm_start
    following = next_stage(last.generation, last.stage, warm_start=warm_start)
    if following is None:
        return ""
    return f"Generation {last.generation} is not finished: the next stage is {following.value}."


def _phase_and_message(evolution: EmotionEvolution | None) -> str:
    """Return the phase of the evolution, and the planner's message about it."""
    if evolution is None or not evolution.status.conditions:
        return ""
    status = evolution.status
    kind = ConditionType.SUCCEEDED if status.finished else ConditionType.PROGRESSING
    condition = status.condition(kind)
    message = f": {condition.message}" if condition and condition.message else ""
    return f"{status.phase.value}{message}"


def _metric(record: StageRecord | None, name: StageMetric) -> float | None:
    """Return a metric of a stage; None if the stage has not finished or not reported it."""
    return record.manifest.metrics.get(name) if record else None


def _generations(
    by_key: Mapping[tuple[int, int], StageRecord],
    numbers: Sequence[int],
    scores: Mapping[int, SourceScore],
    evolution: EmotionEvolution | None,
) -> tuple[GenerationRow, ...]:
    """Return a row for each generation, with the recorded outcome or one that the scores give."""
    recorded = {g.generation: g for g in evolution.status.history} if evolution else {}
    rows, best = [], float("-inf")
    for number in numbers:
        stages = {s: by_key.get((number, i)) for i, s in enumerate(STAGE_ORDER)}
        score = scores.get(number)
        outcome = "unfinished"
        if score:
            better = score.weighted_f1 > best
            outcome = "baseline" if number == 0 else "better" if better else "not better"
            best = max(best, score.weighted_f1)
        message = ""
        if number in recorded:
            outcome = _OUTCOMES[recorded[number].outcome.value]
            message = recorded[number].message
        rows.append(
            GenerationRow(
                generation=number,
                outcome=outcome,
                built_on=_built_on(next((r for r in stages.values() if r), None), number),
                score=score,
                reward=_metric(stages[Stage.SCORE], ScoreMetric.REWARD_MEAN),
                consistency=_metric(stages[Stage.SCORE], ScoreMetric.CONSISTENCY_MEAN),
                kept=_metric(stages[Stage.FLYWHEEL], FlywheelMetric.KEPT),
                message=message,
            )
        )
    return tuple(rows)


#: The text of each outcome of the status.
_OUTCOMES = {
    "Baseline": "baseline",
    "Promoted": "promoted",
    "RolledBack": "rolled back",
    "Continued": "continued",
    "Collapsed": "collapsed",
}


def _built_on(first: StageRecord | None, number: int) -> int | None:
    """Return the generation whose model the first stage of a generation started from."""
    if first is None or number == 0:
        return None
    match = _TRAINED_MODEL.search(str(first.manifest.config.get("policyUri", "")) + "/")
    origin = int(match.group(1)) if match else 0
    return origin if origin < number else None


def _f1_series(records: Sequence[StageRecord], dataset: str | None) -> tuple[Series, ...]:
    """Return weighted F1 of each evaluation dataset, the selection dataset first."""
    points: dict[str, list[Point]] = {}
    for record in _of_stage(records, Stage.EVALUATE):
        for s in record.manifest.scores:
            point = Point(
                record.manifest.generation, s.weighted_f1, s.weighted_f1_low, s.weighted_f1_high
            )
            points.setdefault(s.source, []).append(point)
    names = sorted(points, key=lambda name: (name != dataset, name))
    return tuple(Series(name, tuple(points[name])) for name in names)


def _metric_series(
    records: Sequence[StageRecord], stage: Stage, *names: tuple[StageMetric, str]
) -> tuple[Series, ...]:
    """Return a series for each pair of metric and name, if the stage reports the metric."""
    series = [Series(name, _points(records, stage, key)) for key, name in names]
    return tuple(s for s in series if s.points)


def _points(records: Sequence[StageRecord], stage: Stage, key: StageMetric) -> tuple[Point, ...]:
    """Return a metric of a stage for each generation that reports it."""
    return tuple(
        Point(r.manifest.generation, r.manifest.metrics[key])
        for r in _of_stage(records, stage)
        if key in r.manifest.metrics
    )


def _entropy_series(
    records: Sequence[StageRecord], scores: Mapping[int, SourceScore]
) -> tuple[Series, ...]:
    """Return the entropy of the predicted labels, and of the labels that the flywheel kept."""
    predicted = tuple(Point(n, s.label_entropy) for n, s in sorted(scores.items()))
    kept = _metric_series(records, Stage.FLYWHEEL, (FlywheelMetric.LABEL_ENTROPY, "kept"))
    return (*((Series("predicted", predicted),) if predicted else ()), *kept)


def _label_f1(scores: Sequence[SourceScore], labels: int) -> tuple[tuple[float | None, ...], ...]:
    """Return F1 by label (rows) and evaluation (columns)."""
    if not any(score.f1_by_label for score in scores):
        return ()
    return tuple(
        tuple(s.f1_by_label[i] if i < len(s.f1_by_label) else None for s in scores)
        for i in range(labels)
    )


def _confusions(
    by_key: Mapping[tuple[int, int], StageRecord],
    dataset: str | None,
    best: int | None,
    evaluated: Sequence[int],
) -> tuple[Confusion, ...]:
    """Return the confusion matrices of the best, the first and the last generation."""
    if best is None:
        return ()
    matrices = []
    for number in dict.fromkeys([best, evaluated[0], evaluated[-1]]):
        report = _dataset_report(by_key[number, STAGE_ORDER.index(Stage.EVALUATE)], dataset)
        counts, labels = report.get("confusion"), report.get("labels")
        if counts and labels:
            role = "best" if number == best else "baseline" if number == 0 else "last"
            rows = tuple(tuple(int(c) for c in row) for row in counts)
            matrices.append(Confusion(f"Generation {number} ({role})", tuple(labels), rows))
    return tuple(matrices)


def _funnels(records: Sequence[StageRecord]) -> dict[int, tuple[FunnelStep, ...]]:
    """Return the filters of the flywheel with their counts, by generation."""
    funnels = {}
    for record in _of_stage(records, Stage.FLYWHEEL):
        steps = record.manifest.report.get("funnel")
        if steps:
            funnels[record.manifest.generation] = tuple(
                FunnelStep(str(s["filter"]), int(s["before"]), int(s["after"])) for s in steps
            )
    return funnels


def _histograms(records: Sequence[StageRecord]) -> dict[int, Histogram]:
    """Return the histogram of the rewards, by generation."""
    histograms = {}
    for record in _of_stage(records, Stage.SCORE):
        histogram = _mapping(record.manifest.report.get("rewardHistogram"))
        edges, counts = histogram.get("edges", []), histogram.get("counts", [])
        if counts and len(edges) == len(counts) + 1:
            histograms[record.manifest.generation] = Histogram(tuple(edges), tuple(counts))
    return histograms


def _stage_metrics(
    by_key: Mapping[tuple[int, int], StageRecord], numbers: Sequence[int]
) -> tuple[MetricRow, ...]:
    """Return a row for each metric that at least one generation reports."""
    rows = []
    for stage, names in SHOWN_METRICS.items():
        for key, name in names:
            index = STAGE_ORDER.index(stage)
            values = tuple(_metric(by_key.get((n, index)), key) for n in numbers)
            if any(value is not None for value in values):
                rows.append(MetricRow(stage.value, name, values))
    return tuple(rows)


def _seconds(records: Sequence[StageRecord]) -> dict[int, dict[str, float]]:
    """Return the wall time of each finished stage in seconds, by generation and stage."""
    seconds: dict[int, dict[str, float]] = {}
    for record in records:
        if record.seconds is not None:
            stage = record.manifest.stage.value
            seconds.setdefault(record.manifest.generation, {})[stage] = record.seconds
    return seconds


def _versions(records: Sequence[StageRecord]) -> dict[str, str]:
    """Return the version of each library, or all of its versions if the stages had several."""
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.manifest.versions.items():
            versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions[name])) for name in sorted(versions)}
