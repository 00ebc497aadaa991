"""The commands that use a model. Each starts a program of the jobs' package."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from selfemo_operator.cli.job_program import PASS_THROUGH, run_program

_PROGRAM = "selfemo_jobs.use_commands"

#: What each command does, by its name. Its options are those of the program.
USE_COMMANDS: Mapping[str, str] = {}


def add_use_commands(app: typer.Typer) -> None:
    """Add the commands to an application.

    Parameters
    ----------
    app
        The application.
    """
    for name, text in USE_COMMANDS.items():
        app.command(name, help=text, context_settings=PASS_THROUGH)(_command(name))


def _command(name: str) -> object:
    def command(context: typer.Context) -> None:
        run_program(_PROGRAM, [name, *context.args])

    return command
