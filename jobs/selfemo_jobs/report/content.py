"""What the report shows, worked out of the manifests: pure, so that it can be tested as figures."""

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
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import ConditionType
from selfemo_jobs.report.collapse_signs import signs_of
from selfemo_jobs.report.run_files import Sample, StageRecord
from selfemo_jobs.report.types import (
    Confusion,
    FigureRow,
    FunnelStep,
    GenerationRow,
    Histogram,
    Point,
    ReportData,
    Series,
)

_TRAINED = re.compile(r"/generations/(\d{3})/train/")
#: Figures of the stages by generation: key in the manifest's metrics, then what a person reads.
FIGURES: Mapping[Stage, Sequence[tuple[StageMetric, str]]] = {
    Stage.SELF_PLAY: (
        (SelfPlayMetric.CANDIDATES, "candidates"),
        (SelfPlayMetric.GROUPS, "groups"),
        (SelfPlayMetric.TOKENS, "tokens"),
        (SelfPlayMetric.DIVERSITY, "distinct bigrams"),
        (SelfPlayMetric.WELL_FORMED, "well formed"),
    ),
    Stage.SCORE: (
        (ScoreMetric.REWARD_MEAN, "reward"),
        (ScoreMetric.REWARD_STD, "reward, deviation"),
        (ScoreMetric.ALIGNMENT_MEAN, "alignment"),
        (ScoreMetric.CONSISTENCY_MEAN, "consistency"),
        (ScoreMetric.PENALTY_MEAN, "penalty"),
        (ScoreMetric.ZERO_VARIANCE_SHARE, "groups without variance"),
    ),
    Stage.FLYWHEEL: (
        (FlywheelMetric.KEPT_GROUPS, "groups kept"),
        (FlywheelMetric.KEPT, "rows kept"),
        (FlywheelMetric.REPLAYED, "groups replayed"),
        (FlywheelMetric.LABEL_ENTROPY, "entropy of kept labels"),
    ),
    Stage.TRAIN: (
        (TrainMetric.STEPS, "steps"),
        (TrainMetric.TOKENS, "tokens"),
        (TrainMetric.LOSS, "loss"),
        (TrainMetric.KL, "KL to the reference"),
        (TrainMetric.CLIP_LOW, "clipped low"),
        (TrainMetric.CLIP_HIGH, "clipped high"),
        (TrainMetric.GRAD_NORM, "gradient norm"),
    ),
}


def build_report(
    records: Sequence[StageRecord],
    *,
    run: str,
    evolution: EmotionEvolution | None = None,
    samples: Sequence[Sample] = (),
) -> ReportData:
    """Return what the page shows.

    Parameters
    ----------
    records
        The run's finished stages in order.
    run
        Its name, ``<namespace>/<name>-<uid8>``.
    evolution
        The resource, where it is known: gives the goal, the deciding source and the outcomes that
        the planner recorded. Without it (or before it says so) outcomes follow from the scores.
    samples
        Groups to show.
    """
    by = {r.key: r for r in records}
    source = _deciding(records, evolution)
    scores = _scores(records, source)
    evaluated = tuple(sorted(scores))
    best = _best(scores, evolution)
    labels = _said(records, source, "labels")
    if not labels and evolution:
        labels = tuple(evolution.spec.dataset.labels)
    numbers = sorted({r.manifest.generation for r in records})
    goal = evolution.spec.evolution.goal if evolution else None
    return ReportData(
        run=run,
        labels=labels,
        source=source,
        goal=goal.f1 if goal else None,
        generations=_generations(by, numbers, scores, evolution),
        best=best,
        under_way=_under_way(records),
        state=_state(evolution),
        f1=_f1_series(records, source),
        rewards=_metric_series(
            records,
            Stage.SCORE,
            (ScoreMetric.REWARD_MEAN, "reward"),
            (ScoreMetric.CONSISTENCY_MEAN, "consistency"),
        ),
        entropy=_entropy_series(records, scores),
        label_f1=_label_f1([scores[n] for n in evaluated], len(labels)),
        support=_said(records, source, "support"),
        weighed=bool(_said(records, source, "shares")),
        evaluated=evaluated,
        confusions=_confusions(by, source, best, evaluated),
        funnels=_funnels(records),
        kept_labels={
            r.manifest.generation: dict(_mapping(r.manifest.report.get("labels")))
            for r in records
            if r.manifest.stage is Stage.FLYWHEEL and r.manifest.report.get("labels")
        },
        histograms=_histograms(records),
        signs=signs_of(records, scores, evolution.spec.evolution.collapse if evolution else None),
        generated=_points(records, Stage.SELF_PLAY, SelfPlayMetric.TOKENS),
        trained=_points(records, Stage.TRAIN, TrainMetric.TOKENS),
        figures=_figures(by, numbers),
        seconds=_seconds(records),
        samples=tuple(samples),
        versions=_versions(records),
        records=tuple(records),
    )


