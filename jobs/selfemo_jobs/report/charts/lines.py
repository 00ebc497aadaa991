"""A line by generation for each series, with intervals, a goal, and a bound that means collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfemo_jobs.report.charts.svg import COLOURS, WIDTH, level, number, short, svg, text, ticks
from selfemo_jobs.report.types import Bound, Point, Series

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 118, 26, 40
_INSET = 26  # room for the first value beside the numbers of the axis
_LABEL_GAP = 15.0  # between the names at the lines' ends
_DODGE = 7.0  # between the intervals of two series at one generation
_VALUES_MOST = 10  # more points than this are not written out beside the line


@dataclass(frozen=True)
class Frame:
    """Maps generations and values to the drawing's units."""

    first: int
    last: int
    low: float
    high: float
    height: float = 300

    def x(self, generation: float) -> float:
        """Return the horizontal place of a generation; a single one stands in the middle."""
        width = WIDTH - _LEFT - _RIGHT
        if self.first == self.last:
            return _LEFT + width / 2
        inner = width - 2 * _INSET
        return _LEFT + _INSET + inner * (generation - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
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
) -> Markup:
    """Return a line chart over the generations, with 95 % intervals where the points have them.

    Parameters
    ----------
    series
        Up to eight lines; the first is drawn strongest and has its values written out.
    title
        What it shows.
    goal
        Value of the dashed goal line.
    bound
        The area past it is tinted.
    marks
        By generation, `hollow` (not kept) or `crossed` (collapsed); others are filled.
    best
        The generation that is ringed on the first line.
    within
        Values that the axis reaches at least. Unset: only as far as the data.
    height
        Of the drawing, which is 600 wide.
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
    body = [_beyond(frame, bound)] if bound else []
    body.append(_axes(frame, levels))
    if goal is not None:
        body.append(_goal(frame, goal))
    for index in reversed(range(len(series))):  # the first on top
        offset = (index - (len(series) - 1) / 2) * _DODGE if _has_intervals(series) else 0.0
        body.append(_line(frame, series[index], index, offset, marks or {}))
    body += [_best(frame, series, best), _names(frame, series, goal)]
    return svg(title, _in_words(series, goal, bound, best), body, height)


def _has_intervals(series: Sequence[Series]) -> bool:
    return len(series) > 1 and any(p.low is not None for s in series for p in s.points)


def _axes(frame: Frame, levels: Sequence[float]) -> str:
    lines = [level(_LEFT, WIDTH - _RIGHT, frame.y(v), number(v)) for v in levels]
    every = max(1, math.ceil((frame.last - frame.first + 1) / 12))
    lines += [
        text(frame.x(g), frame.height - _BOTTOM + 20, str(g), "tick", "middle")
        for g in range(frame.first, frame.last + 1, every)
    ]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return "".join([*lines, text(middle, frame.height - 3, "generation", "axis", "middle")])


def _goal(frame: Frame, goal: float) -> str:
    y = frame.y(goal)
    return f'<line class="goal" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _beyond(frame: Frame, bound: Bound) -> str:
    """Tint what is past the bound."""
    y = frame.y(bound.value)
    end = frame.y(frame.low if bound.falls else frame.high)
    top, high = min(y, end), abs(end - y)
    right = WIDTH - _RIGHT
    said = f"{'below' if bound.falls else 'above'} {number(bound.value)}: collapse"
    return (
        f'<rect class="beyond" x="{_LEFT}" y="{top:.1f}" width="{right - _LEFT}" '
        f'height="{high:.1f}"/>'
        f'<line class="bound" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        + text(_LEFT + 4, y - 5 if bound.falls else y + 14, said, "bound-name")
    )


def _line(frame: Frame, series: Series, index: int, offset: float, marks: Mapping[int, str]) -> str:
    places = [(frame.x(p.generation) + offset, frame.y(p.value), p) for p in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    out = [f'<g class="s{index % COLOURS}">', f'<polyline class="line" points="{path}"/>']
    for x, y, p in places:
        if p.low is not None and p.high is not None:
            out.append(
                f'<path class="interval" d="M{x:.1f} {frame.y(p.low):.1f}V{frame.y(p.high):.1f}'
                f'M{x - 4:.1f} {frame.y(p.low):.1f}h8M{x - 4:.1f} {frame.y(p.high):.1f}h8"/>'
            )
        out.append(_mark(x, y, marks.get(p.generation, ""), _point_words(series.name, p)))
        if index == 0 and len(places) <= _VALUES_MOST:
            out.append(text(x, y - 13, f"{p.value:.3f}", "value", "middle"))
    return "".join([*out, "</g>"])


def _mark(x: float, y: float, kind: str, said: str) -> str:
    drawn = (
        f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
        f"<title>{escape(said)}</title></circle>"
    )
    if kind == "crossed":
        drawn += f'<path class="cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    return drawn


def _best(frame: Frame, series: Sequence[Series], best: int | None) -> str:
    offset = -(len(series) - 1) / 2 * _DODGE if _has_intervals(series) else 0.0
    for p in series[0].points:
        if p.generation == best:
            x, y = frame.x(p.generation) + offset, frame.y(p.value)
            ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
            return ring + text(x, y + 23, "best", "best-name", "middle")
    return ""


def _names(frame: Frame, series: Sequence[Series], goal: float | None) -> str:
    """Write each line's name at its end, moved apart where they would meet."""
    ends = [
        (frame.y(s.points[-1].value), short(s.name), f"name s{i % COLOURS}")
        for i, s in enumerate(series)
        if s.points and s.name
    ]
    if goal is not None:
        ends.append((frame.y(goal), f"goal {number(goal)}", "goal-name"))
    placed: list[float] = []
    for y, _, _ in sorted(ends):
        placed.append(max(y, placed[-1] + _LABEL_GAP) if placed else y)
    over = max(0.0, placed[-1] - (frame.height - _BOTTOM)) if placed else 0.0
    return "".join(
        text(WIDTH - _RIGHT + 10, y - over + 4, name, kind)
        for y, (_, name, kind) in zip(placed, sorted(ends), strict=True)
    )


def _point_words(name: str, p: Point) -> str:
    known = p.low is not None and p.high is not None
    interval = f" (95 % interval {p.low:.3f} to {p.high:.3f})" if known else ""
    return f"{name}{', ' if name else ''}generation {p.generation}: {p.value:.4f}{interval}"


def _in_words(
    series: Sequence[Series], goal: float | None, bound: Bound | None, best: int | None
) -> str:
    lines = [
        f"{s.name}: " + ", ".join(f"{p.value:.3f} at generation {p.generation}" for p in s.points)
        for s in series
    ]
    if best is not None:
        lines.append(f"Best: generation {best}")
    if goal is not None:
        lines.append(f"Goal {goal}")
    if bound is not None:
        lines.append(f"Collapse {'below' if bound.falls else 'above'} {bound.value:g}")
    return ". ".join(lines) + "."
