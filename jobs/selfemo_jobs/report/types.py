"""What the report shows, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup

from selfemo_api.results import SourceScore
from selfemo_jobs.report.run_files import Sample, StageRecord


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
class Bound:
    """The value past which the run has collapsed."""

    value: float
    falls: bool
    """Whether a fall below it is the collapse, rather than a rise above it."""


@dataclass(frozen=True)
class SignSeries:
    """One sign of collapse over the generations."""

    name: str
    points: tuple[Point, ...]
    bound: Bound | None
    """None where the evolution's bounds are not known."""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; there is one more edge than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def cells(self) -> Iterator[tuple[float, float, int]]:
        """Lower edge, upper edge and count of each cell."""
        for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True):
            yield low, high, count

    @property
    def total(self) -> int:
        """All counts."""
        return sum(self.counts)

    def share(self, count: int) -> float:
        """Return a count as a share of all; 0 of nothing."""
        return count / self.total if self.total else 0.0

    def quantile(self, share: float) -> float:
        """Return the value below which a share lies, evenly spread within each cell."""
        wanted, below = share * self.total, 0
        for low, high, count in self.cells:
            if count and below + count >= wanted:
                return low + (high - low) * (wanted - below) / count
            below += count
        return self.edges[-1]


@dataclass(frozen=True)
class Stack:
    """One bar of parts."""

    name: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """One value, before and after."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Figure:
    """One picture of the page: what it shows, what it means, and the same as a table."""

    title: str
    meaning: str
    drawings: tuple[Markup, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[str, ...] = ()
    """Names of the colors, in their order."""
    captions: tuple[str, ...] = ()
    """One for each drawing, where there are several."""
    wide: bool = False


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
    state: str = ""
    """Phase and message of the evolution, where it is known."""
    f1: tuple[Series, ...] = ()
    """Weighted F1 of each evaluation source, the deciding one first."""
    rewards: tuple[Series, ...] = ()
    entropy: tuple[Series, ...] = ()
    label_f1: tuple[tuple[float | None, ...], ...] = ()
    """F1 by label (rows, as ``labels``) and evaluated generation (columns)."""
    support: tuple[int, ...] = ()
    weighed: bool = False
    """Whether the deciding source's figures are weighed to `evaluation.labelPrior`."""
    evaluated: tuple[int, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    funnels: Mapping[int, tuple[FunnelStep, ...]] = field(default_factory=dict)
    kept_labels: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    histograms: Mapping[int, Histogram] = field(default_factory=dict)
    """Rewards of the candidates, by generation."""
    signs: tuple[SignSeries, ...] = ()
    generated: tuple[Point, ...] = ()
    """Tokens that self-play generated."""
    trained: tuple[Point, ...] = ()
    """Completion tokens that were trained on."""
    figures: tuple[FigureRow, ...] = ()
    seconds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Wall seconds by generation and stage."""
    samples: tuple[Sample, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    records: tuple[StageRecord, ...] = ()
