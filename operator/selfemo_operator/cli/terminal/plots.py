"""Plots for a terminal: F1 by generation, and F1 by emotion. They adapt to the terminal's width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from selfemo_api.results import SourceScore
from selfemo_api.status import GenerationRecord, Outcome

#: Outcomes of generations on which no later generation is built.
_DROPPED = (Outcome.ROLLED_BACK, Outcome.COLLAPSED)
#: The marks of a plot: F1, F1 of a dropped generation, best F1, interval, goal, bar.
_MARKS = ("●", "○", "★", "─", "┊", "█")
#: The same marks for a terminal that shows only ASCII.
_ASCII_MARKS = ("o", "x", "*", "-", "|", "#")


@dataclass(frozen=True)
class F1Plot:
    """Weighted F1 with its 95% interval: a line for each generation, all on one scale."""

    points: tuple[GenerationRecord, ...]
    """The generations that have an F1."""
    best: int | None
    """The number of the best generation; None if there is none yet."""
    goal: float | None
    """The F1 at which the evolution stops; None without a goal."""
    width: int = 36
    """The most columns that the scale takes."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the greatest width of the plot, in columns."""
        return Measurement(24, min(self.width + 11, max(options.max_width, 24)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each generation."""
        marks = _ASCII_MARKS if options.ascii_only else _MARKS
        columns = max(min(self.width, options.max_width - 11), 8)
        goal = f", goal {self.goal:g}" if self.goal is not None else ""
        yield Text(f"F1 by generation{goal}", "bold", no_wrap=True)
        for point in self.points:
            yield self._line(point, marks, columns)

    def _line(self, point: GenerationRecord, marks: Sequence[str], columns: int) -> Text:
        """Return the line of one generation: its number, the scale, its F1."""
        value_mark, dropped_mark, best_mark, interval_mark, goal_mark, _ = marks
        cells = [" "] * columns
        low, value, high = _interval(point)
        for column in range(self._column(low, columns), self._column(high, columns) + 1):
            cells[column] = interval_mark
        if self.goal is not None:
            cells[self._column(self.goal, columns)] = goal_mark
        mark, style = value_mark, ""
        if point.generation == self.best:
            mark, style = best_mark, "bold yellow"
        elif point.outcome in _DROPPED:
            mark, style = dropped_mark, "dim"
        cells[self._column(value, columns)] = mark
        return Text(f"{point.generation:>3} {''.join(cells)} {value:.4f}", style, no_wrap=True)

    def _column(self, value: float, columns: int) -> int:
        """Return the column of an F1 on the scale, from 0."""
        values = [v for p in self.points for v in _interval(p)]
        values += [] if self.goal is None else [self.goal]
        low, high = min(values), max(values)
        return round((value - low) / ((high - low) or 1.0) * (columns - 1))


@dataclass(frozen=True)
class EmotionPlot:
    """F1 of each emotion as a bar, with its change since generation 0."""

    title: str
    """The line above the bars."""
    labels: tuple[str, ...]
    """The names of the emotions."""
    score: SourceScore
    """The score of the evaluation, with its F1 in the order of the labels."""
    baseline: SourceScore | None
    """The score of generation 0; None if there is none."""
    width: int = 18
    """The most columns that a bar takes."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the greatest width of the plot, in columns."""
        longest = max(map(cell_len, self.labels), default=0)
        return Measurement(20, min(longest + self.width + 17, max(options.max_width, 20)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each emotion."""
        bar = (_ASCII_MARKS if options.ascii_only else _MARKS)[5]
        name_columns = max(map(cell_len, self.labels), default=0)
        bar_columns = max(min(self.width, options.max_width - name_columns - 17), 4)
        before = self.baseline.f1_by_label if self.baseline else []
        yield Text(self.title, "bold", no_wrap=True)
        for index, (label, value) in enumerate(
            zip(self.labels, self.score.f1_by_label, strict=False)
        ):
            line = Text(f"{set_cell_size(label, name_columns)} ", no_wrap=True)
            line.append(f"{bar * round(value * bar_columns):<{bar_columns}}", "cyan")
            line.append(f" {value:.3f}")
            if index < len(before):
                change = value - before[index]
                style = "green" if change > 0 else "red" if change < 0 else "dim"
                line.append(f" {change:+.3f}", style)
            yield line


def _interval(point: GenerationRecord) -> tuple[float, float, float]:
    """Return lower end, F1 and upper end; without an interval all three are the F1."""
    value = point.f1 if point.f1 is not None else 0.0
    score = point.scores[0] if point.scores else None
    if score is None or score.weighted_f1_low is None or score.weighted_f1_high is None:
        return value, value, value
    return min(score.weighted_f1_low, value), value, max(score.weighted_f1_high, value)
