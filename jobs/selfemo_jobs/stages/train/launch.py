"""Starts the processes of a training, and sees to their end.

``python -m selfemo_jobs.stages.train.launch …`` is torchrun (same arguments) that dies with the
stage.
torchrun puts each worker into a session of its own, so a signal to a process group misses them:
each process asks the kernel to die with its parent.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from selfemo_api.contract import ENV_PARENT, ENV_RENDEZVOUS, ENV_SHARD
from selfemo_api.spec import TrainingSpec
from selfemo_jobs.errors import BadInput, StageError, Terminated, Unavailable
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.stages.train.worker_protocol import TrainJob, failures

log = logging.getLogger(__name__)

WORKER = "selfemo_jobs.stages.train.worker"
#: After SIGTERM: a step, and a checkpoint of a small model. torchrun itself kills after 30 s.
GRACE_SECONDS = 28.0


def command(training: TrainingSpec, job: Path) -> list[str]:
    """Return the command that trains on this node.

    Parameters
    ----------
    training
        ``spec.training``.
    job
        File of the TrainJob.

    Raises
    ------
    BadInput
        If there are several nodes and it is not said where they meet.
    """
    worker = ["-m", WORKER, "--job", str(job)]
    if training.processes == 1:
        return [sys.executable, *worker]
    torchrun = [sys.executable, "-m", "selfemo_jobs.stages.train.launch"]
    if training.nodes == 1:
        where = ["--standalone"]
    else:
        endpoint = os.environ.get(ENV_RENDEZVOUS)
        if not endpoint:
            raise BadInput(
                f"`training.nodes` is {training.nodes}: set {ENV_RENDEZVOUS} to host:port of the "
                "first node"
            )
        where = [
            f"--nnodes={training.nodes}",
            f"--node-rank={os.environ.get(ENV_SHARD, '0')}",
            # c10d would number the nodes by host and process id; ours is the Job's own index
            "--rdzv-backend=static",
            f"--rdzv-endpoint={endpoint}",
        ]
    return [*torchrun, *where, f"--nproc-per-node={training.local_processes}", *worker]


def environment(training: TrainingSpec) -> dict[str, str]:
    """Return the environment of the processes."""
    found = {
        **os.environ,
        ENV_PARENT: str(os.getpid()),
        # Everything is on this machine by now, and TRL would report each start to its makers.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if training.processes == 1:  # what torchrun would say; nobody else is to be met
        found |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    if training.gpus_per_node == 0:
        found |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        threads = max(1, len(os.sched_getaffinity(0)) // training.local_processes)
        found.setdefault("OMP_NUM_THREADS", str(threads))
    return found


def launch(job: TrainJob, file: Path) -> None:
    """Run the processes of a training to their end.

    Raises
    ------
    Terminated
        If SIGTERM came; the processes have saved a checkpoint.
    StageError
        If a process failed: with its own words.
    """
    for old in job.folder.glob("failure-*.json"):
        old.unlink()
    process = subprocess.Popen(
        command(job.training, file),
        env=environment(job.training),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # standard output is for the result
    )
    try:
        code = process.wait()
    except Terminated:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    if code:
        raise _failure(job, code)


def _failure(job: TrainJob, code: int) -> StageError:
    said = failures(job.folder)
    if not said:
        return StageError(
            f"a training process ended with code {code} and said nothing; if the machine ran out "
            "of memory, lower `training.microBatchSize` or set `training.deepspeed.offload`"
        )
    first = said[0]
    if first.kind == BadInput.kind:
        return BadInput(first.error)
    if first.kind == Unavailable.kind:
        return Unavailable(first.error)
    if "out of memory" in first.error.lower():
        return StageError(
            f"{first.error} (lower `training.microBatchSize`, raise `training.deepspeed.zeroStage` "
            "or set `training.deepspeed.offload`)"
        )
    return StageError(first.error)


def main() -> None:
    """Be torchrun, with this process as the parent that workers die with."""
    die_with_parent()
    os.environ[ENV_PARENT] = str(os.getpid())
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
