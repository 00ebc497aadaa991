"""``selfemo compare``: several runs side by side, as a table, as JSON, and as an HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import json_text, printable_lines, visible
from selfemo_api.text.formatting import duration
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.command_line import add_output_option
from selfemo_jobs.use_commands.s3_options import add_s3_arguments, s3_storage
from selfemo_jobs.use_commands.use_options import add_state_argument

if TYPE_CHECKING:
    from selfemo_jobs.report.comparison import Comparison

HELP = "Compare runs side by side: scores, gains with paired intervals, settings and cost."

#: Each run has a color.
_MOST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="at least two runs, each as the YAML file of an evolution, the folder of a run in "
        "the storage (a path or URI), or its state folder. The others are compared with the "
        "first run",
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="the HTML page to write")
    add_state_argument(parser)
    add_s3_arguments(parser)
    add_output_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs, print the result, and return the exit code.

    Parameters
    ----------
    arguments
        The parsed arguments.

    Raises
    ------
    BadInput
        If a run is not found or damaged, or the page cannot be written.
    Unavailable
        If a storage does not respond.
    """
    count = len(arguments.runs)
    if not 2 <= count <= _MOST:
        number = "is 1 run" if count == 1 else f"are {count} runs"
        raise BadInput(f"there {number}: specify 2 to {_MOST}")
    comparison = read_comparison(arguments)
    if arguments.to is not None:
        _write_page(comparison, arguments.to)
    if arguments.output == "json":
        sys.stdout.write(json_text(comparison.to_json(), indent=1) + "\n")
        return ExitCode.OK
    sys.stdout.write(printable_lines("\n".join(table_lines(comparison))) + "\n")
    if arguments.to is not None:
        sys.stdout.write(f"\n{visible(str(arguments.to))}\n")
    return ExitCode.OK


def read_comparison(arguments: argparse.Namespace) -> Comparison:
    """Return the comparison of the runs that the arguments name.

    Parameters
    ----------
    arguments
        The parsed arguments.
    """
    from selfemo_jobs.report.comparison import compare_runs
    from selfemo_jobs.report.run_places import find_run
    from selfemo_jobs.report.write import load_run

    storage = s3_storage(arguments)
    places = [find_run(name, state=arguments.state, storage=storage) for name in arguments.runs]
    return compare_runs([load_run(place.store, place.uri, place.info) for place in places])


def _write_page(comparison: Comparison, path: Path) -> None:
    """Write the HTML page, whole or not at all. Raises BadInput."""
    from selfemo_api.text.files import write_atomically
    from selfemo_jobs.report.comparison_page import render_comparison

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, render_comparison(comparison))
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None


def table_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines that a terminal shows.

    Parameters
    ----------
    comparison
        The comparison.
    """
    runs = comparison.runs
    for run in runs:
        yield run.title
    yield ""
    rows: list[list[str]] = [["", *(run.key for run in runs)]]
    rows.append(["recipe", *(run.recipe or "-" for run in runs)])
    rows.append(["best generation", *("-" if r.data.best is None else str(r.data.best)
                                      for r in runs)])  # fmt: skip
    for name in comparison.datasets:
        scores = [run.best.scores.get(name) if run.best else None for run in runs]
        gains = [run.best.gains.get(name) if run.best else None for run in runs]
        rows.append([f"F1 {name}", *(f"{s.weighted_f1:.4f}" if s else "-" for s in scores)])
        rows.append([f"gain {name}", *(str(gain) if gain else "-" for gain in gains)])
    rows.append(["time", *(duration(run.data.facts.seconds) for run in runs)])
    hours = [run.data.facts.gpu_hours for run in runs]
    rows.append(["GPU hours", *("-" if h is None else f"{h:.2f}" for h in hours)])
    yield from _aligned(rows)
    for name, series in comparison.f1.items():
        yield f"\nweighted F1 on {name} by generation"
        by_run = {s.name: {p.generation: p.value for p in s.points} for s in series}
        numbers = sorted({n for values in by_run.values() for n in values})
        yield from _aligned(
            [["generation", *map(str, numbers)]]
            + [
                [run.key, *(f"{values[n]:.4f}" if n in values else "-" for n in numbers)]
                for run in runs
                if (values := by_run.get(run.short_title))
            ]
        )
    if comparison.gains or comparison.not_paired:
        yield "\ngain between the best models, with its paired 95% interval"
        yield from _aligned(
            [[f"{g.second} over {g.first}", g.dataset, str(g.gain)] for g in comparison.gains]
        )
        yield from comparison.not_paired
    if comparison.settings:
        yield "\nsettings that differ"
        yield from _aligned(
            [[row.path, *(value or "-" for value in row.values)] for row in comparison.settings]
        )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines whose columns are aligned. Control characters are made visible."""
    from selfemo_jobs.use_commands.terminal_text import cut, pad

    texts = [[cut(visible(cell), _WIDEST) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(max(map(len, texts), default=0))]
    for row in texts:
        cells = (pad(cell, width) for cell, width in zip(row, widths, strict=False))
        yield "  ".join(cells).rstrip()


#: The most cells of a column.
_WIDEST = 44
