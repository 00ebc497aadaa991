"""``python -m selfemo_study run|results|restore|validate STUDY``: see docs/studies/README.md."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from selfemo_api.contract import ExitCode
from selfemo_study.paths import ROOT, Places
from selfemo_study.programs import Data
from selfemo_study.published_rows import publish, restore, rows_file
from selfemo_study.study_config import Study, StudyError, load_study, problems
from selfemo_study.study_runner import row_names, run, seeds_of

app = typer.Typer(
    help="Run a learning study.", no_args_is_help=True, pretty_exceptions_enable=False
)

#: Where pages and their pictures are written.
PAGES = Path("docs/studies")

File = Annotated[Path, typer.Argument(help="The study's file.", show_default=False)]
Rows = Annotated[str | None, typer.Option("--rows", help="Only these, with commas.")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Only these, with commas.")]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", metavar="NAME=FOLDER", help="Where the files are.")
]
Root = Annotated[Path, typer.Option("--root", help="Where studies are kept.")]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", help="Folder of the figures. Default: the folder of FILE."),
]


@app.command("run")
def run_command(
    file: File, rows: Rows = None, seeds: Seeds = None, data: DataOption = None, root: Root = ROOT
) -> None:
    """Run what is missing. The same command goes on after any interruption."""
    study = load_study(file)
    places = Places(root / study.name)
    volumes = Data.of({**study.data, **_volumes(data or [])}, places)
    failed = run(study, row_names(study, rows), seeds_of(study, seeds), places, volumes, _say)
    if failed:
        _say(f"{failed} failed: mend the cause and give the same command again")
        raise typer.Exit(ExitCode.INTERNAL)


@app.command("validate")
def validate_command(file: File, rows: Rows = None) -> None:
    """Say which rows the API server would refuse, and why."""
    study = load_study(file)
    wrong = [p for name in row_names(study, rows) for p in problems(study, study.row(name))]
    for problem in wrong:
        _say(problem)
    if wrong:
        raise typer.Exit(ExitCode.BAD_INPUT)
    _say(f"{file} is valid: {len(study.rows)} rows, seeds {study.seeds}")


@app.command("results")
def results_command(
    file: File,
    root: Root = ROOT,
    to: Annotated[Path, typer.Option("--to", help="Folder of the page.")] = PAGES,
    figures: Figures = None,
) -> None:
    """Write the page, the summary and the tables from the rows that are finished."""
    from selfemo_study.page import write_page

    study: Study = load_study(file)
    places, folder = Places(root / study.name), figures or file.parent
    page = write_page(study, places, to, folder)
    publish(study, places, rows_file(study, folder))
    _say(str(page))


@app.command("restore")
def restore_command(file: File, root: Root = ROOT, figures: Figures = None) -> None:
    """Restore the finished rows from the study's Parquet file, so that only the others run."""
    study = load_study(file)
    rows = rows_file(study, figures or file.parent)
    names = restore(study, Places(root / study.name), rows)
    _say(f"restored from {rows}: {', '.join(names) or 'none'}")


def _volumes(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise StudyError(f"--data {text}: must be NAME=FOLDER, e.g. --data meld=data/meld")
        found[name] = folder
    return found


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _stop(_signum: int, _frame: FrameType | None) -> None:
    """End as by Ctrl-C: what has been started is ended too."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; what a person can act on is one line."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except StudyError as error:
        sys.stderr.write(f"study: {error}\n")
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()
