"""The page's charts as inline SVG, drawn here: no script, nothing loaded.

Colours are CSS classes, so that one drawing serves light and dark; every chart has a title and a
description in words for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from selfemo_jobs.report.types import Point, Series

_WIDTH, _HEIGHT = 600, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 118, 18, 40
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

    def x(self, generation: float) -> float:
        """Return the horizontal place of a generation; a single one stands in the middle."""
        width = _WIDTH - _LEFT - _RIGHT
        if self.first == self.last:
            return _LEFT + width / 2
        inner = width - 32
        return _LEFT + 16 + inner * (generation - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that enclose both: steps of 1, 2 or 5 times a power of 10.

    Examples
    --------
    >>> ticks(0.42, 0.58)
    [0.4, 0.45, 0.5, 0.55, 0.6]
    """
    if not high > low:
        high = low + (abs(low) * 0.1 or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(start, stop + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    goal: float | None = None,
    hollow: Collection[int] = (),
    within: tuple[float, float] | None = None,
) -> Markup:
    """Return a line chart over the generations, with 95 % intervals where the points have them.

    Parameters
    ----------
    series
        Up to six lines; the first is drawn strongest and has its values written out.
    title
        What it shows.
    goal
        Value of the dashed goal line.
    hollow
        Generations drawn as hollow marks (not kept).
    within
        Values that the axis reaches at least. Unset: only as far as the data.
    """
    points = [p for s in series for p in s.points]
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    values += [*_some(goal), *(within or ())]
    marks = ticks(min(values), max(values))
    generations = [p.generation for p in points]
    frame = Frame(min(generations), max(generations), marks[0], marks[-1])
    body = [_axes(frame, marks)]
    if goal is not None:
        body.append(_goal(frame, goal))
    for index in reversed(range(len(series))):  # the first on top
        offset = (index - (len(series) - 1) / 2) * _DODGE if _has_intervals(series) else 0.0
        body.append(_line(frame, series[index], index, offset, hollow))
    body.append(_names(frame, series))
    return _svg(title, _in_words(series, goal), body, _WIDTH, _HEIGHT)


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str) -> Markup:
    """Return bars of counts between edges (one more edge than counts)."""
    width, height, left, bottom, top = 600, 200, 48, 34, 10
    most = max([*counts, 1])
    marks = ticks(0, most, 4)
    span = (edges[-1] - edges[0]) or 1.0

    def x(value: float) -> float:
        return left + (width - left - 12) * (value - edges[0]) / span

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / marks[-1]

    body = [_tick_line(left, width - 12, y(m), number(m)) for m in marks]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        wide = max(x(high) - x(low) - 1.5, 0.5)
        body.append(
            f'<rect class="bar-s0" x="{x(low):.1f}" y="{y(count):.1f}" width="{wide:.1f}" '
            f'height="{y(0) - y(count):.1f}">'
            f"<title>{number(low)} to {number(high)}: {count}</title></rect>"
        )
    body += [
        f'<text class="tick" x="{x(m):.1f}" y="{height - 12}" text-anchor="middle">'
        f"{number(m)}</text>"
        for m in ticks(edges[0], edges[-1], 8)
        if edges[0] <= m <= edges[-1]
    ]
    words = f"{sum(counts)} values from {number(edges[0])} to {number(edges[-1])}."
    return _svg(title, words, body, width, height)


def number(value: float) -> str:
    """Return a number as a person writes it: thousands apart, four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u2009")
    return f"{value:.4g}"


def _some(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _has_intervals(series: Sequence[Series]) -> bool:
    return len(series) > 1 and any(p.low is not None for s in series for p in s.points)


def _axes(frame: Frame, marks: Sequence[float]) -> str:
    lines = [_tick_line(_LEFT, _WIDTH - _RIGHT, frame.y(m), number(m)) for m in marks]
    every = max(1, math.ceil((frame.last - frame.first + 1) / 12))
    lines += [
        f'<text class="tick" x="{frame.x(g):.1f}" y="{_HEIGHT - _BOTTOM + 20}" '
        f'text-anchor="middle">{g}</text>'
        for g in range(frame.first, frame.last + 1, every)
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    lines.append(
        f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">'
        "generation</text>"
    )
    return "".join(lines)


def _tick_line(left: float, right: float, y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _goal(frame: Frame, goal: float) -> str:
    y = frame.y(goal)
    return (
        f'<line class="goal" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="goal-name" x="{_LEFT + 4}" y="{y - 5:.1f}">goal {number(goal)}</text>'
    )


def _line(frame: Frame, series: Series, index: int, offset: float, hollow: Collection[int]) -> str:
    places = [(frame.x(p.generation) + offset, frame.y(p.value), p) for p in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    last = series.points[-1]
    out = [f'<g class="s{index % 6}">', f'<polyline class="line" points="{path}"/>']
    for x, y, p in places:
        if p.low is not None and p.high is not None:
            out.append(
                f'<path class="interval" d="M{x:.1f} {frame.y(p.low):.1f}V{frame.y(p.high):.1f}'
                f'M{x - 4:.1f} {frame.y(p.low):.1f}h8M{x - 4:.1f} {frame.y(p.high):.1f}h8"/>'
            )
        kind = "mark hollow" if p.generation in hollow else "mark"
        out.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(_point_words(series.name, p))}</title></circle>"
        )
        if index == 0 and len(places) <= _VALUES_MOST:
            # the last leaves room for the line's name
            aside = (
                f'x="{x - 7:.1f}" text-anchor="end"'
                if len(places) > 1 and p is last
                else (f'x="{x + 8:.1f}"')
            )
            out.append(f'<text class="value" {aside} y="{y - 9:.1f}">{p.value:.3f}</text>')
    return "".join([*out, "</g>"])


def _names(frame: Frame, series: Sequence[Series]) -> str:
    """Write each line's name at its end, moved apart where they would meet."""
    ends = sorted((frame.y(s.points[-1].value), i) for i, s in enumerate(series) if s.points)
    placed: list[tuple[float, int]] = []
    for y, index in ends:
        lowest = placed[-1][0] + _LABEL_GAP if placed else y
        placed.append((max(y, lowest), index))
    over = max(0.0, placed[-1][0] - (_HEIGHT - _BOTTOM)) if placed else 0.0
    return "".join(
        f'<text class="name s{i % 6}" x="{_WIDTH - _RIGHT + 10}" y="{y - over + 4:.1f}">'
        f"{escape(_short(series[i].name))}</text>"
        for y, i in placed
    )


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _point_words(name: str, p: Point) -> str:
    interval = f" (95 % interval {p.low:.3f} to {p.high:.3f})" if p.low and p.high else ""
    return f"{name}, generation {p.generation}: {p.value:.4f}{interval}"


def _in_words(series: Sequence[Series], goal: float | None) -> str:
    lines = [
        f"{s.name}: " + ", ".join(f"{p.value:.3f} at generation {p.generation}" for p in s.points)
        for s in series
    ]
    return ". ".join([*lines, *([f"Goal {goal}"] if goal is not None else [])]) + "."


def _svg(title: str, words: str, body: Sequence[str], width: int, height: int) -> Markup:
    # every text that is not ours went through escape
    return Markup(  # noqa: S704
        f'<svg role="img" viewBox="0 0 {width} {height}"><title>{escape(title)}</title>'
        f"<desc>{escape(words)}</desc>{''.join(body)}</svg>"
    )
