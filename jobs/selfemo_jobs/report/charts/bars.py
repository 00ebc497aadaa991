"""Bars: parts of a whole by generation, columns by generation, and one figure then and now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from markupsafe import Markup, escape

from selfemo_jobs.report.charts.svg import (
    COLOURS,
    WIDTH,
    box,
    level,
    number,
    short,
    svg,
    text,
    ticks,
)
from selfemo_jobs.report.types import Change, Point, Stack

_NAME, _TOTAL, _ROW = 104, 92, 34


def stacked(
    stacks: Sequence[Stack],
    parts: Sequence[str],
    *,
    title: str,
    say: Callable[[float], str] = number,
    note: Callable[[Stack], str] | None = None,
) -> Markup:
    """Return one bar for each stack, its parts in the colors of their places in `parts`.

    Parameters
    ----------
    stacks
        From top to bottom. All bars share one scale.
    parts
        The names of all parts, in the order of the legend.
    say
        How a value is written.
    note
        What stands to the right of a bar. Unset: its total.
    """
    most = max((sum(s.values.values()) for s in stacks), default=0.0) or 1.0
    room = WIDTH - _NAME - _TOTAL
    body = []
    for row, stack in enumerate(stacks):
        y = 6 + _ROW * row
        body.append(text(_NAME - 10, y + 17, short(stack.name, 15), "row", "end"))
        here = [p for p in parts if stack.values.get(p)]
        widths = [stack.values[p] / most * room for p in here]
        for part, width, end in zip(here, widths, accumulate(widths), strict=True):
            said = f"{stack.name}, {part}: {say(stack.values[part])}"
            kind = f"part c{parts.index(part) % COLOURS}"
            # a hair of the card between two parts; the thinnest is still seen
            body.append(box(_NAME + end - width, y, max(width - 1, 0.8), _ROW - 10, kind, said))
        total = sum(stack.values.values())
        after = _NAME + total / most * room + 8
        body.append(text(after, y + 17, note(stack) if note else say(total), "tick"))
    words = ". ".join(
        f"{s.name}: " + ", ".join(f"{p} {say(s.values[p])}" for p in parts if p in s.values)
        for s in stacks
    )
    return svg(title, words + ".", body, 12 + _ROW * len(stacks))


def columns(points: Sequence[Point], *, title: str, height: float = 150) -> Markup:
    """Return a column for each generation, its value written above."""
    left, bottom, top = 60, 40, 22
    levels = ticks(0.0, max((p.value for p in points), default=0.0), 3)
    step = (WIDTH - left - 12) / max(len(points), 1)
    wide = min(step * 0.6, 72.0)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / levels[-1]

    body = [level(left, WIDTH - 12, y(v), number(v)) for v in levels]
    for index, p in enumerate(points):
        middle = left + step * (index + 0.5)
        said = f"generation {p.generation}: {number(p.value)}"
        body += [
            box(middle - wide / 2, y(p.value), wide, y(0) - y(p.value), "part c0", said),
            text(middle, height - bottom + 20, str(p.generation), "tick", "middle"),
            text(middle, y(p.value) - 5, number(p.value), "value", "middle"),
        ]
    body.append(text((left + WIDTH - 12) / 2, height - 3, "generation", "axis", "middle"))
    words = ", ".join(f"{number(p.value)} in generation {p.generation}" for p in points)
    return svg(title, words + ".", body, height)


def changes(rows: Sequence[Change], *, title: str, first: str, last: str) -> Markup:
    """Return a line from one value to another for each row, on a scale from 0 to 1.

    Parameters
    ----------
    rows
        From top to bottom.
    first, last
        What the hollow and the filled mark mean.
    """
    top, gap, aside = 26, 28, 128
    room = WIDTH - _NAME - aside
    height = top + gap * len(rows) + 24

    def x(value: float) -> float:
        return _NAME + room * value

    body = [
        f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 8}" y2="{height - 22}"/>'
        + text(x(v), height - 7, number(v), "tick", "middle")
        for v in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    body.append(_legend(first, last))
    for index, row in enumerate(rows):
        y = top + gap * (index + 0.5)
        kind = "rise" if row.after >= row.before else "fall"
        said = f"{row.name}: {row.before:.3f} to {row.after:.3f}"
        body += [
            text(_NAME - 10, y + 4, short(row.name, 14), "row", "end"),
            f'<line class="change {kind}" x1="{x(row.before):.1f}" x2="{x(row.after):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<circle class="mark hollow s0" cx="{x(row.before):.1f}" cy="{y:.1f}" r="4.5"/>',
            f'<circle class="mark s0" cx="{x(row.after):.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(said)}</title></circle>",
            text(
                WIDTH - aside + 18,
                y + 4,
                f"{row.after:.3f} ({row.after - row.before:+.3f})",
                "tick",
            ),
        ]
    words = ". ".join(f"{r.name}: {r.before:.3f}, then {r.after:.3f}" for r in rows)
    return svg(title, words + ".", body, height)


def _legend(first: str, last: str) -> str:
    return (
        f'<circle class="mark hollow s0" cx="{_NAME + 5}" cy="9" r="4.5"/>'
        + text(_NAME + 16, 13, first, "tick")
        + f'<circle class="mark s0" cx="{_NAME + 205}" cy="9" r="4.5"/>'
        + text(_NAME + 216, 13, last, "tick")
    )
