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
from selfemo_operator.cli import check, model, output_format, run, watch
from selfemo_operator.cli import data as data_cli
from selfemo_operator.cli.exit_codes import exit_codes_help
from selfemo_operator.cli.report import write_report
from selfemo_operator.cli.resolved import print_resolved
from selfemo_operator.cli.run_options import read_request
from selfemo_operator.cli.use import add_use_commands
from selfemo_operator.local.state import RunnerError

app = typer.Typer(
    name="selfemo",
    help="Improve a language model that recognizes emotion in conversation, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(data_cli.app, name="data")
app.add_typer(model.app, name="model")

#: Seconds between two reads of a state folder: as often as the runner looks at its stages, so that
#: the last step of a short training is shown too.
WATCH_SECONDS = 0.2


class Output(StrEnum):
    """The format of results."""

    TABLE = "table"
    JSON = "json"


File = Annotated[
    Path, typer.Argument(help="The YAML file of an EmotionEvolution.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Replace a field below spec with a YAML value. Can be repeated.",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="NAME=FOLDER", help="The folder of data://NAME/…. Can be repeated."
    ),
]
State = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="SELFEMO_STATE",
        help="The folder in which the runner stores its state.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="The format of the result.")]


@app.command("run", epilog=exit_codes_help("selfemo run"))
def run_command(
    file: File,
    data: Data = None,
    changes: Set = None,
    state: State = Path(".selfemo"),
    output: OutputOption = Output.TABLE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the input, print the plan and exit.")
    ] = False,
) -> None:
    """Run a whole evolution on this machine.

    After any interruption, the same command continues the run.
    """
    request = read_request(file, changes or [], data or [], state)
    code = run.run(request, as_json=output is Output.JSON, dry_run=dry_run)
    raise typer.Exit(code)


@app.command("check", epilog=exit_codes_help("selfemo check"))
def check_command(
    file: File,
    data: Data = None,
    changes: Set = None,
    state: State = Path(".selfemo"),
    output: OutputOption = Output.TABLE,
) -> None:
    """Find all problems of a run's input at once: its data, model, storage and machine.

    No run is started and no weights are downloaded. `selfemo run` does the same as its first step.
    """
    request = read_request(file, changes or [], data or [], state)
    raise typer.Exit(check.check(request, as_json=output is Output.JSON))


@app.command("watch", epilog=exit_codes_help("selfemo watch"))
def watch_command(
    file: File,
    state: State = Path(".selfemo"),
    once: Annotated[bool, typer.Option("--once", help="Print the present state and exit.")] = False,
) -> None:
    """Follow an evolution that `selfemo run` runs on this machine, until it ends.

    Where the output is not a terminal, each change is printed as one line.
    """
    request = read_request(file, [], [], state)
    source = watch.LocalSource(request.state, file)
    console = output_format.console()
    raise typer.Exit(watch.follow(source, console, once=once, poll_seconds=WATCH_SECONDS))


@app.command("validate", epilog=exit_codes_help("selfemo validate"))
def validate_command(
    file: File,
    changes: Set = None,
    output: OutputOption = Output.TABLE,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve", help="Print the spec with its recipe, and what differs from the recipe."
        ),
    ] = False,
) -> None:
    """Check a file with the same rules as the API server."""
    request = read_request(file, changes or [], [], Path(".selfemo"))
    if resolve:
        print_resolved(request.evolution.spec, as_json=output is Output.JSON)
    elif output is Output.JSON:
        sys.stdout.write(request.evolution.model_dump_json(by_alias=True, exclude_none=True) + "\n")
    else:
        Console().print(f"{file} is valid")


@app.command("report", epilog=exit_codes_help("selfemo report"))
def report_command(
    file: File,
    changes: Set = None,
    state: State = Path(".selfemo"),
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The HTML file to write. Default: in the state folder."),
    ] = None,
) -> None:
    """Write the report of a run: one HTML page with all its results."""
    request = read_request(file, changes or [], [], state)
    Console().print(str(write_report(request, to)))


add_use_commands(app)


def main() -> None:
    """Run the command. An error that the user can act on is one line, with an exit code."""
    try:
        app()
    except InvalidEvolution as error:
        _exit(str(error), ExitCode.BAD_INPUT)
    except RunnerError as error:
        _exit(str(error), error.exit_code)


def _exit(message: str, code: int) -> None:
    """Print an error and exit with a code."""
    sys.stderr.write(f"selfemo: {message}\n")
    sys.exit(code)
