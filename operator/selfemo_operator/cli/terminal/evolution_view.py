"""The view of an evolution in a terminal. All functions are pure: they turn the resource into text.

`selfemo watch` and `kubectl selfemo watch` show the same view.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfemo_api.collapse import CollapseIndicator, label_indicators, stage_indicators
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType, EvolutionStatus, GenerationRecord, Outcome, Phase
from selfemo_api.text.formatting import duration
from selfemo_operator.cli.terminal.plots import EmotionPlot, F1Plot
from selfemo_operator.cli.terminal.score_table import (
    OUTCOMES,
    format_expression,
    format_f1,
    format_set_figures,
    generation_table,
    shown_generations,
)

_PHASE_STYLES = {
    Phase.RUNNING: "bold cyan",
    Phase.SUCCEEDED: "bold green",
    Phase.COLLAPSED: "bold red",
    Phase.FAILED: "bold red",
}


@dataclass(frozen=True)
class StageProgress:
    """The progress of the current stage, which the status does not contain."""

    done: float | None = None
    """The finished part of `total`; None before the stage has logged progress."""
    total: float = 1.0
    """The whole work of the stage, in the stage's own unit, e.g. steps."""
    metrics: str = ""
    """The metrics of the last progress line, as text."""
    note: str = ""
    """A warning about the view itself, e.g. that no runner is active."""


@dataclass(frozen=True)
class _GenerationTable:
    """The table of generations, without intervals where the terminal is too narrow for them."""

    evolution: EmotionEvolution
    newest: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = generation_table(self.evolution, newest=self.newest)
        width = Measurement.get(console, options.update(max_width=1000), table).maximum
        yield (
            table
            if width <= options.max_width
            else generation_table(self.evolution, intervals=False, newest=self.newest)
        )


@dataclass(frozen=True)
class Extent:
    """How much of an evolution a view has, beside its state and the collapse indicators."""

    newest: int | None = None
    """How many of the last generations it has. None: all of the history."""
    has_plots: bool = True
    """Whether it has the plots."""
    has_expression: bool = True
    """Whether it has the expression of the last generation."""
    note: str = ""
    """What is left out, as the last line."""


_WHOLE = Extent()
#: The fewest of the last generations beside the plots: with less than that, no trend is seen.
_FEWEST_WITH_PLOTS = 3


def evolution_view(
    evolution: EmotionEvolution, progress: StageProgress, now: datetime, extent: Extent = _WHOLE
) -> RenderableType:
    """Return the view of an evolution for rich to draw.

    The collapse indicators come before the table, whose length depends on the run.

    Parameters
    ----------
    evolution
        The resource with its status.
    progress
        The progress of the current stage.
    now
        The present time, up to which durations are counted.
    extent
        How much the view has.
    """
    status = evolution.status
    parts: list[RenderableType] = [_status_line(evolution, now)]
    if progress.done is not None and not status.finished:
        parts.append(_progress_bar(progress))
    parts += _message_lines(status, progress)
    parts += _collapse_indicators(evolution)
    if status.history:
        parts += ["", _GenerationTable(evolution, extent.newest)]
        parts += ["", _plots(evolution, extent.newest)] if extent.has_plots else []
        parts += _expression_lines(evolution) if extent.has_expression else []
    parts += [Text(extent.note, "dim")] if extent.note else []
    return Group(*parts)


@dataclass(frozen=True)
class FittingView:
    """The view of an evolution with as much as fits into the terminal's height.

    A live view that is higher is cut at the end, and cannot be scrolled. The plots and the
    expression are left out first, then generations.
    """

    evolution: EmotionEvolution
    """The resource with its status."""
    progress: StageProgress
    """The progress of the current stage."""
    now: datetime
    """The present time, up to which durations are counted."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the view."""
        height, history = options.size.height, len(self.evolution.status.history)

        def view(extent: Extent) -> RenderableType:
            return evolution_view(self.evolution, self.progress, self.now, extent)

        def lines(extent: Extent) -> int:
            return len(console.render_lines(view(extent), options, pad=False))

        for extent in _extents(self.evolution, height):
            least = min(history, _FEWEST_WITH_PLOTS if extent.has_plots else 1)
            counts = range(least, history + 1)
            fitting = bisect_right(counts, height, key=lambda n: lines(replace(extent, newest=n)))
            if fitting:
                yield view(replace(extent, newest=counts[fitting - 1]))
                return
        yield view(replace(extent, newest=1))


