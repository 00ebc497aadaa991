"""Plots of a terminal: F1 by generation, and by emotion. As wide as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from selfemo_api.results import SourceScore
from selfemo_api.status import GenerationRecord, Outcome

_DROPPED = (Outcome.ROLLED_BACK, Outcome.COLLAPSED)
#: Marks of a plot: kept, not kept, best, interval, goal, bar.
_MARKS = ("●", "○", "★", "─", "┊", "█")
#: The same where the terminal shows nothing else.
_ASCII = ("o", "x", "*", "-", "|", "#")


@dataclass(frozen=True)
class F1Plot:
    """Weighted F1 with its 95 % interval: one line for each generation, on one scale."""

    points: tuple[GenerationRecord, ...]
    """Generations that have an F1."""
    best: int | None
    goal: float | None
    width: int = 36

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take what the scale needs, or what there is."""
        return Measurement(24, min(self.width + 11, max(options.max_width, 24)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each generation."""
        marks = _ASCII if options.ascii_only else _MARKS
        room = max(min(self.width, options.max_width - 11), 8)
        goal = f", goal {self.goal:g}" if self.goal is not None else ""
        yield Text(f"F1 by generation{goal}", "bold", no_wrap=True)
        for point in self.points:
            yield self._line(point, marks, room)

    def _line(self, point: GenerationRecord, marks: Sequence[str], room: int) -> Text:
        kept, dropped, star, interval, goal, _ = marks
        cells = [" "] * room
        low, value, high = _interval(point)
        for at in range(self._column(low, room), self._column(high, room) + 1):
            cells[at] = interval
        if self.goal is not None:
            cells[self._column(self.goal, room)] = goal
        mark, style = kept, ""
        if point.generation == self.best:
            mark, style = star, "bold yellow"
        elif point.outcome in _DROPPED:
            mark, style = dropped, "dim"
        cells[self._column(value, room)] = mark
        return Text(f"{point.generation:>3} {''.join(cells)} {value:.4f}", style, no_wrap=True)

    def _column(self, value: float, room: int) -> int:
        values = [v for p in self.points for v in _interval(p)]
        values += [] if self.goal is None else [self.goal]
        low, high = min(values), max(values)
        return round((value - low) / ((high - low) or 1.0) * (room - 1))


@dataclass(frozen=True)
class EmotionPlot:
    """F1 of each emotion as a bar, with what changed since generation 0."""

    title: str
    labels: tuple[str, ...]
    score: SourceScore
    baseline: SourceScore | None
    width: int = 18

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take what the bars need."""
        longest = max((len(label) for label in self.labels), default=0)
        return Measurement(20, min(longest + self.width + 17, max(options.max_width, 20)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line for each emotion."""
        bar = (_ASCII if options.ascii_only else _MARKS)[5]
        name = max((len(label) for label in self.labels), default=0)
        room = max(min(self.width, options.max_width - name - 17), 4)
        before = self.baseline.f1_by_label if self.baseline else []
        yield Text(self.title, "bold", no_wrap=True)
        for index, (label, value) in enumerate(
            zip(self.labels, self.score.f1_by_label, strict=False)
        ):
            line = Text(f"{label:<{name}} ", no_wrap=True)
            line.append(f"{bar * round(value * room):<{room}}", "cyan")
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
