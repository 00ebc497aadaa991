"""Starts the training processes and waits for their end.

``python -m selfemo_jobs.stages.train.launch …`` is torchrun, with the same arguments, that ends
when the stage ends. torchrun starts each worker in a session of its own, so that a signal to the
process group does not reach it. Each process therefore asks the kernel to end it with its parent.

The processes trust each other and exchange pickles. On one node nothing of them listens beyond the
loopback interface: they meet in a file (:func:`~.worker.join_process_group`).
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from selfemo_api.contract import ENV_GRACE, ENV_PARENT, ENV_RENDEZVOUS, ENV_SHARD, ExitCode
from selfemo_api.spec import ResourcesSpec
from selfemo_api.text.control_characters import printable_lines
from selfemo_jobs.errors import BadInput, Terminated
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.threads import THREADS, available_processors, set_thread_defaults
from selfemo_jobs.stages.train.process_ends import common_exit_code, is_timeout, stage_error
from selfemo_jobs.stages.train.worker_protocol import ENV_GROUP, TrainJob

log = logging.getLogger(__name__)

WORKER = "selfemo_jobs.stages.train.worker"
#: The name of torchrun's rendezvous for one node, see :mod:`.one_node_rendezvous`.
ONE_NODE = "one-node"
#: Seconds between SIGTERM and SIGKILL where the environment has none: Kubernetes' default.
_GRACE_SECONDS = 30.0
#: Seconds of these in which the stage reports its end, after its workers have ended.
_REPORT_SECONDS = 2.0
_ENDED_ELSEWHERE = (
    "SIGTERM arrived at another process of the training, and all have saved; the same command "
    "continues from the checkpoint"
)


def worker_grace_seconds() -> float:
    """Return the seconds from SIGTERM until the workers are killed.

    They are those of the stage itself, of its pod or its local runner, but for the last two. In
    them the workers end a step and write a checkpoint.
    """
    text = os.environ.get(ENV_GRACE, "")
    try:
        seconds = float(text or _GRACE_SECONDS)
    except ValueError:
        raise BadInput(f"{ENV_GRACE} is {text}: set a number of seconds") from None
    return max(seconds - _REPORT_SECONDS, seconds / 2)


def worker_command(resources: ResourcesSpec, job_file: Path) -> list[str]:
    """Return the command that starts the processes of this node.

    Parameters
    ----------
    resources
        The field ``spec.resources``.
    job_file
        JSON file of the TrainJob.

    Returns
    -------
    list of str
        The program and its arguments: one worker, or torchrun for several.

    Raises
    ------
    BadInput
        If there are several nodes and the environment has no address of the first one.
    """
    worker = ["-m", WORKER, "--job", str(job_file)]
    if resources.processes == 1:
        return [sys.executable, *worker]
    torchrun = [sys.executable, "-m", "selfemo_jobs.stages.train.launch"]
    if resources.nodes == 1:
        # not `--standalone`: its store listens on all addresses, and unpickles what anyone writes
        rendezvous = [f"--rdzv-backend={ONE_NODE}"]
    else:
        endpoint = os.environ.get(ENV_RENDEZVOUS)
        if not endpoint:
            raise BadInput(
                f"`resources.nodes` is {resources.nodes}: set {ENV_RENDEZVOUS} to host:port of the "
                "first node"
            )
        rendezvous = [
            f"--nnodes={resources.nodes}",
            f"--node-rank={os.environ.get(ENV_SHARD, '0')}",
            # c10d would number the nodes by host and process id; we use the index of the Job
            "--rdzv-backend=static",
            f"--rdzv-endpoint={endpoint}",
        ]
    return [*torchrun, *rendezvous, f"--nproc-per-node={resources.local_processes}", *worker]


def worker_environment(resources: ResourcesSpec) -> dict[str, str]:
    """Return the environment variables of the processes.

    Parameters
    ----------
    resources
        The field ``spec.resources``.

    Returns
    -------
    dict of str to str
        This process's environment with changes.
    """
    environment = {
        **os.environ,
        ENV_PARENT: str(os.getpid()),
        # torchrun would kill its workers after 30 seconds
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(worker_grace_seconds())),
        # All files are on this machine by now, and TRL would report each start to its developers.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if resources.nodes == 1:  # Gloo and NCCL would listen on the interface of the host's name
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if resources.processes == 1:  # what torchrun sets for a single process
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    if resources.gpus_per_node == 0:
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        threads = max(1, available_processors() // resources.local_processes)
        environment.setdefault(THREADS, str(threads))
    # torchrun gives each of several processes one thread
    set_thread_defaults(environment, counts=resources.processes == 1)
    return environment


def launch(job: TrainJob, job_file: Path) -> None:
    """Start the processes of a training, and wait until they end.

    Parameters
    ----------
    job
        The training.
    job_file
        JSON file of the same TrainJob.

    Raises
    ------
    Terminated
        If SIGTERM arrived here or at a process of another node. The processes have written a
        checkpoint.
    Unavailable
        If the nodes did not meet, or another one has ended.
    StageError
        If a process failed, with its message.
    """
    grace = worker_grace_seconds()
    for stale in job.folder.glob("failure-*.json"):
        stale.unlink()
    # torch locks the file of the group, which the file system of the scratch folder may not support
    with tempfile.TemporaryDirectory(prefix="selfemo-group-") as folder:
        process = subprocess.Popen(
            worker_command(job.resources, job_file),
            env={**worker_environment(job.resources), ENV_GROUP: f"{folder}/group"},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # standard output is for the result
        )
        code = _exit_code(process, grace)
    if code == ExitCode.TERMINATED:
        raise Terminated(_ENDED_ELSEWHERE)
    if code:
        raise stage_error(job, code)


def _exit_code(process: subprocess.Popen[bytes], grace: float) -> int:
    """Wait until a process ends. At SIGTERM it has some seconds to end, and is then killed."""
    try:
        return process.wait()
    except Terminated:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def main() -> None:
    """Run torchrun in this process, which is the parent that the workers end with.

    torchrun itself would end with 1 however its workers have ended, or if the nodes do not meet.
    """
    die_with_parent()
    os.environ[ENV_PARENT] = str(os.getpid())
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry
    from torch.distributed.run import main as torchrun

    from selfemo_jobs.stages.train.one_node_rendezvous import OneNodeRendezvous

    rendezvous_handler_registry.register(ONE_NODE, OneNodeRendezvous)
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        sys.stderr.write(f"{printable_lines(str(error))}\n")
        ends = [(failure.timestamp, failure.exitcode) for failure in error.failures.values()]
        sys.exit(common_exit_code(ends))
    except DistError as error:
        if not is_timeout(str(error)):
            raise
        sys.stderr.write(f"{printable_lines(str(error))}\n")
        sys.exit(ExitCode.UNAVAILABLE)


if __name__ == "__main__":
    main()