def _of(records: Sequence[StageRecord], stage: Stage) -> list[StageRecord]:
    return [r for r in records if r.manifest.stage is stage]


def _deciding(records: Sequence[StageRecord], evolution: EmotionEvolution | None) -> str | None:
    names = [s.source for r in _of(records, Stage.EVALUATE) for s in r.manifest.scores]
    if evolution and evolution.spec.selection_dataset in names:
        return evolution.spec.selection_dataset
    return names[0] if names else None


def _scores(records: Sequence[StageRecord], source: str | None) -> dict[int, SourceScore]:
    return {
        r.manifest.generation: score
        for r in _of(records, Stage.EVALUATE)
        for score in r.manifest.scores
        if score.source == source
    }


def _best(scores: Mapping[int, SourceScore], evolution: EmotionEvolution | None) -> int | None:
    recorded = evolution.status.best if evolution else None
    if recorded and recorded.generation in scores:
        return recorded.generation
    return max(scores, key=lambda n: (scores[n].weighted_f1, -n), default=None)


def _source_report(record: StageRecord, source: str | None) -> Mapping[str, Any]:
    return _mapping(_mapping(record.manifest.report.get("sources")).get(source or ""))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(records: Sequence[StageRecord], source: str | None, key: str) -> tuple[Any, ...]:
    """Return what the first evaluation that has the key says of a source; else empty."""
    reports = (_source_report(record, source) for record in _of(records, Stage.EVALUATE))
    return next((tuple(found) for report in reports if (found := report.get(key))), ())


def _under_way(records: Sequence[StageRecord]) -> str:
    """Return what comes after the last finished stage, unless that ends a generation."""
    if not records:
        return "Nothing is finished yet."
    last = records[-1].manifest
    if last.stage is Stage.EVALUATE:
        return ""
    following = STAGE_ORDER[STAGE_ORDER.index(last.stage) + 1]
    return f"Generation {last.generation} is not finished: {following.value} comes next."


def _state(evolution: EmotionEvolution | None) -> str:
    """Return how the evolution stands, in the planner's own words."""
    if evolution is None or not evolution.status.conditions:
        return ""
    status = evolution.status
    kind = ConditionType.SUCCEEDED if status.finished else ConditionType.PROGRESSING
    condition = status.condition(kind)
    message = f": {condition.message}" if condition and condition.message else ""
    return f"{status.phase.value}{message}"


def _metric(record: StageRecord | None, name: StageMetric) -> float | None:
    return record.manifest.metrics.get(name) if record else None


def _generations(
    by: Mapping[tuple[int, int], StageRecord],
    numbers: Sequence[int],
    scores: Mapping[int, SourceScore],
    evolution: EmotionEvolution | None,
) -> tuple[GenerationRow, ...]:
    recorded = {g.generation: g for g in evolution.status.history} if evolution else {}
    rows, best = [], float("-inf")
    for number in numbers:
        stages = {s: by.get((number, i)) for i, s in enumerate(STAGE_ORDER)}
        score = scores.get(number)
        outcome = "under way"
        if score:
            better = score.weighted_f1 > best
            outcome = "baseline" if number == 0 else "better" if better else "not better"
            best = max(best, score.weighted_f1)
        message = ""
        if number in recorded:
            outcome = _WORDS[recorded[number].outcome.value]
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


_WORDS = {
    "Baseline": "baseline",
    "Promoted": "promoted",
    "RolledBack": "rolled back",
    "Continued": "continued",
    "Collapsed": "collapsed",
}


def _built_on(first: StageRecord | None, number: int) -> int | None:
    """Return the generation whose model a generation's first stage was given."""
    if first is None or number == 0:
        return None
    found = _TRAINED.search(str(first.manifest.config.get("policyUri", "")) + "/")
    built = int(found.group(1)) if found else 0
    return built if built < number else None


