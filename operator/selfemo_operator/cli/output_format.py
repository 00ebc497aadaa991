"""What the commands have in common at their ends: where they write, and their exit codes."""

from __future__ import annotations

from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType, Phase, Reason


def console(*, stderr: bool = False) -> Console:
    """Return a console wide enough for the table where the output is no terminal."""
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=120)


def exit_code(evolution: EmotionEvolution) -> ExitCode:
    """Return how an evolution ended; while it has not, all is well."""
    status = evolution.status
    if not status.finished or status.phase is Phase.SUCCEEDED:
        return ExitCode.OK
    condition = status.condition(ConditionType.SUCCEEDED)
    if condition is not None and condition.reason == Reason.BAD_INPUT:
        return ExitCode.BAD_INPUT
    return ExitCode.INTERNAL