def _extents(evolution: EmotionEvolution, height: int) -> Iterator[Extent]:
    """Yield how much a view may have, the most first."""
    yield _WHOLE
    has_expression = any(record.expression for record in evolution.status.history)
    if has_expression:
        note = _left_out("the expression is", height)
        yield Extent(has_expression=False, note=note)
    note = _left_out("plots and expression are" if has_expression else "the plots are", height)
    yield Extent(has_plots=False, has_expression=False, note=note)


def _left_out(what: str, height: int) -> str:
    """Return the line about parts that do not fit."""
    return f"The terminal has {height} lines: {what} omitted. `--once` prints the full view."


def status_changes(before: EmotionEvolution | None, after: EmotionEvolution) -> Iterator[str]:
    """Yield a line for each change of an evolution, for output that is not a terminal.

    Parameters
    ----------
    before
        The evolution at the last call; None at the first.
    after
        The evolution now.

    Yields
    ------
    str
        A finished generation, a failure, or the present stage or condition.
    """
    old, new = before.status if before else EvolutionStatus(), after.status
    old_generations = {record.generation for record in old.history}
    for record in new.history:
        if record.generation not in old_generations:
            yield _generation_line(record)
    if new.last_failure and new.last_failure != old.last_failure:
        yield f"last failure: {new.last_failure}"
    if new.finished or new.phase is not Phase.RUNNING:
        if before is None or (old.phase, _condition_text(old)) != (new.phase, _condition_text(new)):
            yield f"{new.phase.value}: {_condition_text(new)}"
    elif before is None or _stage_text(old) != _stage_text(new):
        yield f"{new.phase.value}: {_stage_text(new)}"


def _stage_text(status: EvolutionStatus) -> str:
    """Return the current generation, its stage, and the number of a repeated attempt."""
    text = f"generation {status.generation}"
    if status.stage is not None:
        text += f" {status.stage.value}"
    return text + (f", attempt {status.attempt}" if status.attempt > 1 else "")


def _condition_text(status: EvolutionStatus) -> str:
    """Return reason and message of the condition that describes the present state."""
    kind = ConditionType.SUCCEEDED if status.finished else ConditionType.PROGRESSING
    condition = status.condition(kind)
    if condition is None:
        return "not started"
    return f"{condition.reason}: {condition.message}" if condition.message else condition.reason


def _generation_line(record: GenerationRecord) -> str:
    """Return outcome, scores and duration of a finished generation."""
    parts = [f"F1 {format_f1(record.scores[0])}" if record.scores else "not evaluated"]
    if record.scores and (figures := format_set_figures(record.scores[0])):
        parts.append(figures)
    if record.expression is not None:
        parts.append(f"expression {format_expression(record.expression)}")
    if record.reward is not None:
        parts.append(f"reward {record.reward:.3f}")
    if record.kept is not None:
        parts.append(f"{record.kept} rows kept")
    parts.append(duration(sum(record.stage_seconds.values())))
    return f"generation {record.generation} {OUTCOMES[record.outcome]}: {', '.join(parts)}"


def _status_line(evolution: EmotionEvolution, now: datetime) -> Text:
    """Return name, phase and stage, the time since the stage began, and the total time."""
    status, metadata = evolution.status, evolution.metadata
    line = Text.assemble(
        (f"{metadata.namespace}/{metadata.name}", "bold"),
        "  ",
        (status.phase.value, _PHASE_STYLES.get(status.phase, "bold")),
    )
    if not status.finished and status.start_time is not None:
        line.append(f"  {_stage_text(status)}")
        if status.last_progress_time is not None and status.phase is Phase.RUNNING:
            line.append(f" for {_elapsed(status.last_progress_time, now)}")
        line.append(f"  at most {evolution.spec.stopping.max_generations} generations", "dim")
    if status.start_time is not None:
        total = _elapsed(status.start_time, status.completion_time or now)
        line.append(f"  {total} in total", "dim")
    return line


def _elapsed(start: datetime, end: datetime) -> str:
    """Return the time between two moments as text, at least zero."""
    return duration(max((end - start).total_seconds(), 0.0))


