"""The content of the report as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup

from selfemo_api.results import ExpressionScore, SourceScore
from selfemo_jobs.report.examples import AnswerChanges
from selfemo_jobs.report.facts import RunFacts
from selfemo_jobs.report.gains import ShownGain
from selfemo_jobs.report.sample_reader import ReplyPair, Sample
from selfemo_jobs.runtime.run_reader import StageRecord


@dataclass(frozen=True)
class Point:
    """One value of a series."""

    generation: int
    """The generation, or the step of the warm start."""
    value: float
    low: float | None = None
    """The lower end of the 95% interval; None without an interval."""
    high: float | None = None
    """The upper end of the 95% interval; None without an interval."""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]
    """The values in the order of the generations."""


@dataclass(frozen=True)
class Bound:
    """The value past which the run has collapsed."""

    value: float
    falls: bool
    """Whether a value below the bound is a collapse. Otherwise a value above it is one."""


@dataclass(frozen=True)
class IndicatorSeries:
    """One collapse indicator over the generations."""

    name: str
    points: tuple[Point, ...]
    """The values in the order of the generations."""
    bound: Bound | None
    """The bound of the evolution; None if the evolution is not available."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values in cells.

    Examples
    --------
    >>> Histogram((0.0, 0.5, 1.0), (30, 10)).total
    40
    """

    edges: tuple[float, ...]
    """The edges of the cells in ascending order: one more than there are counts."""
    counts: tuple[int, ...]
    """The count of each cell."""

    @property
    def cells(self) -> Iterator[tuple[float, float, int]]:
        """The lower edge, the upper edge and the count of each cell."""
        for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True):
            yield low, high, count

    @property
    def total(self) -> int:
        """The sum of all counts."""
        return sum(self.counts)

    def share(self, count: int) -> float:
        """Return a count as a share of the total; 0 if the histogram is empty."""
        return count / self.total if self.total else 0.0

    def quantile(self, share: float) -> float:
        """Return a quantile, where the values of a cell count as evenly distributed in it.

        Parameters
        ----------
        share
            The share of the values that lie below the quantile, from 0 to 1.

        Examples
        --------
        >>> Histogram((0.0, 0.5, 1.0), (20, 20)).quantile(0.75)
        0.75
        """
        target, below = share * self.total, 0
        for low, high, count in self.cells:
            if count and below + count >= target:
                return low + (high - low) * (target - below) / count
            below += count
        return self.edges[-1]


@dataclass(frozen=True)
class Stack:
    """One bar that consists of parts."""

    name: str
    values: Mapping[str, float]
    """The length of each part, by the part's name."""


@dataclass(frozen=True)
class Change:
    """One value before and after."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class ChartSection:
    """One section of the page with charts: a heading, an explanation, and the values as a table."""

    title: str
    explanation: str
    """How to read the charts."""
    charts: tuple[Markup, ...]
    """The charts as SVG elements."""
    head: tuple[str, ...]
    """The head of the table."""
    rows: tuple[tuple[str, ...], ...]
    """The rows of the table, each as wide as the head."""
    legend: tuple[str, ...] = ()
    """The names of the colors, in the order of the colors."""
    line_names: tuple[str, ...] = ()
    """The names of the lines, in the order of their colors. They stand beside the lines, too, but a
    phone shows only a part of the chart at a time."""
    captions: tuple[str, ...] = ()
    """The caption of each chart, if there are several charts."""
    wide: bool = False
    """Whether the section is as wide as the page."""

    @property
    def section_id(self) -> str:
        """The id of the section on the page."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class GenerationRow:
    """One row of the table of generations."""

    generation: int
    outcome: str
    built_on: int | None
    """The generation whose model the generation started from; None for generation 0."""
    score: SourceScore | None
    """The score on the selection dataset; None before the evaluation."""
    scores: Mapping[str, SourceScore]
    """The score on each evaluation dataset."""
    gains: Mapping[str, ShownGain]
    """The gain over generation 0 on each evaluation dataset. Generation 0 itself has none."""
    reward: float | None
    """The mean reward; None before the Score stage."""
    consistency: float | None
    """The mean consistency; None before the Score stage."""
    kept: float | None
    """The number of rows that the flywheel kept; None before the Flywheel stage."""
    message: str = ""
    """The planner's message about the outcome."""


