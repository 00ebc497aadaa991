"""What a tracker gets: the figures of each generation as points. Pure.

Everything follows from the manifests in the storage. So a run on a cluster and a run on one machine
give the same points, and a generation that a tracker missed can be written later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from selfemo_api.api_model import ApiModel
from selfemo_api.contract import GenerationOutcome
from selfemo_api.metrics import TrainMetric, WarmStartMetric
from selfemo_api.results import ExpressionScore, SourceScore
from selfemo_api.stages import Stage
from selfemo_api.status import Outcome
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.runtime.step_curve import STEP, read_curve

#: The key of the evaluations in the report of WarmStart's manifest.
_EVALUATIONS = "evaluations"


class Axis(StrEnum):
    """What the steps of a point count."""

    GENERATION = "generation"
    """Generations, from 0."""
    TRAIN_STEP = "trainStep"
    """Optimizer steps of all trainings of the run together, from 1."""
    WARM_START_STEP = "warmStartStep"
    """Optimizer steps of the warm start."""


#: The first part of the names of a curve, by its axis.
CURVES: Mapping[Axis, str] = {
    Axis.TRAIN_STEP: "train-steps",
    Axis.WARM_START_STEP: "warmstart-steps",
}


class TrackedPoint(ApiModel):
    """One value of one figure."""

    name: str
    """The name: the stage and the metric, as in ``score/rewardMean``. Those of curves begin with a
    value of :data:`CURVES`."""
    step: int
    """The number of the generation, or of the optimizer step."""
    value: float
    axis: Axis = Axis.GENERATION
    """What ``step`` counts."""


class TrackedGeneration(ApiModel):
    """The points of one generation."""

    generation: int
    """The number of the generation."""
    time: float
    """The time at which its last stage finished, in seconds since 1970."""
    points: list[TrackedPoint]


class TrackedRun(ApiModel):
    """A run so far, as a tracker gets it."""

    id: str
    """The identity of the run in every tracker. It is the run's name there, too."""
    settings: dict[str, str | int | float | bool]
    """The resolved settings of the current generation, by their dotted path."""
    tags: dict[str, str]
    """Facts about the run that are not settings: its recipe, its best model …"""
    generations: list[TrackedGeneration]
    """The generations, from 0 to the current one."""


class Row(ApiModel):
    """Points of one generation with the same step, for a tool whose log is a list of rows."""

    number: int
    """The number of the row in the run, from 0. It never changes."""
    generation: int
    """The number of the generation."""
    time: float
    """The time of the generation, in seconds since 1970."""
    values: dict[str, float]
    """The value of each name, and the step by the name of its axis."""


def generation_points(
    manifests: Sequence[Manifest],
    *,
    seconds: Mapping[Stage, float],
    labels: Sequence[str],
    earlier_steps: int = 0,
    outcome: GenerationOutcome | None = None,
) -> list[TrackedPoint]:
    """Return the points of one generation.

    Parameters
    ----------
    manifests
        The manifests of the generation's stages, in the order of the stages.
    seconds
        The wall time of each stage in seconds, where it is stored.
    labels
        The labels, in the order of ``dataset.labels``.
    earlier_steps
        The number of optimizer steps of all earlier generations' trainings.
    outcome
        The outcome of the generation. None: it was not stored.

    Returns
    -------
    list of TrackedPoint
        The curves first, and then one value of each figure.
    """
    points: list[TrackedPoint] = []
    generation = manifests[0].generation
    values: dict[str, float] = {}
    for manifest in manifests:
        points += _curve(manifest, earlier_steps)
        slug = manifest.stage.slug
        values |= {f"{slug}/{_path(name)}": v for name, v in manifest.metrics.items()}
        for score in manifest.scores:
            values |= _score_values(f"{slug}/{score.source}", score, labels)
        if manifest.expression is not None:
            values |= _expression_values(f"{slug}/expression", manifest.expression, labels)
        if manifest.stage in seconds:
            values[f"{slug}/seconds"] = seconds[manifest.stage]
    if outcome is not None:
        values["outcome/promoted"] = float(outcome.outcome is Outcome.PROMOTED)
        if outcome.f1 is not None:
            values["outcome/f1"] = outcome.f1
    return points + [TrackedPoint(name=n, step=generation, value=v) for n, v in values.items()]


def training_steps(manifests: Iterable[Manifest]) -> int:
    """Return the number of optimizer steps of the trainings among some stages.

    Parameters
    ----------
    manifests
        The manifests of the stages.
    """
    return sum(int(m.metrics.get(TrainMetric.STEPS, 0)) for m in manifests if m.stage == "Train")


