"""Starts the report's program; it needs the jobs' libraries, so it is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from selfemo_api.text.files import write_atomically
from selfemo_operator.cli.run_options import Request
from selfemo_operator.local.state import RunnerError


def write(request: Request, to: Path | None) -> Path:
    """Write the report of a run and return its place.

    Raises
    ------
    RunnerError
        If it could not be made.
    """
    metadata = request.evolution.metadata
    page = to.absolute() if to else request.state / "report.html"
    evolution = request.state / "evolution.json"  # with its status: what became of each generation
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
    done = subprocess.run(command, env=os.environ, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunnerError(f"the report could not be made: {last}")
    return page
