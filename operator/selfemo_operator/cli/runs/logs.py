"""``selfemo logs``: the logs of a run's stages, as text or as the JSON lines that they are."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import escaped_json, printable
from selfemo_api.text.json_logs import readable
from selfemo_operator.cli.runs.target import Target, find_run
from selfemo_operator.local.state import JobFolder, RunnerError, is_active, read_record

#: Seconds between two looks at the logs that are followed.
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Selection:
    """The Jobs whose logs are printed."""

    stage: Stage | None = None
    """The stage; None: all stages."""
    generation: int | None = None
    """The generation; None: all generations."""

    @property
    def is_newest(self) -> bool:
        """Whether only the newest Job is printed, because nothing is named."""
        return self.stage is None and self.generation is None

    def has(self, record: dict[str, Any]) -> bool:
        """Return whether a Job is one of those that were named."""
        return self.stage in (None, record["stage"]) and self.generation in (
            None,
            record["generation"],
        )


@dataclass
class JobLog:
    """The log of one Job, read from where the last read ended."""

    folder: JobFolder
    """The folder of the Job."""
    record: dict[str, Any]
    """The Job's record: generation, stage, attempt and times."""
    offset: int = 0
    """The number of bytes that were read."""
    rest: bytes = b""
    """The beginning of a line that was not complete."""

    def new_lines(self, *, last: bool) -> list[str]:
        """Return the lines since the last read; the last one may be incomplete if it is the last.

        Parameters
        ----------
        last
            Nothing more is written: a line without a line break is whole.
        """
        try:
            with self.folder.log.open("rb") as file:
                file.seek(self.offset)
                data = self.rest + file.read()
                self.offset = file.tell()
        except FileNotFoundError:
            return []
        *lines, self.rest = data.split(b"\n")
        if last and self.rest:
            lines, self.rest = [*lines, self.rest], b""
        return [line.decode("utf-8", "replace") for line in lines]


def print_logs(
    target: str, state: Path, selection: Selection, *, follow: bool, as_json: bool
) -> None:
    """Print the logs of a run's stages, oldest first.

    Parameters
    ----------
    target
        The YAML file of the evolution, or the name of the run.
    state
        The folder with the states of all evolutions.
    selection
        Which Jobs are printed.
    follow
        Print new lines until no runner is active.
    as_json
        Print the lines as they are.

    Raises
    ------
    RunnerError
        If there is no such run, or it has no such stage.
    """
    run = find_run(target, state)
    run.read()
    logs: dict[str, JobLog] = {}
    while True:
        active = follow and is_active(run.folder)
        _add_jobs(run, selection, logs)
        if not logs and not active:
            raise RunnerError(_nothing(run, selection))
        for log in logs.values():
            for line in log.new_lines(last=not active):
                sys.stdout.write(_json_line(line) if as_json else _text(log, line))
        sys.stdout.flush()
        if not active:
            return
        time.sleep(_POLL_SECONDS)


def _add_jobs(run: Target, selection: Selection, logs: dict[str, JobLog]) -> None:
    """Add the Jobs that have begun since the last call."""
    jobs = sorted(_jobs(run.folder), key=lambda job: str(job.record["createTime"]))
    if selection.is_newest:
        # those before the first one that was printed are left out
        first = next((n for n, job in enumerate(jobs) if job.folder.path.name in logs), None)
        jobs = jobs[-1:] if first is None else jobs[first:]
    for job in jobs:
        if selection.has(job.record):
            logs.setdefault(job.folder.path.name, job)


def _jobs(folder: Path) -> Iterator[JobLog]:
    """Yield all Jobs of a run."""
    for path in (folder / "jobs").glob("*"):
        try:
            yield JobLog(JobFolder(path), read_record(JobFolder(path)))
        except (OSError, ValueError):
            continue  # it is being created


def _nothing(run: Target, selection: Selection) -> str:
    """Return the message of a run that has no such stage."""
    if selection.is_newest:
        return f"no stage of {run.name} has started"
    stage = selection.stage.value if selection.stage else "no stage"
    number = "" if selection.generation is None else f" of generation {selection.generation}"
    has = f"{stage}{number} has not started" if selection.stage else f"{stage}{number} has started"
    return f"{run.name}: {has}: `selfemo status {run.name}` shows its current state"


def _json_line(line: str) -> str:
    """Return a line of a log as it is. Only a terminal gets no control characters."""
    return f"{printable(escaped_json(line)) if sys.stdout.isatty() else line}\n"


def _text(log: JobLog, line: str) -> str:
    """Return a line of a log as text: time in UTC, generation, stage and message."""
    record = log.record
    attempt = f" ({record['attempt']})" if record["attempt"] > 1 else ""
    prefix = f"{record['generation']:>3} {record['stage']:<9}{attempt}"
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if isinstance(content, dict):
        clock, parts = _clock(content.get("time")), readable(content).split("\n")
    else:  # a library wrote it
        clock, parts = "", [line]
    return "".join(f"{printable(f'{clock:9} {prefix}  {part}')}\n" for part in parts)


def _clock(written: object) -> str:
    """Return the time of day in UTC. Nothing if a program wrote something else into the field."""
    try:
        moment = datetime.fromisoformat(str(written))
        return f"{moment.astimezone(UTC):%H:%M:%S}Z" if moment.tzinfo else f"{moment:%H:%M:%S}"
    except (ValueError, OverflowError):
        return ""
