"""Text in the cells of a terminal, of which some characters take two."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size


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