def _progress_bar(progress: StageProgress) -> Table:
    """Return a bar, the numbers beside it, and the metrics of the stage."""
    done = progress.done or 0.0
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=progress.total, completed=done, width=30),
        f"{done:.0f}/{progress.total:.0f}",
        Text(progress.metrics),
    )
    return row


def _message_lines(status: EvolutionStatus, progress: StageProgress) -> list[RenderableType]:
    """Return the condition, the last failure and the note, a line each."""
    lines: list[RenderableType] = [Text(_condition_text(status))]
    if status.last_failure:
        counts = f"failures: {status.failures}, disruptions: {status.disruptions}"
        lines.append(Text(f"Last failure ({counts}): {status.last_failure}", "red"))
    if progress.note:
        lines.append(Text(progress.note, "yellow"))
    return lines


def _plots(evolution: EmotionEvolution, newest: int | None) -> RenderableType:
    """Return the plots, side by side where the terminal is wide enough."""
    status, goal = evolution.status, evolution.spec.stopping.goal
    plots: list[RenderableType] = []
    points = tuple(r for r in shown_generations(status, newest) if r.f1 is not None)
    if points:
        best = status.best.generation if status.best else None
        plots.append(F1Plot(points, best, goal))
    evaluated = next((r for r in reversed(status.history) if r.scores), None)
    if evaluated and evaluated.scores[0].f1_by_label:
        score = evaluated.scores[0]
        title = f"F1 by emotion, generation {evaluated.generation}, {score.source}"
        labels = tuple(evolution.spec.dataset.labels)
        plots.append(EmotionPlot(title, labels, score, status.baseline))
    return Columns([Padding(plot, (0, 3, 0, 0)) for plot in plots])


def _expression_lines(evolution: EmotionEvolution) -> list[RenderableType]:
    """Return the expression of the last generation that has one."""
    record = next((r for r in reversed(evolution.status.history) if r.expression), None)
    if record is None or record.expression is None:
        return []
    score = record.expression
    text = Text(f"Expression, generation {record.generation}", "bold")
    figures = [f"{format_expression(score)} of the responses are classified as intended"]
    if score.human is not None:
        figures.append(f"human turns {score.human:.3f}")
    change = score.over_baseline
    if change is not None:
        known = change.low is not None and change.high is not None
        interval = f" [{change.low:+.3f}, {change.high:+.3f}]" if known else ""
        figures.append(f"{change.change:+.3f}{interval} over generation 0")
    text.append(f"\n  {'; '.join(figures)}", "not bold")
    text.append(
        f"\n  consistency {score.consistency:.3f}, diversity {score.diversity:.3f}, "
        f"{score.words:.1f} words, emotion named explicitly {100 * score.named:.1f}%",
        "not bold",
    )
    labels = evolution.spec.dataset.labels
    if score.as_intended_by_label:
        shares = zip(labels, score.as_intended_by_label, strict=False)
        listed = ", ".join(f"{label} {share:.2f}" for label, share in shares)
        text.append(f"\n  {listed}", "not bold")
    return ["", text]


def _collapse_indicators(evolution: EmotionEvolution) -> list[RenderableType]:
    """Return the newest value of each collapse indicator, in red where it is past its bound."""
    status, bounds = evolution.status, evolution.spec.stopping.collapse
    indicators: list[CollapseIndicator] = []
    evaluated = next((r for r in reversed(status.history) if r.scores), None)
    if evaluated is not None and status.baseline is not None:
        improved = evaluated.outcome is Outcome.PROMOTED
        indicators += label_indicators(
            evaluated.scores[0], status.baseline, bounds, improved=improved
        )
    for result in status.current.results if status.current else []:
        imitation = evolution.spec.training.imitation > 0.0
        indicators += stage_indicators(result.stage, result.metrics, bounds, imitation=imitation)
    if not indicators:
        return []
    text = Text("Collapse indicators", "bold")
    for indicator in indicators:
        direction = "below" if indicator.falls else "above"
        limit = (
            f"collapse {direction} {indicator.bound:g}"
            if indicator.counts
            else "not counted as a collapse"
        )
        text.append(
            f"\n  {indicator.name}: {indicator.value:.3f} ({limit})",
            "red" if indicator.crossed else "not bold",
        )
    return ["", text]
