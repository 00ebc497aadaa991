"""The ``selfemo`` command."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_operator.cli import model, output_format, report, run, run_options, watch
from selfemo_operator.local.state import RunnerError

app = typer.Typer(
    name="selfemo",
    help="A language model that recognizes emotion in conversation improves itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(model.app, name="model")


#: How often a state folder is looked at; progress lines come about once a second.
LOOK_SECONDS = 0.5


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


File = Annotated[Path, typer.Argument(help="An EmotionEvolution in YAML.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a field below spec (YAML value)."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=FOLDER", help="Where data://NAME/… is. Repeatable."),
]
State = Annotated[
    Path, typer.Option("--state", envvar="SELFEMO_STATE", help="Where the runner keeps its state.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]


@app.command("run")
def run_command(
    file: File,
    data: Data = None,
    changes: Set = None,
    state: State = Path(".selfemo"),
    output: OutputOption = Output.TABLE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> None:
    """Run a whole evolution on this machine. The same command goes on after any interruption."""
    request = run_options.read(file, changes or [], data or [], state)
    code = run.run(request, as_json=output is Output.JSON, dry_run=dry_run)
    raise typer.Exit(code)


@app.command("watch")
def watch_command(
    file: File,
    state: State = Path(".selfemo"),
    once: Annotated[bool, typer.Option("--once", help="Show it once and stop.")] = False,
) -> None:
    """Follow an evolution that `selfemo run` runs here; the exit code says how it ended.

    0 well, 1 failed or collapsed, 2 bad input, 130 by Ctrl-C (the evolution goes on). Where the
    output is no terminal: a line for each change.
    """
    request = run_options.read(file, [], [], state)
    source = watch.LocalSource(request.state, file)
    console = output_format.console()
    raise typer.Exit(watch.follow(source, console, once=once, poll_seconds=LOOK_SECONDS))


@app.command("validate")
def validate_command(file: File, changes: Set = None, output: OutputOption = Output.TABLE) -> None:
    """Check a file as the API server would."""
    request = run_options.read(file, changes or [], [], Path(".selfemo"))
    if output is Output.JSON:
        sys.stdout.write(request.evolution.model_dump_json(by_alias=True, exclude_none=True) + "\n")
    else:
        Console().print(f"{file} is valid")


@app.command("report")
def report_command(
    file: File,
    changes: Set = None,
    state: State = Path(".selfemo"),
    to: Annotated[Path | None, typer.Option("--to", help="Where the page goes.")] = None,
) -> None:
    """Write the report: one HTML page with everything that a run has come to."""
    request = run_options.read(file, changes or [], [], state)
    Console().print(str(report.write(request, to)))


def main() -> None:
    """Run the command; errors that a person can act on are one line, with an exit code."""
    try:
        app()
    except InvalidEvolution as error:
        _stop(str(error), ExitCode.BAD_INPUT)
    except RunnerError as error:
        _stop(str(error), error.exit_code)


def _stop(message: str, code: int) -> None:
    sys.stderr.write(f"selfemo: {message}\n")
    sys.exit(code)
