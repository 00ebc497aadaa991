"""``python -m selfemo_study run|expression|results …``: see docs/studies/README.md."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from selfemo_api.contract import ExitCode
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.published_rows import publish, restore, rows_file
from selfemo_study.row_evolution import validation_problems
from selfemo_study.study_config import StudyError, load_study
from selfemo_study.study_folders import ROOT, StudyFolders
from selfemo_study.study_runner import run, select_rows, select_seeds

app = typer.Typer(
    help="Run a learning study.", no_args_is_help=True, pretty_exceptions_enable=False
)

#: The default folder of pages and their charts.
PAGES = Path("docs/studies")

File = Annotated[Path, typer.Argument(help="The study's YAML file.", show_default=False)]
Rows = Annotated[
    str | None, typer.Option("--rows", help="Only these rows, separated by commas. Default: all.")
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Only these seeds, separated by commas. Default: all.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=FOLDER", help="The folder of a data volume."),
]
Root = Annotated[Path, typer.Option("--root", help="The folder where studies run.")]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", help="The folder of the figures. Default: the folder of FILE."),
]


@app.command("run")
def run_command(
    file: File, rows: Rows = None, seeds: Seeds = None, data: DataOption = None, root: Root = ROOT
) -> None:
    """Run what is missing. After an interruption the same command continues."""
    study = load_study(file)
    folders = StudyFolders(root / study.name)
    volumes = DataVolumes.of({**study.data, **_parse_volumes(data or [])}, folders)
    names, numbers = select_rows(study, rows), select_seeds(study, seeds)
    failed = run(study, names, numbers, folders, volumes, _print)
    if failed:
        _print(f"{failed} failed: fix the cause and run the same command again")
        raise typer.Exit(ExitCode.INTERNAL)


@app.command("validate")
def validate_command(file: File, rows: Rows = None) -> None:
    """Print the rows that would be refused, and why."""
    study = load_study(file)
    names = select_rows(study, rows)
    problems = [p for name in names for p in validation_problems(study, study.row(name))]
    for problem in problems:
        _print(problem)
    if problems:
        raise typer.Exit(ExitCode.BAD_INPUT)
    _print(f"{file} is valid: {len(study.rows)} rows, seeds {study.seeds}")


@app.command("results")
def results_command(
    file: File,
    root: Root = ROOT,
    to: Annotated[Path, typer.Option("--to", help="The folder of the page.")] = PAGES,
    figures: Figures = None,
) -> None:
    """Write the page, the summary and the tables from the finished rows."""
    from selfemo_study.results_writer import write_results

    study = load_study(file)
    folders, figures = StudyFolders(root / study.name), figures or file.parent
    page = write_results(study, folders, to, figures)
    publish(study, folders, rows_file(study, figures))
    _print(str(page))


@app.command("expression")
def expression_command(
    file: File,
    rows: Rows = None,
    seeds: Seeds = None,
    data: DataOption = None,
    root: Root = ROOT,
    figures: Figures = None,
    contexts: Annotated[
        int | None,
        typer.Option(
            "--contexts",
            min=1,
            help="Let generation 0 and the best generation answer so many contexts of dev, each "
            "once for each emotion. Default: read the responses that the evaluations stored.",
        ),
    ] = None,
) -> None:
    """Let independent judges read the responses of finished rows."""
    from selfemo_study.expression_files import expression_file, write_expression
    from selfemo_study.expression_judges import judge_study

    study = load_study(file)
    folders = StudyFolders(root / study.name)
    volumes = DataVolumes.of({**study.data, **_parse_volumes(data or [])}, folders)
    names, numbers = select_rows(study, rows), select_seeds(study, seeds)
    expression = judge_study(study, folders, volumes, names, numbers, _print, contexts)
    if not expression.rows:
        raise StudyError(
            "no finished evolution row has responses here: the responder does not play, or the "
            "rows were restored from a file"
        )
    target = expression_file(study, figures or file.parent)
    write_expression(target, expression)
    _print(str(target))


@app.command("restore")
def restore_command(file: File, root: Root = ROOT, figures: Figures = None) -> None:
    """Restore the finished rows from the study's Parquet file, so that only the others run."""
    study = load_study(file)
    rows = rows_file(study, figures or file.parent)
    names = restore(study, StudyFolders(root / study.name), rows)
    _print(f"restored from {rows}: {', '.join(names) or 'none'}")


def _parse_volumes(options: Sequence[str]) -> dict[str, str]:
    """Return the folder of each data volume. Raises StudyError."""
    volumes = {}
    for option in options:
        name, sign, folder = option.partition("=")
        if not (name and sign and folder):
            raise StudyError(f"--data {option}: must be NAME=FOLDER, e.g. --data meld=data/meld")
        volumes[name] = folder
    return volumes


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _stop(_signum: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM like Ctrl-C, so that the programs that were started end too."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; an error that the user can fix is printed as one line."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except StudyError as error:
        sys.stderr.write(f"study: {error}\n")
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()
