"""Texts of users in Markdown: shown literally, whatever they contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    r"""Return a text as a code span, which Markdown and HTML leave as it is.

    Parameters
    ----------
    text
        The text. Line breaks and other control characters become blanks.

    Examples
    --------
    >>> code("joy")
    '`joy`'
    >>> code("<b>`*`</b>")
    '``<b>`*`</b>``'
    """
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()
    if not line:
        return ""
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Return lines as a code block, whose fence is longer than any in the lines.

    Parameters
    ----------
    text
        The lines.
    language
        The language of the lines, for example ``python``.
    """
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a table. Its cells are Markdown; bars in them are escaped.

    Parameters
    ----------
    head
        The headings of the columns.
    rows
        The rows, each with a cell for each column.

    Examples
    --------
    >>> print(table(["label", "F1"], [["`a|b`", "0.5"]]))
    | label | F1 |
    | --- | --- |
    | `a\|b` | 0.5 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def _longest_run(text: str) -> int:
    """Return the length of the longest run of back-quotes."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