def rows_of(generations: Iterable[TrackedGeneration]) -> list[Row]:
    """Return the rows of a run: one for each step of a curve, and one for each generation.

    Parameters
    ----------
    generations
        The generations in order, without a gap, from the first one of the run.

    Returns
    -------
    list of Row
        The rows. Those of a generation that is finished stay the same when the run goes on.

    Examples
    --------
    >>> points = [TrackedPoint(name="score/rewardMean", step=1, value=0.5)]
    >>> rows_of([TrackedGeneration(generation=1, time=0.0, points=points)])[0].values
    {'generation': 1.0, 'score/rewardMean': 0.5}
    """
    rows: list[Row] = []
    for generation in generations:
        grouped: dict[tuple[Axis, int], dict[str, float]] = {}
        for point in generation.points:
            values = grouped.setdefault((point.axis, point.step), {point.axis: float(point.step)})
            values[point.name] = point.value
        rows += [
            Row(number=number, generation=generation.generation, time=generation.time, values=v)
            for number, v in enumerate(grouped.values(), start=len(rows))
        ]
    return rows


def _curve(manifest: Manifest, earlier_steps: int) -> list[TrackedPoint]:
    """Return the points of the steps that a manifest stores; empty for most stages."""
    if manifest.stage is Stage.TRAIN:
        curve = read_curve(manifest.report)
        steps = [earlier_steps + int(step) for step in curve.get(STEP, [])]
        columns = {name: values for name, values in curve.items() if name != STEP}
        return _points(Axis.TRAIN_STEP, steps, columns)
    if manifest.stage is Stage.WARM_START:
        entries: list[dict[str, Any]] = manifest.report.get(_EVALUATIONS, [])
        names = (WarmStartMetric.LOSS, WarmStartMetric.WEIGHTED_F1)
        values = {str(name): [entry.get(name) for entry in entries] for name in names}
        return _points(Axis.WARM_START_STEP, [int(entry[STEP]) for entry in entries], values)
    return []


def _points(
    axis: Axis, steps: Sequence[int], columns: Mapping[str, Sequence[float | None]]
) -> list[TrackedPoint]:
    """Return the points of a curve, step by step. A value that is None has no point."""
    return [
        TrackedPoint(name=f"{CURVES[axis]}/{name}", step=step, value=value, axis=axis)
        for index, step in enumerate(steps)
        for name, values in columns.items()
        if (value := values[index]) is not None
    ]


def _score_values(prefix: str, score: SourceScore, labels: Sequence[str]) -> dict[str, float]:
    """Return the figures of one evaluation source."""
    fields = score.to_json()
    values = {f"{prefix}/{n}": float(v) for n, v in fields.items() if isinstance(v, int | float)}
    if len(score.f1_by_label) == len(labels):
        pairs = zip(label_names(labels), score.f1_by_label, strict=True)
        values |= {f"{prefix}/f1/{name}": f1 for name, f1 in pairs}
    return values


def _expression_values(
    prefix: str, expression: ExpressionScore, labels: Sequence[str]
) -> dict[str, float]:
    """Return the figures of expression."""
    fields = expression.to_json()
    values = {f"{prefix}/{n}": float(v) for n, v in fields.items() if isinstance(v, int | float)}
    for name, change in (
        ("overBaseline", expression.over_baseline),
        ("overBest", expression.over_best),
    ):
        if change is not None:
            values[f"{prefix}/{name}"] = change.change
    pairs = zip(label_names(labels), expression.as_intended_by_label, strict=False)
    return values | {f"{prefix}/emotion/{name}": share for name, share in pairs}


def label_names(labels: Sequence[str]) -> list[str]:
    """Return a name of one level for each label, in their order. No two are the same.

    Parameters
    ----------
    labels
        The labels of the label set.

    Examples
    --------
    >>> label_names(["joy/pride", "joy & pride", "joy + pride"])
    ['joy_pride', 'joy _ pride', 'joy _ pride-2']
    """
    names: list[str] = []
    for label in labels:
        plain = "_" if set(label) <= {"."} else _plain(label)
        count = 1
        name = plain
        while name in names:
            count += 1
            name = f"{plain}-{count}"
        names.append(name)
    return names


def _path(name: str) -> str:
    """Return a name that every tool accepts. A family of metrics becomes a level of the name.

    >>> _path("dropped:balance"), _path("开心"), _path("a//..")
    ('dropped/balance', '开心', 'a/_/_')
    """
    levels = name.replace(":", "/").split("/")
    return "/".join("_" if set(level) <= {"."} else _plain(level) for level in levels)


def _plain(level: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in level)
