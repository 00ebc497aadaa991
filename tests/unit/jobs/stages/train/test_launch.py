"""The command and environment of the processes, and the error after they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.operator.process import free_port

from selfemo_api.contract import ENV_GRACE, ENV_PARENT, ENV_SHARD
from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.errors import BadInput, StageError, Terminated, Unavailable
from selfemo_jobs.stages.train import launch as launch_module
from selfemo_jobs.stages.train.launch import (
    ENV_RENDEZVOUS,
    worker_command,
    worker_environment,
    worker_grace_seconds,
)
from selfemo_jobs.stages.train.worker_protocol import TrainJob, write_json

FILE = Path("/somewhere/job.json")


def resources(**fields: Any) -> ResourcesSpec:
    return ResourcesSpec.model_validate({"gpusPerNode": 0} | fields)


def test_one_process_needs_no_torchrun() -> None:
    worker = ["-m", "selfemo_jobs.stages.train.worker", "--job", str(FILE)]
    assert worker_command(resources(), FILE) == [sys.executable, *worker]
    assert worker_environment(resources())["WORLD_SIZE"] == "1"


def test_several_processes_are_started_by_torchrun() -> None:
    arguments = worker_command(resources(processesPerNode=2), FILE)
    assert arguments[1:5] == [
        "-m",
        "selfemo_jobs.stages.train.launch",
        "--rdzv-backend=one-node",
        "--nproc-per-node=2",
    ]
    assert "WORLD_SIZE" not in worker_environment(resources(processesPerNode=2))


def test_several_nodes_need_the_address_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_SHARD, "1")
    monkeypatch.delenv(ENV_RENDEZVOUS, raising=False)
    several = resources(nodes=2, gpusPerNode=4)
    with pytest.raises(BadInput, match=ENV_RENDEZVOUS):
        worker_command(several, FILE)
    monkeypatch.setenv(ENV_RENDEZVOUS, "train-0.svc:29400")
    assert "GLOO_SOCKET_IFNAME" not in worker_environment(several).keys() - os.environ.keys()
    arguments = worker_command(several, FILE)
    for argument in (
        "--nnodes=2",
        "--node-rank=1",
        "--rdzv-endpoint=train-0.svc:29400",
        "--nproc-per-node=4",
    ):
        assert argument in arguments


def test_the_environment_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    on_cpu = worker_environment(resources(processesPerNode=2))
    assert (on_cpu["DS_ACCELERATOR"], on_cpu["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert on_cpu["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert on_cpu[ENV_PARENT] == str(os.getpid())
    assert (
        "DS_ACCELERATOR"
        not in worker_environment(resources(gpusPerNode=1)).keys() - os.environ.keys()
    )
    assert on_cpu["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert (on_cpu["GLOO_SOCKET_IFNAME"], on_cpu["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")


@pytest.mark.parametrize(
    ("grace", "expected"), [("120", 118.0), ("600", 598.0), (None, 28.0), ("2", 1.0), ("0", 0.0)]
)
def test_the_workers_have_the_time_of_the_pod(
    grace: str | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV_GRACE, raising=False)
    if grace is not None:
        monkeypatch.setenv(ENV_GRACE, grace)
    assert worker_grace_seconds() == expected
    environment = worker_environment(resources(processesPerNode=2))
    assert environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == f"{expected:.0f}"


@pytest.mark.parametrize(("grace", "saved"), [("5", True), ("1", False)])
def test_a_training_is_killed_when_its_time_has_passed(
    grace: str, *, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers need a second to save; the stage waits as long as its pod does."""
    file = tmp_path / "saved"
    worker = (
        "import pathlib, signal, time\n"
        f"save = lambda *_: (time.sleep(1), pathlib.Path({str(file)!r}).touch(), exit(0))\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"pathlib.Path({str(tmp_path)!r}, 'began').touch()\n"
        "time.sleep(60)"
    )
    monkeypatch.setenv(ENV_GRACE, grace)
    command = [sys.executable, "-S", "-c", worker]
    monkeypatch.setattr(launch_module, "worker_command", lambda *_: command)

    def wait_then_end(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is not None or process.returncode is not None or process.args != command:
            return plain_wait(process, timeout)
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        monkeypatch.setattr(subprocess.Popen, "wait", plain_wait)
        raise Terminated("ended by SIGTERM")

    plain_wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", wait_then_end)
    with pytest.raises(Terminated):
        launch_module.launch(job(tmp_path), FILE)
    assert file.exists() is saved


def job(folder: Path) -> TrainJob:
    return TrainJob(
        training=TrainingSpec(),
        resources=resources(),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=folder,
        policy=folder,
    )


@pytest.mark.parametrize(("code", "error"), [(143, Terminated), (1, StageError)])
def test_torchrun_ends_as_its_first_worker_did(
    code: int, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM arrived at another node: all workers save and end with 143, torchrun with 1."""
    run_by_torchrun(f"raise SystemExit({code})", tmp_path, monkeypatch)
    with pytest.raises(error) as raised:
        launch_module.launch(job(tmp_path), FILE)
    assert raised.type is error


def test_a_killed_worker_is_named_although_another_one_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel kills a process for its memory; the connection of the other one is closed."""
    worker = (
        "import os, signal, sys, torch.distributed as dist\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.stages.train import worker\n"
        "from selfemo_jobs.stages.train.worker_protocol import TrainJob\n"
        f"job = TrainJob.model_validate_json(Path({str(tmp_path / 'job.json')!r}).read_bytes())\n"
        "def train(*_):\n"
        "    worker.join_process_group(job)\n"
        "    if dist.get_rank() == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    dist.barrier()\n"
        "worker._train = train\n"
        f"sys.argv = ['worker', '--job', {str(tmp_path / 'job.json')!r}]\n"
        "os._exit(worker.main())\n"
    )
    training = job(tmp_path).model_copy(update={"resources": resources(processesPerNode=2)})
    write_json(tmp_path / "job.json", training)
    run_by_torchrun(worker, tmp_path, monkeypatch)
    with pytest.raises(StageError, match=r"code 137 .*; if the machine ran out of memory"):
        launch_module.launch(training, FILE)


def test_a_full_disk_is_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = (
        "import errno, os, sys\n"
        "from selfemo_jobs.stages.train import worker\n"
        "def train(*_):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device', '/work/old.safetensors')\n"
        "worker._train = train\n"
        f"sys.argv = ['worker', '--job', {str(tmp_path / 'job.json')!r}]\n"
        "os._exit(worker.main())\n"
    )
    write_json(tmp_path / "job.json", job(tmp_path))
    run_by_torchrun(worker, tmp_path, monkeypatch)
    with pytest.raises(BadInput, match=r"/work/old\.safetensors: disk full: free space"):
        launch_module.launch(job(tmp_path), FILE)


@pytest.mark.parametrize("node", [0, 1])
def test_nodes_that_do_not_meet_are_unavailable(
    node: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_SHARD, str(node))
    monkeypatch.setenv(ENV_RENDEZVOUS, f"127.0.0.1:{free_port()}")
    several = resources(nodes=2)
    command = worker_command(several, FILE)
    command.insert(command.index("--rdzv-backend=static"), "--rdzv-conf=timeout=1")
    monkeypatch.setattr(launch_module, "worker_command", lambda *_: command)
    with pytest.raises(Unavailable, match="the 2 nodes of the training did not meet"):
        launch_module.launch(job(tmp_path).model_copy(update={"resources": several}), FILE)


def run_by_torchrun(worker: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two real processes of torchrun run some code in place of the workers'."""
    script = folder / "script.py"
    script.write_text(worker)
    command = worker_command(resources(processesPerNode=2), FILE)
    command = [*command[: command.index("-m", 2)], str(script)]
    monkeypatch.setattr(launch_module, "worker_command", lambda *_: command)
