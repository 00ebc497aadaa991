"""The elements of all charts: the SVG element, text, boxes, grid lines, and numbers."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

from markupsafe import Markup, escape

#: The width of each chart, in units of the drawing.
WIDTH = 600
#: The number of colors in the style sheet. Further series start again with the first color.
COLORS = 8


def svg(title: str, description: str, body: Sequence[str], height: float) -> Markup:
    """Return a chart as an SVG element.

    Parameters
    ----------
    title
        The name of the chart. It is escaped.
    description
        The content of the chart in words. It is escaped.
    body
        The elements of the chart. The texts in them must be escaped already.
    height
        The height of the chart, in units of the drawing.
    """
    return Markup(  # noqa: S704 - the functions below escape all texts of the body
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:g}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def text(x: float, y: float, content: str, css_class: str, anchor: str = "start") -> str:
    """Return a text element.

    Parameters
    ----------
    x, y
        The position of the text's baseline, in units of the drawing.
    content
        The text. It is escaped.
    css_class
        The classes of the element.
    anchor
        The part of the text that is at ``x``: ``start``, ``middle`` or ``end``.

    Examples
    --------
    >>> text(1, 2, "<joy>", "row")
    '<text class="row" x="1.0" y="2.0" text-anchor="start">&lt;joy&gt;</text>'
    """
    return (
        f'<text class="{css_class}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def box(x: float, y: float, width: float, height: float, css_class: str, tooltip: str = "") -> str:
    """Return a rectangle.

    Parameters
    ----------
    x, y
        The upper left corner, in units of the drawing.
    width, height
        The size, in units of the drawing. A negative size becomes 0.
    css_class
        The classes of the element.
    tooltip
        The text that the pointer shows. It is escaped.
    """
    return (
        f'<rect class="{css_class}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" '
        f'height="{max(height, 0.0):.1f}"><title>{escape(tooltip)}</title></rect>'
    )


def grid_line(left: float, right: float, y: float, label: str) -> str:
    """Return a horizontal line with a label to its left.

    Parameters
    ----------
    left, right
        The ends of the line, in units of the drawing.
    y
        The height of the line, in units of the drawing.
    label
        The text, usually a number. It is escaped.
    """
    line = f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + text(left - 8, y + 4, label, "tick", "end")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that enclose two values, in steps of 1, 2 or 5 times a power of 10.

    Parameters
    ----------
    low, high
        The values to enclose.
    count
        The number of steps that is aimed at.

    Examples
    --------
    >>> ticks(0.42, 0.58)
    [0.4, 0.45, 0.5, 0.55, 0.6]
    """
    if not high - low > 1e-9 * max(1.0, abs(low)):  # a smaller step is not visible
        high = low + (abs(low) * 0.1 or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(start, stop + 1)]


def format_number(value: float) -> str:
    """Return a number as text: four significant digits, or an integer with separated thousands.

    Parameters
    ----------
    value
        The number.

    Examples
    --------
    >>> format_number(0.12345)
    '0.1235'
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u2009")
    return f"{value:.4g}"


def truncate(name: str, length: int = 16) -> str:
    """Return a name that is cut to a length, with an ellipsis at the cut.

    Parameters
    ----------
    name
        The name.
    length
        The most characters of the result. Wide ones, as of Chinese, count twice.

    Examples
    --------
    >>> truncate("a long name", 6)
    'a lon…'
    >>> truncate("非常开心", 6)
    '非常…'
    """
    widths = [1 + (unicodedata.east_asian_width(character) in "WF") for character in name]
    if sum(widths) <= length:
        return name
    ends = list(accumulate(widths))
    return name[: sum(end <= length - 1 for end in ends)] + "…"