def _f1_series(records: Sequence[StageRecord], source: str | None) -> tuple[Series, ...]:
    points: dict[str, list[Point]] = {}
    for record in _of(records, Stage.EVALUATE):
        for s in record.manifest.scores:
            point = Point(
                record.manifest.generation, s.weighted_f1, s.weighted_f1_low, s.weighted_f1_high
            )
            points.setdefault(s.source, []).append(point)
    names = sorted(points, key=lambda name: (name != source, name))
    return tuple(Series(name, tuple(points[name])) for name in names)


def _metric_series(
    records: Sequence[StageRecord], stage: Stage, *names: tuple[StageMetric, str]
) -> tuple[Series, ...]:
    series = [Series(name, _points(records, stage, key)) for key, name in names]
    return tuple(s for s in series if s.points)


def _points(records: Sequence[StageRecord], stage: Stage, key: StageMetric) -> tuple[Point, ...]:
    return tuple(
        Point(r.manifest.generation, r.manifest.metrics[key])
        for r in _of(records, stage)
        if key in r.manifest.metrics
    )


def _entropy_series(
    records: Sequence[StageRecord], scores: Mapping[int, SourceScore]
) -> tuple[Series, ...]:
    predicted = tuple(Point(n, s.label_entropy) for n, s in sorted(scores.items()))
    kept = _metric_series(records, Stage.FLYWHEEL, (FlywheelMetric.LABEL_ENTROPY, "kept"))
    return (*((Series("predicted", predicted),) if predicted else ()), *kept)


def _label_f1(scores: Sequence[SourceScore], labels: int) -> tuple[tuple[float | None, ...], ...]:
    if not any(score.f1_by_label for score in scores):
        return ()
    return tuple(
        tuple(s.f1_by_label[i] if i < len(s.f1_by_label) else None for s in scores)
        for i in range(labels)
    )


def _confusions(
    by: Mapping[tuple[int, int], StageRecord],
    source: str | None,
    best: int | None,
    evaluated: Sequence[int],
) -> tuple[Confusion, ...]:
    """Return the matrix of the best generation, then those of the first and the last."""
    if best is None:
        return ()
    found = []
    for number in dict.fromkeys([best, evaluated[0], evaluated[-1]]):
        report = _source_report(by[number, STAGE_ORDER.index(Stage.EVALUATE)], source)
        counts, labels = report.get("confusion"), report.get("labels")
        if counts and labels:
            word = "best" if number == best else "as given" if number == 0 else "last"
            rows = tuple(tuple(int(c) for c in row) for row in counts)
            found.append(Confusion(f"Generation {number} ({word})", tuple(labels), rows))
    return tuple(found)


def _funnels(records: Sequence[StageRecord]) -> dict[int, tuple[FunnelStep, ...]]:
    funnels = {}
    for record in _of(records, Stage.FLYWHEEL):
        steps = record.manifest.report.get("funnel")
        if steps:
            funnels[record.manifest.generation] = tuple(
                FunnelStep(str(s["filter"]), int(s["before"]), int(s["after"])) for s in steps
            )
    return funnels


def _histograms(records: Sequence[StageRecord]) -> dict[int, Histogram]:
    found = {}
    for record in _of(records, Stage.SCORE):
        histogram = _mapping(record.manifest.report.get("rewardHistogram"))
        edges, counts = histogram.get("edges", []), histogram.get("counts", [])
        if counts and len(edges) == len(counts) + 1:
            found[record.manifest.generation] = Histogram(tuple(edges), tuple(counts))
    return found


def _figures(
    by: Mapping[tuple[int, int], StageRecord], numbers: Sequence[int]
) -> tuple[FigureRow, ...]:
    rows = []
    for stage, names in FIGURES.items():
        for key, name in names:
            index = STAGE_ORDER.index(stage)
            values = tuple(_metric(by.get((n, index)), key) for n in numbers)
            if any(value is not None for value in values):
                rows.append(FigureRow(stage.value, name, values))
    return tuple(rows)


def _seconds(records: Sequence[StageRecord]) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for record in records:
        if record.seconds is not None:
            stage = record.manifest.stage.value
            found.setdefault(record.manifest.generation, {})[stage] = record.seconds
    return found


def _versions(records: Sequence[StageRecord]) -> dict[str, str]:
    """Return each library's version; several, where the run saw several."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.manifest.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}
