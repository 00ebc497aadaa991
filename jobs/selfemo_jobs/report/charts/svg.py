"""What every chart is made of: the element itself, round numbers on an axis, marks and words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 600
#: Colors of series and of segments that the style sheet has; further ones start again.
COLOURS = 8


def svg(title: str, words: str, body: Sequence[str], height: float) -> Markup:
    """Return a chart; `body` is ours, its texts already escaped."""
    return Markup(  # noqa: S704 - every text that is not ours went through escape
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:g}"><title>{escape(title)}</title>'
        f"<desc>{escape(words)}</desc>{''.join(body)}</svg>"
    )


def text(x: float, y: float, said: str, kind: str, anchor: str = "start") -> str:
    """Return words at a place, escaped."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
    )


def box(x: float, y: float, width: float, height: float, kind: str, said: str = "") -> str:
    """Return a rectangle, with what it says to the pointer."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" '
        f'height="{max(height, 0.0):.1f}"><title>{escape(said)}</title></rect>'
    )


def level(left: float, right: float, y: float, said: str) -> str:
    """Return a line across with its number to the left."""
    return f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>' + text(
        left - 8, y + 4, said, "tick", "end"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that enclose both: steps of 1, 2 or 5 times a power of 10.

    Examples
    --------
    >>> ticks(0.42, 0.58)
    [0.4, 0.45, 0.5, 0.55, 0.6]
    """
    if not high - low > 1e-9 * max(1.0, abs(low)):  # nobody sees such a step
        high = low + (abs(low) * 0.1 or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(start, stop + 1)]


def number(value: float) -> str:
    """Return a number as a person writes it: thousands apart, four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u2009")
    return f"{value:.4g}"


def short(name: str, most: int = 16) -> str:
    """Return a name cut to what there is room for."""
    return name if len(name) <= most else name[: most - 1] + "…"
