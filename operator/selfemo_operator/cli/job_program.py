"""Starts a program of the jobs' package in a process of its own: it needs their libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

#: The settings of a command whose program parses all options itself, ``--help`` included.
PASS_THROUGH: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


class PassThroughCommand(TyperCommand):
    """A command whose program parses all arguments, and gets them as they are, ``--`` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep all arguments in the context."""
        ctx.args = list(args)
        return []


def run_program(module: str, arguments: Sequence[str]) -> None:
    """Run a program with the arguments, and exit with its exit code.

    Parameters
    ----------
    module
        The module that is the program, for example ``selfemo_jobs.base_models``.
    arguments
        The arguments, without the name of the program.

    Raises
    ------
    typer.Exit
        Always, when the program has ended.
    """
    program = _program(module, arguments)
    raise typer.Exit(subprocess.run(program, env=_environment(), check=False).returncode)


def replace_by_program(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a program. So a signal to the command reaches a server.

    Parameters
    ----------
    module
        The module that is the program.
    arguments
        The arguments, without the name of the program.
    """
    os.execve(sys.executable, _program(module, arguments), _environment())  # noqa: S606 - no shell


def _program(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    """Return the environment of a program: the progress bars of libraries are switched off."""
    return {**os.environ, "TQDM_DISABLE": "1"}
