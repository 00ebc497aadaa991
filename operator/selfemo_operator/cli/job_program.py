"""Starts a program of the jobs' package in a process of its own: it needs their libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import typer

#: The settings of a command whose program parses all options itself, ``--help`` included.
PASS_THROUGH: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


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
    # the progress bars of libraries are switched off
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    program = [sys.executable, "-m", module, *arguments]
    raise typer.Exit(subprocess.run(program, env=environment, check=False).returncode)
