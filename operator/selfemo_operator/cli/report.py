"""Starts the report program in a process of its own, since it needs the libraries of `report`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.local_runs import STATE_FILE, local_uid
from selfemo_api.text.control_characters import json_text
from selfemo_api.text.files import write_atomically
from selfemo_operator.cli.job_program import require_extras
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.cli.runs.target import find_run
from selfemo_operator.local.state import RunnerError


def write_report(request: RunRequest, to: Path | None) -> Path:
    """Write the report of a run, and return the path of the page.

    Parameters
    ----------
    request
        The evolution. Its status is read from the state folder, where it is stored there.
    to
        The HTML file to write. None: ``report.html`` in the state folder.

    Raises
    ------
    RunnerError
        If the report program fails. The message is the last line that it printed.
    """
    require_extras("report")
    metadata = request.evolution.metadata
    page = to.absolute() if to else request.state / "report.html"
    # The stored evolution has a status, which contains the outcome of each generation.
    evolution = request.state / STATE_FILE
    if not evolution.is_file():
        request.state.mkdir(parents=True, exist_ok=True)
        evolution = request.state / "report-of.json"
        write_atomically(evolution, request.evolution.model_dump_json(by_alias=True))
    command = [
        sys.executable,
        "-m",
        "selfemo_jobs.report",
        "--evolution",
        str(evolution),
        "--run",
        f"{metadata.namespace}/{metadata.name}-{request.uid}",
        "--output",
        str(page),
    ]
    process = subprocess.run(command, env=os.environ, check=False, capture_output=True, text=True)
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        reason = lines[-1] if lines else "the program failed without reporting an error"
        raise RunnerError(f"the report could not be written: {reason}")
    return page


def report_of(
    target: str, changes: Sequence[str], state: Path, to: Path | None, *, as_json: bool
) -> None:
    """Write the report of a run that a person names, and print the path of the page.

    Parameters
    ----------
    target
        The YAML file of the evolution, or the name of the run.
    changes
        The values of ``--set``, which may name another storage.
    state
        The folder with the states of all evolutions.
    to
        The HTML file to write. None: ``report.html`` in the state folder.
    as_json
        Print a JSON object.

    Raises
    ------
    RunnerError
        If there is no such run, or the report program fails.
    """
    run = find_run(target, state, changes)
    evolution = run.file_evolution or run.read()
    uid = local_uid(evolution.metadata.namespace, evolution.metadata.name)
    page = write_report(RunRequest(evolution, {}, run.folder, uid), to)
    if as_json:
        sys.stdout.write(json_text({"report": str(page)}) + "\n")
    else:
        print_line(str(page))
