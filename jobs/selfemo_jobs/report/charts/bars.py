"""Bar charts: stacked bars, a column for each generation, and values before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from markupsafe import Markup, escape

from selfemo_jobs.report.charts.svg import (
    COLORS,
    WIDTH,
    box,
    format_number,
    grid_line,
    svg,
    text,
    ticks,
    truncate,
)
from selfemo_jobs.report.types import Change, Point, Stack

#: Units of the drawing: the names to the left, the totals to the right, the height of a row.
_NAME, _TOTAL, _ROW = 104, 92, 34
#: The width of a character of a legend.
_CHARACTER = 7


def stacked_bars(
    stacks: Sequence[Stack],
    parts: Sequence[str],
    *,
    title: str,
    format_value: Callable[[float], str] = format_number,
    note: Callable[[Stack], str] | None = None,
) -> Markup:
    """Return a chart with one bar for each stack. All bars have the same scale.

    Parameters
    ----------
    stacks
        The bars, from top to bottom.
    parts
        The names of all parts. The order determines their colors.
    title
        The name of the chart.
    format_value
        Returns a value as text.
    note
        Returns the text to the right of a bar. None: the total of the bar.
    """
    longest = max((sum(s.values.values()) for s in stacks), default=0.0) or 1.0
    scale = WIDTH - _NAME - _TOTAL
    body = []
    for row, stack in enumerate(stacks):
        y = 6 + _ROW * row
        body.append(text(_NAME - 10, y + 17, truncate(stack.name, 15), "row", "end"))
        present = [p for p in parts if stack.values.get(p)]
        widths = [stack.values[p] / longest * scale for p in present]
        for part, width, end in zip(present, widths, accumulate(widths), strict=True):
            tooltip = f"{stack.name}, {part}: {format_value(stack.values[part])}"
            css_class = f"part c{parts.index(part) % COLORS}"
            # A narrow gap separates two parts, and the narrowest part stays visible.
            left, visible = _NAME + end - width, max(width - 1, 0.8)
            body.append(box(left, y, visible, _ROW - 10, css_class, tooltip))
        total = sum(stack.values.values())
        after = _NAME + total / longest * scale + 8
        body.append(text(after, y + 17, note(stack) if note else format_value(total), "tick"))
    description = ". ".join(
        f"{s.name}: "
        + ", ".join(f"{p} {format_value(s.values[p])}" for p in parts if p in s.values)
        for s in stacks
    )
    return svg(title, description + ".", body, 12 + _ROW * len(stacks))


def column_chart(points: Sequence[Point], *, title: str, height: float = 150) -> Markup:
    """Return a chart with a column for each generation, below its value.

    Parameters
    ----------
    points
        The values in the order of the generations.
    title
        The name of the chart.
    height
        The height of the chart, in units of the drawing.
    """
    left, bottom, top = 60, 40, 22
    levels = ticks(0.0, max((p.value for p in points), default=0.0), 3)
    step = (WIDTH - left - 12) / max(len(points), 1)
    width = min(step * 0.6, 72.0)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / levels[-1]

    body = [grid_line(left, WIDTH - 12, y(v), format_number(v)) for v in levels]
    for index, p in enumerate(points):
        middle = left + step * (index + 0.5)
        value = format_number(p.value)
        tooltip = f"generation {p.generation}: {value}"
        body += [
            box(middle - width / 2, y(p.value), width, y(0) - y(p.value), "part c0", tooltip),
            text(middle, height - bottom + 20, str(p.generation), "tick", "middle"),
            text(middle, y(p.value) - 5, value, "value", "middle"),
        ]
    body.append(text((left + WIDTH - 12) / 2, height - 3, "generation", "axis", "middle"))
    description = ", ".join(
        f"{format_number(p.value)} in generation {p.generation}" for p in points
    )
    return svg(title, description + ".", body, height)


def dumbbell_chart(rows: Sequence[Change], *, title: str, first: str, last: str) -> Markup:
    """Return a dumbbell chart: a line between two marks for each row, on a scale from 0 to 1.

    Parameters
    ----------
    rows
        The rows, from top to bottom.
    title
        The name of the chart.
    first, last
        The legend of the hollow mark (before) and of the filled mark (after).
    """
    top, gap, aside = 26, 28, 128
    scale = WIDTH - _NAME - aside
    height = top + gap * len(rows) + 24

    def x(value: float) -> float:
        return _NAME + scale * value

    body = [
        f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 8}" y2="{height - 22}"/>'
        + text(x(v), height - 7, format_number(v), "tick", "middle")
        for v in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    body.append(_legend(first, last))
    for index, row in enumerate(rows):
        y = top + gap * (index + 0.5)
        css_class = "rise" if row.after >= row.before else "fall"
        tooltip = f"{row.name}: {row.before:.3f} to {row.after:.3f}"
        body += [
            text(_NAME - 10, y + 4, truncate(row.name, 14), "row", "end"),
            f'<line class="change {css_class}" x1="{x(row.before):.1f}" x2="{x(row.after):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<circle class="mark hollow s0" cx="{x(row.before):.1f}" cy="{y:.1f}" r="4.5"/>',
            f'<circle class="mark s0" cx="{x(row.after):.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(tooltip)}</title></circle>",
            text(
                WIDTH - aside + 18,
                y + 4,
                f"{row.after:.3f} ({row.after - row.before:+.3f})",
                "tick",
            ),
        ]
    description = ". ".join(f"{r.name}: {r.before:.3f}, then {r.after:.3f}" for r in rows)
    return svg(title, description + ".", body, height)


def _legend(first: str, last: str) -> str:
    """Return the legend of the hollow and the filled mark, as close as the first name allows."""
    second = _NAME + 16 + _CHARACTER * len(first) + 24
    return (
        f'<circle class="mark hollow s0" cx="{_NAME + 5}" cy="9" r="4.5"/>'
        + text(_NAME + 16, 13, first, "tick")
        + f'<circle class="mark s0" cx="{second}" cy="9" r="4.5"/>'
        + text(second + 11, 13, last, "tick")
    )
