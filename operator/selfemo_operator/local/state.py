"""What the local runner keeps on disk: the evolution's status and its Jobs, one folder a run.

Every file is replaced whole, so a crash at any instruction leaves either the old or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfemo_api.contract import ExitCode, StageConfig
from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.schema.validation import check_edit
from selfemo_api.stages import Stage
from selfemo_api.status import Phase
from selfemo_api.text.files import write_atomically
from selfemo_operator.planner.types import Failure, JobState, StageJob


class RunnerError(Exception):
    """The run cannot go on as asked; the message says what to do."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class JobFolder:
    """The files of one local Job."""

    path: Path

    @property
    def config(self) -> Path:
        """What the stage is told."""
        return self.path / "config.json"

    @property
    def message(self) -> Path:
        """The termination message."""
        return self.path / "termination.json"

    @property
    def log(self) -> Path:
        """Standard error of the stage: JSON lines."""
        return self.path / "log.jsonl"

    @property
    def record(self) -> Path:
        """Attempt, times, exit code."""
        return self.path / "job.json"


class LocalState:
    """The folder ``<state>/<namespace>/<name>``.

    Parameters
    ----------
    folder
        Made where it is absent.

    Raises
    ------
    RunnerError
        If another runner, or a stage that it left behind, is at work in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self.work = folder / "work"
        for path in (self.jobs, self.work):
            path.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self.lock)
        except BlockingIOError:
            os.close(self.lock)
            raise RunnerError(
                f"{folder} is in use: another `selfemo run` of this evolution is at work (or its "
                "last stage is just ending); wait for it or end it",
                ExitCode.UNAVAILABLE,
            ) from None

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self.lock)

    def load(self, asked: EmotionEvolution, uid: str) -> EmotionEvolution:
        """Return the asked evolution with its stored status, as the API server would keep it.

        The generation of the metadata rises with an edit, and with the same command given again
        after a failure: both mean "go on with what I now have".

        Raises
        ------
        RunnerError
            If an immutable field was edited, or the stored state cannot be read.
        """
        path = self.folder / "evolution.json"
        metadata = asked.metadata.model_copy(update={"uid": uid})
        if not path.exists():
            fresh = asked.model_copy(update={"metadata": metadata})
            self.save(fresh)
            return fresh
        try:
            stored = EmotionEvolution.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise RunnerError(
                f"{path} cannot be read ({error}); move {self.folder} away to start afresh: "
                "finished stages are found again by their manifests"
            ) from None
        problems = check_edit(stored, asked)
        if problems:
            words = "; ".join(str(p) for p in problems)
            raise RunnerError(f"{asked.metadata.name}: {words}; use another name for a new run")
        generation = stored.metadata.generation
        edited = stored.spec != asked.spec
        failed = stored.status.finished and stored.status.phase is Phase.FAILED
        return EmotionEvolution(
            metadata=Metadata(
                name=asked.metadata.name,
                namespace=asked.metadata.namespace,
                uid=uid,
                generation=generation + (edited or failed),
            ),
            spec=asked.spec,
            status=stored.status,
        )

    def save(self, evolution: EmotionEvolution) -> None:
        """Store spec and status."""
        text = evolution.model_dump_json(by_alias=True, indent=1)
        write_atomically(self.folder / "evolution.json", text)

    def job(self, name: str) -> JobFolder:
        """Return a Job's folder (which may not exist)."""
        return JobFolder(self.jobs / name)

    def create_job(self, name: str, attempt: int, config: StageConfig) -> JobFolder:
        """Make a Job's folder with its configuration."""
        folder = self.job(name)
        folder.path.mkdir(exist_ok=True)
        folder.message.unlink(missing_ok=True)
        write_atomically(folder.config, config.model_dump_json(by_alias=True, indent=1))
        write_record(
            folder,
            {
                "generation": config.generation,
                "stage": config.stage.value,
                "attempt": attempt,
                "createTime": datetime.now(UTC).isoformat(),
            },
        )
        return folder

    def observe(self, running: set[str]) -> tuple[StageJob, ...]:
        """Return all Jobs; those that should run but do not were lost with their runner."""
        return tuple(
            _stage_job(JobFolder(path), path.name in running)
            for path in sorted(self.jobs.iterdir())
            if (path / "job.json").is_file()
        )


def at_work(folder: Path) -> bool:
    """Return whether a runner, or a stage that it left behind, holds a run's folder."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once, by closing
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(file: int) -> None:
    """Take the lock; `at_work` may hold it for a moment, so once is not enough."""
    for _ in range(10):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_record(folder: JobFolder, record: dict[str, Any]) -> None:
    """Replace a Job's record."""
    write_atomically(folder.record, json.dumps(record, indent=1))


def read_record(folder: JobFolder) -> dict[str, Any]:
    """Return a Job's record."""
    record: dict[str, Any] = json.loads(folder.record.read_text())
    return record


def _stage_job(folder: JobFolder, running: bool) -> StageJob:
    record = read_record(folder)
    created = datetime.fromisoformat(record["createTime"])
    message = decode_message(folder.message.read_text()) if folder.message.is_file() else None
    code = record.get("exitCode")
    state, result, failure = JobState.RUNNING, None, None
    if code == ExitCode.OK:
        state = JobState.SUCCEEDED
        result = message if isinstance(message, StageResult) else None
    elif code is not None:
        state, failure = JobState.FAILED, _failure(code, message, folder)
    elif not running:
        failure = Failure("it was lost with its runner", disrupted=True)
        state = JobState.FAILED
    return StageJob(
        name=folder.path.name,
        generation=record["generation"],
        stage=Stage(record["stage"]),
        attempt=record["attempt"],
        state=state,
        result=result,
        failure=failure,
        create_time=created,
        start_time=created,
    )


def _failure(code: int, message: object, folder: JobFolder) -> Failure:
    if isinstance(message, FailureMessage):
        return Failure(message.error, exit_code=code)
    ended = f"it was ended by signal {-code}" if code < 0 else f"it exited with {code}"
    return Failure(f"{ended}; its log is {folder.log}", exit_code=code)
