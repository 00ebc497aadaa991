"""One tracker in a process of its own: ``python -m selfemo_jobs.trackers --job FILE``.

A tool's library may start threads and processes, change the environment, and wait for a server
without end. None of this may touch the stage. So the stage gives a worker some time, and ends it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import Tracker
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.store.local_files import write_file
from selfemo_jobs.trackers.points import TrackedRun
from selfemo_jobs.trackers.sink import Sink, SinkFiles, TrackerError, make_sink

#: Names of variables whose values are never shown.
_SECRET = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET|CREDENTIALS)$")
#: The largest length of an error.
_ERROR_LENGTH = 400


class WorkerJob(ApiModel):
    """The input of a worker."""

    tracker: Tracker
    run: TrackedRun
    folder: Path
    """A folder for files that the stage puts into the storage."""
    report: Path | None = None
    """The HTML report of the run."""
    result: Path
    """The file to which the worker writes its result."""


class TrackerResult(ApiModel):
    """What a tracker did."""

    points: int = 0
    """The number of points that were written. Those that the tool had are not counted."""
    error: str | None = None
    """The reason why the points could not be written, in one line."""


def write_run(sink: Sink, run: TrackedRun, files: SinkFiles) -> int:
    """Write a run to a tool, and return the number of new points.

    Parameters
    ----------
    sink
        The tool.
    run
        The run so far.
    files
        The files that the sink may use.
    """
    sink.open(run, files)
    points = sum(sink.log(generation) for generation in run.generations)
    sink.finish()
    return points


def one_line(error: BaseException) -> str:
    """Return an error as one short line without secrets.

    Parameters
    ----------
    error
        An error of a tool's library. It may quote an address with a password.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, TrackerError):
        text = f"{type(error).__name__}: {text}"
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) >= 4:
            text = text.replace(value, "***")
    return re.sub(r"//[^/@\s]+@", "//***@", text)[:_ERROR_LENGTH]


def main(argv: Sequence[str] | None = None) -> int:
    """Write a run to one tool. The result, or the error, is in the job's result file."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.trackers")
    parser.add_argument("--job", required=True, type=Path, help="JSON of a WorkerJob")
    job = WorkerJob.model_validate_json(parser.parse_args(argv).job.read_bytes())
    try:
        points = write_run(make_sink(job.tracker), job.run, SinkFiles(job.folder, job.report))
        result = TrackerResult(points=points)
    except Exception as error:  # noqa: BLE001 - a tool's library may raise anything
        result = TrackerResult(error=one_line(error))
    write_file(job.result, result.model_dump_json().encode())
    return 0
