"""The console of all commands, and the exit code of an evolution."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType, Phase, Reason
from selfemo_api.text.control_characters import printable_lines
from selfemo_operator.cli.session import SESSION

#: Columns of the output where it is not a terminal: wide enough for the table of generations.
WIDTH = 120


class PlainConsole(Console):
    """A console for text from outside: it has no markup, and control characters are replaced.

    Parameters
    ----------
    options
        The options of :class:`rich.console.Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of an object. Only rich's own segments control the terminal."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def console(*, stderr: bool = False) -> PlainConsole:
    """Return a console for standard output or standard error. With ``--quiet``, the latter is mute.

    Parameters
    ----------
    stderr
        Write to standard error, for progress and notes. Otherwise the console writes results to
        standard output.
    """
    quiet = stderr and SESSION.quiet
    terminal = PlainConsole(stderr=stderr, quiet=quiet)
    if terminal.is_terminal:
        return terminal
    return PlainConsole(stderr=stderr, width=WIDTH, quiet=quiet)


def print_line(text: str, *, stderr: bool = False) -> None:
    """Print a line. A long path in it is never broken, and control characters are replaced.

    Parameters
    ----------
    text
        The line. Line breaks in it stay.
    stderr
        Write to standard error, and nothing with ``--quiet``.
    """
    if stderr and SESSION.quiet:
        return
    file = sys.stderr if stderr else sys.stdout
    file.write(f"{printable_lines(text)}\n")
    file.flush()


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines with aligned columns, which are never broken. The last one is not padded.

    Parameters
    ----------
    rows
        The cells of each row. All rows have the same number of cells.

    Examples
    --------
    >>> list(columns([("NAME", "PHASE"), ("demo", "Running")]))
    ['NAME  PHASE', 'demo  Running']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def exit_code(evolution: EmotionEvolution) -> ExitCode:
    """Return the exit code for an evolution's state; an evolution that still runs counts as OK.

    Parameters
    ----------
    evolution
        The evolution with its status.
    """
    status = evolution.status
    if not status.finished or status.phase is Phase.SUCCEEDED:
        return ExitCode.OK
    condition = status.condition(ConditionType.SUCCEEDED)
    if condition is not None and condition.reason == Reason.BAD_INPUT:
        return ExitCode.BAD_INPUT
    return ExitCode.INTERNAL
