"""``selfemo list`` and ``selfemo status``: the runs below the state folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli.output_format import columns, print_line
from selfemo_operator.cli.runs.summary import age, best_text, local_summary, status_rows
from selfemo_operator.cli.runs.target import find_run, read_evolution
from selfemo_operator.cli.watch import LocalSource
from selfemo_operator.local.state import run_folders


def list_runs(state: Path, *, as_json: bool) -> None:
    """Print a row for each run.

    Parameters
    ----------
    state
        The folder with the states of all evolutions.
    as_json
        Print a JSON list.
    """
    summaries = []
    for folder in run_folders(state.absolute()):
        try:
            summaries.append(local_summary(folder, read_evolution(folder)))
        except ValidationError:
            note = f"{folder} was written by another version of this command, or is damaged"
            print_line(f"warning: {note}", stderr=True)
        except FileNotFoundError:
            continue  # it was removed a moment ago
    if as_json:
        sys.stdout.write(json_text(summaries) + "\n")
    elif not summaries:
        print_line(f"no runs in {state}", stderr=True)
    else:
        for line in run_table(summaries, _runner):
            print_line(line)


def run_table(summaries: list[dict[str, Any]], runner: Any = None) -> list[str]:
    """Return the lines of a table of runs.

    Parameters
    ----------
    summaries
        The facts of each run.
    runner
        Returns what the column RUNNER has for a run. None: there is no such column.
    """
    head = ["NAMESPACE", "NAME", "PHASE", "GENERATION", "STAGE", "BEST F1", "AGE"]
    rows = [
        [
            *(s["namespace"], s["name"], s["phase"], f"{s['generation']}/{s['maxGenerations']}"),
            *(s["stage"] or "-", best_text(s), age(s["startTime"])),
        ]
        for s in summaries
    ]
    if runner is not None:
        head.append("RUNNER")
        rows = [[*row, runner(s)] for row, s in zip(rows, summaries, strict=True)]
    return list(columns([head, *rows]))


def _runner(summary: dict[str, Any]) -> str:
    """Return which process runs an evolution."""
    if not summary["active"]:
        return "-" if summary["completionTime"] else "none: stopped"
    return f"process {summary['process']}" if summary["process"] else "active"


def print_status(target: str, state: Path, *, as_json: bool) -> None:
    """Print the state of one run.

    Parameters
    ----------
    target
        The YAML file of the evolution, or the name of the run.
    state
        The folder with the states of all evolutions.
    as_json
        Print a JSON object.

    Raises
    ------
    RunnerError
        If there is no such run.
    """
    run = find_run(target, state)
    evolution, progress = LocalSource(run).read()
    summary = local_summary(run.folder, evolution)
    if as_json:
        done = {"done": progress.done, "total": progress.total, "metrics": progress.metrics}
        content = {**summary, "progress": done if evolution.status.stage else None}
        sys.stdout.write(json_text(content) + "\n")
        return
    rows = status_rows(summary)
    if progress.done is not None:
        text = f"{progress.done:.0f}/{progress.total:.0f} {progress.metrics}".rstrip()
        rows.insert(4, ("progress", text))
    rows.append(("runner", progress.note or _runner(summary)))
    rows.append(("state", str(run.folder)))
    for line in columns(rows):
        print_line(line)
