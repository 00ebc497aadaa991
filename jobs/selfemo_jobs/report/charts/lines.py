"""Line charts over generations or steps, with intervals, a goal, and a bound of collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfemo_jobs.report.charts.svg import (
    COLORS,
    WIDTH,
    format_number,
    grid_line,
    svg,
    text,
    ticks,
    truncate,
)
from selfemo_jobs.report.types import Bound, Point, Series

#: Units of the drawing: the margins.
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 132, 26, 40
#: Units between the axis and the first point, which leave space for the point's value.
_INSET = 26
#: The least units between the names at the ends of two lines.
_LABEL_GAP = 15.0
#: Units between the intervals of two series at one generation.
_DODGE = 7.0
#: The most characters of a name at the end of a line, for which there is space.
_NAME_LENGTH = 15
#: The values are written beside the points of a line that has at most this many.
_MAX_VALUES = 10


@dataclass(frozen=True)
class Frame:
    """Maps generations and values to positions in the chart."""

    first: int
    """The first generation."""
    last: int
    """The last generation."""
    low: float
    """The value at the lower end of the axis."""
    high: float
    """The value at the upper end of the axis."""
    height: float = 300
    """The height of the chart, in units of the drawing."""

    def x(self, generation: float) -> float:
        """Return the horizontal position of a generation. A single generation is in the middle."""
        width = WIDTH - _LEFT - _RIGHT
        if self.first == self.last:
            return _LEFT + width / 2
        inner = width - 2 * _INSET
        return _LEFT + _INSET + inner * (generation - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    goal: float | None = None,
    bound: Bound | None = None,
    marks: Mapping[int, str] | None = None,
    best: int | None = None,
    within: tuple[float, float] | None = None,
    height: float = 300,
    axis: str = "generation",
) -> Markup:
    """Return a line chart over generations or steps, with the 95% intervals of the points.

    Parameters
    ----------
    series
        Up to eight lines. The first is drawn on top, and its values are written beside it.
    title
        The name of the chart.
    goal
        The value of the dashed goal line; None without a goal.
    bound
        The bound past which the area is tinted; None without a bound.
    marks
        The mark of a generation: `hollow` (not built upon) or `crossed` (collapsed). All other
        marks are filled.
    best
        The generation that has a ring on the first line; None without a ring.
    within
        The values that the axis must include. None: those of the data only.
    height
        The height of the chart, in units of the drawing. The width is 600.
    axis
        The name of the horizontal axis: what the numbers of the points count.
    """
    points = [p for s in series for p in s.points]
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    values += [
        *([] if goal is None else [goal]),
        *(within or ()),
        *([bound.value] if bound else []),
    ]
    levels = ticks(min(values), max(values), 5 if height >= 300 else 4)
    generations = [p.generation for p in points]
    frame = Frame(min(generations), max(generations), levels[0], levels[-1], height)
    body = [_collapse_area(frame, bound)] if bound else []
    body.append(_axes(frame, levels, generations, axis))
    if goal is not None:
        body.append(_goal_line(frame, goal))
    for index in reversed(range(len(series))):  # the first line is drawn last, on top of the others
        offset = (index - (len(series) - 1) / 2) * _DODGE if _has_intervals(series) else 0.0
        body.append(_line(frame, series[index], index, offset, marks or {}, axis))
    body += [_best_ring(frame, series, best), _names(frame, series, goal)]
    return svg(title, _description(series, goal, bound, best, axis), body, height)


def _has_intervals(series: Sequence[Series]) -> bool:
    """Return whether there are several series with intervals, which would overlap."""
    return len(series) > 1 and any(p.low is not None for s in series for p in s.points)


def _axes(frame: Frame, levels: Sequence[float], numbers: Sequence[int], axis: str) -> str:
    """Return the grid lines with their values, and the numbers of the generations or steps."""
    lines = [grid_line(_LEFT, WIDTH - _RIGHT, frame.y(v), format_number(v)) for v in levels]
    shown = range(frame.first, frame.last + 1) if axis == "generation" else sorted({*numbers})
    every = max(1, math.ceil(len(shown) / 12))
    lines += [
        text(frame.x(g), frame.height - _BOTTOM + 20, str(g), "tick", "middle")
        for g in shown[::every]
    ]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return "".join([*lines, text(middle, frame.height - 3, axis, "axis", "middle")])


def _goal_line(frame: Frame, goal: float) -> str:
    """Return the dashed line of the goal."""
    y = frame.y(goal)
    return f'<line class="goal" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _collapse_area(frame: Frame, bound: Bound) -> str:
    """Return the tinted area past the bound, with a label."""
    y = frame.y(bound.value)
    end = frame.y(frame.low if bound.falls else frame.high)
    top, high = min(y, end), abs(end - y)
    right = WIDTH - _RIGHT
    label = f"{'below' if bound.falls else 'above'} {format_number(bound.value)}: collapse"
    return (
        f'<rect class="beyond" x="{_LEFT}" y="{top:.1f}" width="{right - _LEFT}" '
        f'height="{high:.1f}"/>'
        f'<line class="bound" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        + text(_LEFT + 4, y - 5 if bound.falls else y + 14, label, "bound-name")
    )


def _line(
    frame: Frame,
    series: Series,
    index: int,
    offset: float,
    marks: Mapping[int, str],
    axis: str,
) -> str:
    """Return one line with its intervals, marks and values."""
    positions = [(frame.x(p.generation) + offset, frame.y(p.value), p) for p in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in positions)
    elements = [f'<g class="s{index % COLORS}">', f'<polyline class="line" points="{path}"/>']
    for x, y, p in positions:
        if p.low is not None and p.high is not None:
            elements.append(
                f'<path class="interval" d="M{x:.1f} {frame.y(p.low):.1f}V{frame.y(p.high):.1f}'
                f'M{x - 4:.1f} {frame.y(p.low):.1f}h8M{x - 4:.1f} {frame.y(p.high):.1f}h8"/>'
            )
        elements.append(_mark(x, y, marks.get(p.generation, ""), _tooltip(series.name, p, axis)))
        if index == 0 and len(positions) <= _MAX_VALUES:
            elements.append(text(x, y - 13, f"{p.value:.3f}", "value", "middle"))
    return "".join([*elements, "</g>"])


def _mark(x: float, y: float, kind: str, tooltip: str) -> str:
    """Return the mark of a point; `kind` is empty, `hollow` or `crossed`."""
    mark = (
        f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
        f"<title>{escape(tooltip)}</title></circle>"
    )
    if kind == "crossed":
        mark += f'<path class="cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    return mark


def _best_ring(frame: Frame, series: Sequence[Series], best: int | None) -> str:
    """Return the ring around the best generation on the first line."""
    offset = -(len(series) - 1) / 2 * _DODGE if _has_intervals(series) else 0.0
    for p in series[0].points:
        if p.generation == best:
            x, y = frame.x(p.generation) + offset, frame.y(p.value)
            ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
            return ring + text(x, y + 23, "best", "best-name", "middle")
    return ""


def _names(frame: Frame, series: Sequence[Series], goal: float | None) -> str:
    """Return the name at the end of each line. Names that would overlap are moved apart."""
    ends = [
        (frame.y(s.points[-1].value), truncate(s.name, _NAME_LENGTH), f"name s{i % COLORS}")
        for i, s in enumerate(series)
        if s.points and s.name
    ]
    if goal is not None:
        ends.append((frame.y(goal), f"goal {format_number(goal)}", "goal-name"))
    placed: list[float] = []
    for y, _, _ in sorted(ends):
        placed.append(max(y, placed[-1] + _LABEL_GAP) if placed else y)
    over = max(0.0, placed[-1] - (frame.height - _BOTTOM)) if placed else 0.0
    return "".join(
        text(WIDTH - _RIGHT + 10, y - over + 4, name, css_class)
        for y, (_, name, css_class) in zip(placed, sorted(ends), strict=True)
    )


def _tooltip(name: str, p: Point, axis: str) -> str:
    """Return series, generation or step, value and interval of a point."""
    known = p.low is not None and p.high is not None
    interval = f" (95% interval {p.low:.3f} to {p.high:.3f})" if known else ""
    return f"{name}{', ' if name else ''}{axis} {p.generation}: {p.value:.4f}{interval}"


def _description(
    series: Sequence[Series], goal: float | None, bound: Bound | None, best: int | None, axis: str
) -> str:
    """Return the values of the chart in words, for screen readers."""
    lines = [
        f"{s.name}: " + ", ".join(f"{p.value:.3f} at {axis} {p.generation}" for p in s.points)
        for s in series
    ]
    if best is not None:
        lines.append(f"Best: {axis} {best}")
    if goal is not None:
        lines.append(f"Goal {goal}")
    if bound is not None:
        lines.append(f"Collapse {'below' if bound.falls else 'above'} {bound.value:g}")
    return ". ".join(lines) + "."
