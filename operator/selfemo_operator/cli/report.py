"""Starts the report program in a process of its own, since it needs the libraries of the jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from selfemo_api.text.files import write_atomically
from selfemo_operator.cli.run_options import RunRequest
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
    metadata = request.evolution.metadata
    page = to.absolute() if to else request.state / "report.html"
    # The stored evolution has a status, which contains the outcome of each generation.
    evolution = request.state / "evolution.json"
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