@dataclass(frozen=True)
class FunnelStep:
    """One filter of the flywheel."""

    name: str
    before: int
    """The number of groups before the filter."""
    after: int
    """The number of groups after the filter."""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix."""

    title: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """The number of utterances by true label (rows) and predicted label (columns)."""


@dataclass(frozen=True)
class SetScores:
    """The scores on an evaluation dataset that is compared by sets of labels."""

    dataset: str
    scores: Mapping[int, SourceScore]
    """The score of each evaluated generation."""
    labels_per_utterance: float | None
    """The mean number of gold labels of an utterance; None if the manifests do not have it."""


@dataclass(frozen=True)
class WarmStart:
    """The evaluations during the warm start."""

    dataset: str
    """The name of the selection dataset."""
    best_step: int
    """The number of steps after which F1 was highest."""
    f1: tuple[Point, ...]
    """The weighted F1 by step."""
    loss: Mapping[int, float]
    """The mean loss by step. The first evaluation has none."""


@dataclass(frozen=True)
class MetricRow:
    """One metric of a stage over the generations."""

    stage: str
    name: str
    values: tuple[float | None, ...]
    """The value of each generation; None where the stage has not reported it."""


@dataclass(frozen=True)
class ReportData:
    """The content of the whole page. What is not available yet is empty."""

    run: str
    """The name of the run, ``<namespace>/<name>-<uid8>``."""
    labels: tuple[str, ...] = ()
    """The names of the emotions."""
    selection_dataset: str | None = None
    """The evaluation dataset that decides which generation is best."""
    goal: float | None = None
    """The F1 at which the evolution stops; None without a goal."""
    facts: RunFacts = field(default_factory=RunFacts)
    """What was run."""
    generations: tuple[GenerationRow, ...] = ()
    best: int | None = None
    """The number of the best generation."""
    compared: int | None = None
    """The generation that is compared with generation 0: the best one, or the one with the highest
    F1 of the others if generation 0 is the best. None without another generation."""
    pending: str = ""
    """A sentence about the generation that is not finished."""
    state: str = ""
    """Phase and message of the evolution, if it is available."""
    warm_start: WarmStart | None = None
    """The evaluations during the warm start; None without one."""
    f1: tuple[Series, ...] = ()
    """The weighted F1 of each evaluation dataset, the selection dataset first."""
    set_scores: tuple[SetScores, ...] = ()
    """The evaluation datasets that are compared by sets of labels, the selection dataset first."""
    expression: Mapping[int, ExpressionScore] = field(default_factory=dict)
    """How well the responder expresses emotions, by generation; empty if it does not play."""
    rewards: tuple[Series, ...] = ()
    """The mean reward and the mean consistency."""
    entropy: tuple[Series, ...] = ()
    """The normalized entropy of the predicted and of the kept labels."""
    label_f1: tuple[tuple[float | None, ...], ...] = ()
    """F1 by label (rows, in the order of ``labels``) and evaluated generation (columns)."""
    support: tuple[int, ...] = ()
    """The number of utterances of each label in the selection dataset."""
    weighted_to_prior: bool = False
    """Whether the selection dataset's scores are weighted to `dataset.labelPrior`."""
    evaluated: tuple[int, ...] = ()
    """The numbers of the generations that were evaluated."""
    confusions: tuple[Confusion, ...] = ()
    funnels: Mapping[int, tuple[FunnelStep, ...]] = field(default_factory=dict)
    """The filters of the flywheel, by generation."""
    kept_labels: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """The number of kept rows by generation and label."""
    histograms: Mapping[int, Histogram] = field(default_factory=dict)
    """The rewards of the candidates, by generation."""
    indicators: tuple[IndicatorSeries, ...] = ()
    """The collapse indicators."""
    generated_tokens: tuple[Point, ...] = ()
    """The tokens that self-play generated."""
    trained_tokens: tuple[Point, ...] = ()
    """The completion tokens that the policy was trained on."""
    stage_metrics: tuple[MetricRow, ...] = ()
    seconds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """The wall time in seconds, by generation and stage."""
    changes: AnswerChanges | None = None
    """What the compared generation answers differently; None if answers are not stored."""
    samples: tuple[Sample, ...] = ()
    replies: tuple[ReplyPair, ...] = ()
    records: tuple[StageRecord, ...] = ()
    """The finished stages in order."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the evaluation datasets, the selection dataset first."""
        return tuple(series.name for series in self.f1)

    def row(self, generation: int | None) -> GenerationRow | None:
        """Return the row of a generation, or None if there is none.

        Parameters
        ----------
        generation
            The number of the generation, or None.
        """
        return next((r for r in self.generations if r.generation == generation), None)
