"""The console of all commands, and the exit code of an evolution."""

from __future__ import annotations

from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType, Phase, Reason

#: Columns of the output where it is not a terminal: wide enough for the table of generations.
WIDTH = 120


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error.

    Parameters
    ----------
    stderr
        Write to standard error. Otherwise the console writes to standard output.
    """
    terminal = Console(stderr=stderr)
    return terminal if terminal.is_terminal else Console(stderr=stderr, width=WIDTH)


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
