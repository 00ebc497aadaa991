"""The ``selfemo`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from selfemo_api.stages import Stage
from selfemo_operator.cli import check, model, output_format, run, watch
from selfemo_operator.cli import data as data_cli
from selfemo_operator.cli.command import Quiet, Verbose, application, begin_command, command
from selfemo_operator.cli.entry_point import run_application
from selfemo_operator.cli.job_program import add_use_commands
from selfemo_operator.cli.parameters import (
    DEFAULT_STATE,
    Data,
    Files,
    Output,
    OutputOption,
    Set,
    State,
    Target,
    Version,
)
from selfemo_operator.cli.report import report_of
from selfemo_operator.cli.run_options import read_requests
from selfemo_operator.cli.runs.logs import Selection, print_logs
from selfemo_operator.cli.runs.run_list import list_runs, print_status
from selfemo_operator.cli.runs.stop import stop_run
from selfemo_operator.cli.runs.target import find_run
from selfemo_operator.cli.setup.commands import add_setup_commands
from selfemo_operator.cli.validate import validate

app = application(
    "selfemo",
    "Improve a language model that recognizes emotion in conversation, on this machine.",
)

#: Seconds between two reads of a state folder: as often as the runner looks at its stages, so that
#: the last step of a short training is shown too.
WATCH_SECONDS = 0.2
#: The sections of the help.
_EVOLUTION, _RUNS, _MODELS = "Evolutions", "Runs on this machine", "Models"


@app.callback()
def selfemo(
    version_flag: Version = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remember the options of the program, which hold for each of its commands."""
    del version_flag
    begin_command("selfemo", quiet=quiet, verbose=verbose)


@command(app, "run", _EVOLUTION)
def run_command(
    files: Files,
    data: Data = None,
    changes: Set = None,
    state: State = DEFAULT_STATE,
    output: OutputOption = Output.TABLE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the input, print the plan and exit.")
    ] = False,
) -> None:
    """Run complete evolutions on this machine, one after another.

    After any interruption, run the same command again to continue.
    """
    requests = read_requests(files, changes or [], data or [], state)
    code = run.run_all(requests, as_json=output is Output.JSON, dry_run=dry_run)
    raise typer.Exit(code)


@command(app, "check", _EVOLUTION)
def check_command(
    files: Files,
    data: Data = None,
    changes: Set = None,
    state: State = DEFAULT_STATE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Find all problems of a run's input before it starts.

    It checks the data, the model files, the storage and the machine. No run is started and no
    weights are downloaded. `selfemo run` does the same as its first step.
    """
    requests = read_requests(files, changes or [], data or [], state)
    raise typer.Exit(check.check_all(requests, as_json=output is Output.JSON))


@command(app, "validate", _EVOLUTION)
def validate_command(
    files: Files,
    changes: Set = None,
    output: OutputOption = Output.TABLE,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve",
            help="Print the spec with the recipe's values, and the differences from the recipe.",
        ),
    ] = False,
) -> None:
    """Check files with the same rules as the API server."""
    as_json = output is Output.JSON
    raise typer.Exit(validate(files, changes or [], as_json=as_json, resolve=resolve))


@command(app, "list", _RUNS)
def list_command(state: State = DEFAULT_STATE, output: OutputOption = Output.TABLE) -> None:
    """List the runs below the state folder."""
    list_runs(state, as_json=output is Output.JSON)


@command(app, "status", _RUNS)
def status_command(
    target: Target, state: State = DEFAULT_STATE, output: OutputOption = Output.TABLE
) -> None:
    """Print the state of one run."""
    print_status(target, state, as_json=output is Output.JSON)


@command(app, "watch", _RUNS)
def watch_command(
    target: Target,
    state: State = DEFAULT_STATE,
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
) -> None:
    """Follow a run until it ends.

    If the output is not a terminal, each change is printed as one line.
    """
    source = watch.LocalSource(find_run(target, state))
    console = output_format.console()
    raise typer.Exit(watch.follow(source, console, once=once, poll_seconds=WATCH_SECONDS))


@command(app, "logs", _RUNS)
def logs_command(
    target: Target,
    state: State = DEFAULT_STATE,
    stage: Annotated[
        Stage | None, typer.Option(help="Print only this stage. Default: the latest stage.")
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(min=0, help="Print only this generation. Default: the latest stage."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until no runner is active.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the logs of a run's stages.

    Each line shows the time (UTC), the generation and the stage. With `-o json`, the lines of the
    log are printed as JSON.
    """
    selection = Selection(stage, generation)
    print_logs(target, state, selection, follow=follow, as_json=output is Output.JSON)


@command(app, "stop", _RUNS)
def stop_command(
    target: Target,
    state: State = DEFAULT_STATE,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the stage to save its work.")
    ] = 60.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop a run from another terminal, as Ctrl-C does.

    The stage saves its work, and `selfemo run` can continue it later. Only the process that the run
    itself recorded is stopped.
    """
    stop_run(target, state, timeout=timeout, as_json=output is Output.JSON)


@command(app, "report", _RUNS)
def report_command(
    target: Target,
    changes: Set = None,
    state: State = DEFAULT_STATE,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The HTML file to write. Default: a file in the state folder."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write the report of a run: one HTML page with all its results."""
    report_of(target, changes or [], state, to, as_json=output is Output.JSON)


add_use_commands(app)
app.add_typer(data_cli.app, name="data", rich_help_panel=_MODELS)
app.add_typer(model.app, name="model", rich_help_panel=_MODELS)
add_setup_commands(app)


def main() -> None:
    """Run the command. An error that the user can act on is one line, with an exit code."""
    sys.exit(run_application(app, "selfemo"))
