"""Runs a whole evolution on one machine: the planner of the operator, with stages as processes.

The runner may die at any instruction. Its stages then die too (Linux's parent-death signal). They
inherit a lock that keeps a second runner out until all of them have ended. The same command then
continues from the stored status and the manifests.
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
    ENV_GRACE,
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
    SetDeadline,
    SuspendJob,
)

#: Seconds between two checks of a running stage. It logs progress about once a second.
POLL_SECONDS = 0.2
#: Seconds that a stage has after SIGTERM to save its work, e.g. a checkpoint of a small model.
GRACE_SECONDS = 30.0

#: Is called after each pass, with the evolution and its Jobs.
PassCallback = Callable[[EmotionEvolution, Observed], None]


@dataclass
class ProcessRunner:
    """Executes the planner's actions as processes. Only one stage runs at a time."""

    state: LocalState
    """The folder in which the Jobs are kept."""
    data: Mapping[str, str]
    """The folder of each data volume, by the volume's name."""
    processes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    """The processes of each running Job, one for each shard, by the Job's name."""

    def observe(self) -> Observed:
        """Return all Jobs, after the end of each process that has exited is recorded."""
        for name, shards in list(self.processes.items()):
            codes = [process.poll() for process in shards]
            failed = next((s for s, code in enumerate(codes) if code not in (None, 0)), None)
            if failed is None and None in codes:
                continue
            if failed is not None:
                self._terminate(shards)  # one failed shard ends the whole attempt
            self._record_end(name, 0 if failed is None else codes[failed] or 0, failed)
            del self.processes[name]
        return Observed(self.state.observe(set(self.processes)))

    def execute(self, action: Action) -> None:
        """Execute one action of the planner."""
        match action:
            case CreateJob():
                self._create(action)
            case DeleteJob(name=name) | SuspendJob(name=name):
                self._stop(name)
            case ResumeJob() | SetDeadline() | DeleteEvolution():
                # A local Job is never suspended in place, has no deadline of its own, and a local
                # run is only a folder: these actions have nothing to do.
                pass

    def close(self) -> None:
        """Terminate all running stages. They save their work."""
        for name in list(self.processes):
            self._stop(name)

    def _stop(self, name: str) -> None:
        """Terminate a Job's processes, and record that its attempt has not failed."""
        self._terminate(self.processes.pop(name, []))
        self._record_end(name, ExitCode.TERMINATED, stopped=True)

    def _create(self, action: CreateJob) -> None:
        """Create a Job's folder, and start a process for each shard."""
        folder = self.state.create_job(action.name, action.attempt, action.config)
        config = action.config
        shards = config.spec.self_play.shards if config.stage is Stage.SELF_PLAY else 1
        self.processes[action.name] = [
            self._start_shard(folder, config.stage, s) for s in range(shards)
        ]

    def _start_shard(self, folder: JobFolder, stage: Stage, shard: int) -> subprocess.Popen[bytes]:
        # Any shard may be the one that completes the stage, and only its message is a StageResult.
        # So each shard writes a file of its own, and `_record_end` selects the right one.
        environment = {
            **os.environ,
            ENV_SHARD: str(shard),
            ENV_TERMINATION_LOG: str(folder.path / f"termination-{shard}.json"),
            ENV_WORK: str(self.state.work),
            ENV_PARENT: str(os.getpid()),
            ENV_GRACE: str(int(GRACE_SECONDS)),
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

    def _record_end(
        self, name: str, code: int, failed: int | None = None, *, stopped: bool = False
    ) -> None:
        """Record a Job's end: first its message, then the exit code that makes the end final.

        If a shard has failed, its message counts. The others were ended because of it.
        """
        folder = self.state.job(name)
        pattern = "termination-*.json" if failed is None else f"termination-{failed}.json"
        texts = [path.read_text() for path in sorted(folder.path.glob(pattern))]
        key = '"error"' if code else '"manifest"'
        message = next((text for text in texts if key in text), texts[0] if texts else "")
        folder.message.write_text(message)
        record = read_record(folder)
        end = {"exitCode": code, "finishTime": datetime.now(UTC).isoformat(), "stopped": stopped}
        write_record(folder, {**record, **end})

    def _terminate(self, shards: list[subprocess.Popen[bytes]]) -> None:
        """Send SIGTERM to the processes, and SIGKILL to those that outlive the grace period."""
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
    evolution: EmotionEvolution, runner: ProcessRunner, on_pass: PassCallback
) -> EmotionEvolution:
    """Reconcile an evolution until it has finished or is suspended, and return it.

    Parameters
    ----------
    evolution
        The evolution with its stored status, as :meth:`LocalState.load` returns it.
    runner
        The runner that executes the planner's actions. Its state folder receives each new status.
    on_pass
        Is called after each pass, e.g. to draw the progress.

    Returns
    -------
    EmotionEvolution
        The evolution with its last status. It is finished, or it is suspended and no stage runs.
    """
    while True:
        observed = runner.observe()
        now = datetime.now(UTC)
        decision = plan(evolution, observed, now)
        changed = decision.status != evolution.status
        if changed:
            evolution = evolution.model_copy(update={"status": decision.status})
            runner.state.save(evolution)
        # A time to live deletes no local run: it is a folder, and a person removes it.
        action = None if isinstance(decision.action, DeleteEvolution) else decision.action
        if action is not None:
            runner.execute(action)
        on_pass(evolution, observed)
        if changed or action is not None:
            continue
        if evolution.status.finished or (evolution.spec.suspend and not runner.processes):
            return evolution
        time.sleep(POLL_SECONDS)
