"""The processes' commands, and what their end means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.contract import ENV_PARENT, ENV_SHARD
from selfemo_api.spec import TrainingSpec
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.stages.train.launch import ENV_RENDEZVOUS, _failure, command, environment
from selfemo_jobs.stages.train.worker_protocol import TrainFailure, TrainJob, write_json

FILE = Path("/somewhere/job.json")


def spec(**fields: Any) -> TrainingSpec:
    return TrainingSpec.model_validate({"gpusPerNode": 0} | fields)


def test_one_process_needs_no_torchrun() -> None:
    worker = ["-m", "selfemo_jobs.stages.train.worker", "--job", str(FILE)]
    assert command(spec(), FILE) == [sys.executable, *worker]
    assert environment(spec())["WORLD_SIZE"] == "1"


def test_several_processes() -> None:
    found = command(spec(processesPerNode=2), FILE)
    assert found[1:5] == [
        "-m",
        "selfemo_jobs.stages.train.launch",
        "--standalone",
        "--nproc-per-node=2",
    ]
    assert "WORLD_SIZE" not in environment(spec(processesPerNode=2))


def test_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_SHARD, "1")
    monkeypatch.delenv(ENV_RENDEZVOUS, raising=False)
    several = spec(nodes=2, gpusPerNode=4, batchSize=64)
    with pytest.raises(BadInput, match=ENV_RENDEZVOUS):
        command(several, FILE)
    monkeypatch.setenv(ENV_RENDEZVOUS, "train-0.svc:29400")
    found = command(several, FILE)
    for argument in (
        "--nnodes=2",
        "--node-rank=1",
        "--rdzv-endpoint=train-0.svc:29400",
        "--nproc-per-node=4",
    ):
        assert argument in found


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    on_cpu = environment(spec(processesPerNode=2))
    assert (on_cpu["DS_ACCELERATOR"], on_cpu["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert on_cpu["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert on_cpu[ENV_PARENT] == str(os.getpid())
    assert "DS_ACCELERATOR" not in environment(spec(gpusPerNode=1)).keys() - os.environ.keys()
    assert on_cpu["HF_HUB_DISABLE_TELEMETRY"] == "1"


def job(folder: Path) -> TrainJob:
    return TrainJob(
        training=spec(),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=folder,
        policy=folder,
    )


def say(folder: Path, rank: int, kind: str, error: str, when: int) -> None:
    write_json(job(folder).failure(rank), TrainFailure(kind=kind, error=error, when=when))


def test_the_first_failure_is_the_cause(tmp_path: Path) -> None:
    say(tmp_path, 0, "Internal", "RuntimeError: connection closed by peer", 2)
    say(tmp_path, 1, "BadInput", "training diverged", 1)
    found = _failure(job(tmp_path), 1)
    assert isinstance(found, BadInput)
    assert str(found) == "training diverged"


def test_out_of_memory_says_what_to_do(tmp_path: Path) -> None:
    say(tmp_path, 0, "Internal", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1)
    found = _failure(job(tmp_path), 1)
    assert type(found) is StageError
    assert "microBatchSize" in str(found)


def test_a_process_that_was_killed_said_nothing(tmp_path: Path) -> None:
    assert "code -9 and said nothing" in str(_failure(job(tmp_path), -9))
