"""What the report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selfemo_api.results import SourceScore
from selfemo_jobs.report.read import Sample, StageRecord


@dataclass(frozen=True)
class Point:
    """One value of a series."""

    generation: int
    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval, where there is one."""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class GenerationRow:
    """One line of the table of generations."""

    generation: int
    outcome: str
    built_on: int | None
    """Generation whose model it started from; None for the model as given."""
    score: SourceScore | None
    reward: float | None
    consistency: float | None
    kept: float | None
    message: str = ""


@dataclass(frozen=True)
class FunnelStep:
    """One filter of the flywheel."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: rows are the true labels, columns the predicted ones."""

    title: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class FigureRow:
    """One figure of a stage over the generations."""

    stage: str
    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything on the page; what has not happened yet is empty."""

    run: str
    labels: tuple[str, ...] = ()
    source: str | None = None
    """The evaluation source that decides."""
    goal: float | None = None
    generations: tuple[GenerationRow, ...] = ()
    best: int | None = None
    under_way: str = ""
    f1: tuple[Series, ...] = ()
    """Weighted F1 of each evaluation source, the deciding one first."""
    rewards: tuple[Series, ...] = ()
    entropy: tuple[Series, ...] = ()
    label_f1: tuple[tuple[float | None, ...], ...] = ()
    """F1 by label (rows, as ``labels``) and evaluated generation (columns)."""
    support: tuple[int, ...] = ()
    evaluated: tuple[int, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    funnels: Mapping[int, tuple[FunnelStep, ...]] = field(default_factory=dict)
    kept_labels: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    histograms: Mapping[int, tuple[tuple[float, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    """Edges and counts of the rewards, by generation."""
    figures: tuple[FigureRow, ...] = ()
    seconds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Wall seconds by generation and stage."""
    samples: tuple[Sample, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    records: tuple[StageRecord, ...] = ()
