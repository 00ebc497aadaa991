"""Runs a whole evolution on one machine: the same planner, stages as processes.

The runner may die at any instruction. Its stages die with it (Linux's parent-death signal), a lock
that they inherit keeps a second runner out until they have, and the same command goes on from the
stored status and the manifests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from selfemo_api.contract import (
    ENV_DATA,
    ENV_PARENT,
    ENV_SHARD,
    ENV_TERMINATION_LOG,
    ENV_WORK,
    ExitCode,
)
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_operator.local.state import JobFolder, LocalState, read_record, write_record
from selfemo_operator.planner.plan import plan
from selfemo_operator.planner.types import (
    Action,
    CreateJob,
    DeleteEvolution,
    DeleteJob,
    Observed,
    ResumeJob,
    SuspendJob,
)

#: How often a running stage is looked at; its progress lines come about once a second.
POLL_SECONDS = 0.2
#: A stage has this long to save its work after SIGTERM: a checkpoint of a small model.
GRACE_SECONDS = 30.0

Watcher = Callable[[EmotionEvolution, Observed], None]


@dataclass
class LocalCluster:
    """Carries the planner's actions out as processes. One stage runs at a time."""

    state: LocalState
    data: Mapping[str, str]
    """Folder by data volume name."""
    processes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    """The shards of each running Job."""

    def observe(self) -> Observed:
        """Take in ended processes, and return all Jobs."""
        for name, shards in list(self.processes.items()):
            codes = [process.poll() for process in shards]
            failed = next((c for c in codes if c not in (None, 0)), None)
            if failed is None and None in codes:
                continue
            if failed is not None:
                self._end(shards)  # one shard down: the attempt is over
            self._finish(name, failed or 0)
            del self.processes[name]
        return Observed(self.state.observe(set(self.processes)))

    def carry_out(self, action: Action) -> None:
        """Do what the planner asked for."""
        match action:
            case CreateJob():
                self._create(action)
            case DeleteJob(name=name) | SuspendJob(name=name):
                self._end(self.processes.pop(name, []))
                self._finish(name, ExitCode.TERMINATED)
            case ResumeJob() | DeleteEvolution():
                # A local Job is never suspended in place, and a local run is a folder: neither
                # has anything to do.
                pass

    def close(self) -> None:
        """End what still runs; the stages save their work."""
        for name, shards in self.processes.items():
            self._end(shards)
            self._finish(name, ExitCode.TERMINATED)
        self.processes.clear()

    def _create(self, action: CreateJob) -> None:
        folder = self.state.create_job(action.name, action.attempt, action.config)
        config = action.config
        shards = config.spec.self_play.shards if config.stage is Stage.SELF_PLAY else 1
        self.processes[action.name] = [self._start(folder, config.stage, s) for s in range(shards)]

    def _start(self, folder: JobFolder, stage: Stage, shard: int) -> subprocess.Popen[bytes]:
        # Every shard may be the one that completes the stage; only its message is a StageResult,
        # so the shards write to files of their own and `_finish` picks that one.
        environment = {
            **os.environ,
            ENV_SHARD: str(shard),
            ENV_TERMINATION_LOG: str(folder.path / f"termination-{shard}.json"),
            ENV_WORK: str(self.state.work),
            ENV_PARENT: str(os.getpid()),
            "TQDM_DISABLE": "1",  # the log is JSON lines
            ENV_DATA: ":".join(f"{k}={v}" for k, v in sorted(self.data.items())),
        }
        (folder.path / f"termination-{shard}.json").unlink(missing_ok=True)
        with folder.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", stage.module, "--config", str(folder.config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[self.state.lock],
                start_new_session=True,
            )

    def _finish(self, name: str, code: int) -> None:
        """Write a Job's end: first its message, then the exit code that makes it final."""
        folder = self.state.job(name)
        messages = sorted(folder.path.glob("termination-*.json"))
        texts = [path.read_text() for path in messages]
        wanted = '"error"' if code else '"manifest"'
        chosen = next((t for t in texts if wanted in t), texts[0] if texts else "")
        folder.message.write_text(chosen)
        record = read_record(folder)
        ended = datetime.now(UTC).isoformat()
        write_record(folder, {**record, "exitCode": code, "finishTime": ended})

    def _end(self, shards: list[subprocess.Popen[bytes]]) -> None:
        """End the processes, politely first."""
        for process in shards:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in shards:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run_local(
    evolution: EmotionEvolution, cluster: LocalCluster, watch: Watcher
) -> EmotionEvolution:
    """Reconcile an evolution until it is at rest, and return it.

    Parameters
    ----------
    evolution
        As :meth:`LocalState.load` gave it.
    watch
        Called after each pass, e.g. to draw progress.
    """
    while True:
        observed = cluster.observe()
        now = datetime.now(UTC)
        decision = plan(evolution, observed, now)
        changed = decision.status != evolution.status
        if changed:
            evolution = evolution.model_copy(update={"status": decision.status})
            cluster.state.save(evolution)
        if decision.action is not None:
            cluster.carry_out(decision.action)
        watch(evolution, observed)
        if changed or decision.action is not None:
            continue
        if evolution.status.finished or (evolution.spec.suspend and not cluster.processes):
            return evolution
        time.sleep(POLL_SECONDS)
