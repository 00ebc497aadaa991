"""Text that may be printed to a terminal: control characters are made visible."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

#: Control characters, line and paragraph separators, and signs that change the direction of text.
#: Printed as they are, they could move the cursor, change colors, or hide what a line contains.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Return a text in which control characters are written as escapes.

    Parameters
    ----------
    text
        Any text, for example one of a file.

    Examples
    --------
    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON without control characters, also where JSON allows them.

    Parameters
    ----------
    value
        The value.
    indent
        The number of blanks of each level. None: everything is in one line.

    Examples
    --------
    >>> json_text({"text": "Zoë \x9b31m"})
    '{"text": "Zoë \\u009b31m"}'
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return re.sub(
        "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]",
        lambda match: f"\\u{ord(match[0]):04x}",
        text,
    )


def pad(text: str, cells: int) -> str:
    """Return a text that fills so many cells of a terminal, or more if it is longer.

    Parameters
    ----------
    text
        The text, without control characters.
    cells
        The number of cells. Chinese characters and many emoji take two.
    """
    return text + " " * max(0, cells - cell_len(text))


def cut(text: str, cells: int) -> str:
    """Return a text that fills at most so many cells of a terminal.

    Parameters
    ----------
    text
        The text, without control characters.
    cells
        The largest number of cells, at least 1.

    Examples
    --------
    >>> cut("surprised", 6)
    'surpr…'
    """
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, in which the cells of a column begin at the same place.

    Parameters
    ----------
    rows
        The rows, each with the same number of cells, without control characters.

    Examples
    --------
    >>> aligned([["label", "p"], ["joy", "0.9"]])
    ['label  p', 'joy    0.9']
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]
