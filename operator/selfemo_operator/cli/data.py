"""``selfemo data``: checks and converts dialogues. It starts a program of the jobs' package."""

from __future__ import annotations

import typer

from selfemo_operator.cli.job_program import PASS_THROUGH, run_program

app = typer.Typer(
    help="Check or convert dialogues.",
    no_args_is_help=True,
)

_PROGRAM = "selfemo_jobs.data_commands"


@app.command("check", context_settings=PASS_THROUGH)
def check(context: typer.Context) -> None:
    """Print figures of dialogues, and what is wrong with them.

    The sources are files, folders, patterns or URIs, or the YAML file of one evolution. The report
    has the counts of dialogues, turns and labels, the lengths, odd characters, dialogues that are
    repeated, and dialogues that two sources share.
    """
    run_program(_PROGRAM, ["check", *context.args])


@app.command("convert", context_settings=PASS_THROUGH)
def convert(context: typer.Context) -> None:
    """Write the dialogues of any readable format as JSON Lines."""
    run_program(_PROGRAM, ["convert", *context.args])
