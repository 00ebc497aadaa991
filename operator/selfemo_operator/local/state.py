"""The local runner's files: the status of an evolution and its Jobs, in one folder for each run.

Each file is replaced as a whole. After a crash at any instruction, either the old or the new
content is there.
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
from selfemo_api.local_runs import STATE_FILE
from selfemo_api.os_errors import NO_LOCKS
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.schema.validation import check_edit
from selfemo_api.stages import Stage
from selfemo_api.status import Phase
from selfemo_api.text.files import write_atomically
from selfemo_operator.local.owner import this_process, write_owner
from selfemo_operator.planner.types import Failure, JobState, StageJob


class RunnerError(Exception):
    """The run cannot continue with these options; the message contains what to do.

    Parameters
    ----------
    message
        One line for the user: what is wrong, where, and what to do.
    exit_code
        The exit code of the command.
    kind
        The kind of the error in JSON. Empty: it follows from the exit code.
    """

    def __init__(
        self, message: str, exit_code: ExitCode = ExitCode.BAD_INPUT, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.kind = kind


@dataclass(frozen=True)
class JobFolder:
    """The files of one local Job."""

    path: Path
    """The folder, which is named as the Job is."""

    @property
    def config(self) -> Path:
        """The stage's configuration, a StageConfig in JSON."""
        return self.path / "config.json"

    @property
    def message(self) -> Path:
        """The termination message of the attempt, in JSON."""
        return self.path / "termination.json"

    @property
    def log(self) -> Path:
        """The stage's standard error, in JSON lines."""
        return self.path / "log.jsonl"

    @property
    def record(self) -> Path:
        """The attempt, the times, the exit code, and whether the runner stopped it, in JSON."""
        return self.path / "job.json"


class LocalState:
    """The state folder of one evolution, locked for one runner.

    Parameters
    ----------
    folder
        The folder ``<state>/<namespace>/<name>``. It is created if it does not exist.
    program
        The program of this process, which the lock file records. `selfemo stop` ends only
        ``selfemo run``.

    Raises
    ------
    RunnerError
        If another runner, or a stage that such a runner left behind, holds the lock, or the file
        system has no locks.
    """

    def __init__(self, folder: Path, program: str = "python") -> None:
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
                f"{folder} is in use: another `selfemo run` of this evolution is active (or its "
                "last stage is about to end); wait for it, or stop it with `selfemo stop`",
                ExitCode.UNAVAILABLE,
            ) from None
        except OSError as error:
            os.close(self.lock)
            if error.errno not in NO_LOCKS:
                raise
            raise RunnerError(
                f"{folder}: this file system does not support file locks (flock), which selfemo "
                "needs to detect a second runner: choose another folder with --state"
            ) from error
        write_owner(self.lock, this_process(program))

    def close(self) -> None:
        """Release the folder's lock."""
        os.close(self.lock)

    def load(self, requested: EmotionEvolution, uid: str) -> EmotionEvolution:
        """Return the requested evolution with its stored status, as the API server would store it.

        ``metadata.generation`` increases with an edit of the spec, and when the same command is
        repeated after a failure. Both mean: continue with the current spec.

        Parameters
        ----------
        requested
            The evolution of the user's file. Its status is ignored.
        uid
            The uid of the run.

        Returns
        -------
        EmotionEvolution
            The requested spec with the stored status. If no state is stored, the status is empty
            and the evolution is stored.

        Raises
        ------
        RunnerError
            If an immutable field was edited, or the stored state cannot be read.
        """
        path = self.folder / STATE_FILE
        metadata = requested.metadata.model_copy(update={"uid": uid})
        if not path.exists():
            created = requested.model_copy(update={"metadata": metadata})
            self.save(created)
            return created
        try:
            stored = EmotionEvolution.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise RunnerError(
                f"{path} cannot be read ({error}); move {self.folder} away to start with an "
                "empty state: finished stages are not repeated, because their manifests are in "
                "the storage"
            ) from None
        problems = check_edit(stored, requested)
        if problems:
            text = "; ".join(str(p) for p in problems)
            raise RunnerError(f"{requested.metadata.name}: {text}; use another name for a new run")
        generation = stored.metadata.generation
        edited = stored.spec != requested.spec
        failed = stored.status.finished and stored.status.phase is Phase.FAILED
        return EmotionEvolution(
            metadata=Metadata(
                name=requested.metadata.name,
                namespace=requested.metadata.namespace,
                uid=uid,
                generation=generation + (edited or failed),
            ),
            spec=requested.spec,
            written=requested.written,
            status=stored.status,
        )

    def save(self, evolution: EmotionEvolution) -> None:
        """Store the spec, as it was written and resolved, and the status of an evolution."""
        text = evolution.model_dump_json(by_alias=True, indent=1)
        write_atomically(self.folder / STATE_FILE, text)

    def job(self, name: str) -> JobFolder:
        """Return the folder of a Job. It may not exist yet."""
        return JobFolder(self.jobs / name)

    def create_job(self, name: str, attempt: int, config: StageConfig) -> JobFolder:
        """Create a Job's folder with its configuration and its record.

        Parameters
        ----------
        name
            The Job's name.
        attempt
            The number of the attempt, from 1.
        config
            The configuration with which the stage is started.

        Returns
        -------
        JobFolder
            The folder. A message of an earlier process is removed from it.
        """
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
        """Return all Jobs.

        Parameters
        ----------
        running
            The names of the Jobs whose processes run. A Job that has not ended and is not among
            them has failed: its runner was killed.
        """
        return tuple(
            _stage_job(JobFolder(path), path.name in running)
            for path in sorted(self.jobs.iterdir())
            if (path / "job.json").is_file()
        )


def run_folders(state: Path) -> list[Path]:
    """Return the state folders of all runs, sorted by namespace and name.

    Parameters
    ----------
    state
        The folder with the states of all evolutions. It may not exist.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    if not state.is_dir():
        return []
    # unlike `glob`, `iterdir` says if a folder cannot be read
    namespaces = [folder for folder in state.iterdir() if folder.is_dir()]
    runs = [folder for namespace in namespaces for folder in namespace.iterdir()]
    return sorted(run for run in runs if (run / STATE_FILE).is_file())


def is_active(folder: Path) -> bool:
    """Return whether a runner, or a stage that it left behind, holds the lock of a state folder.

    Parameters
    ----------
    folder
        The folder ``<state>/<namespace>/<name>``. It may not exist.
    """
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it at once
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return False


def _lock(file: int) -> None:
    """Take the lock. It is tried several times, since `is_active` may hold it for a moment."""
    for _ in range(10):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_record(folder: JobFolder, record: dict[str, Any]) -> None:
    """Write a Job's record."""
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
        stopped = record.get("stopped", False)  # earlier versions have not recorded it
        state, failure = JobState.FAILED, _failure(code, message, folder, stopped=stopped)
    elif not running:
        failure = Failure("it ended when its runner was killed", disrupted=True)
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


def _failure(code: int, message: object, folder: JobFolder, *, stopped: bool) -> Failure:
    if stopped:
        return Failure("it was stopped with its runner", exit_code=code, stopped=True)
    if isinstance(message, FailureMessage):
        return Failure(message.error, exit_code=code, damaged=message.damaged)
    text = f"it was killed by signal {-code}" if code < 0 else f"it exited with code {code}"
    return Failure(f"{text}; its log is {folder.log}", exit_code=code)
