"""The record beside a manifest: what the machine is, without saying which one."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfemo_api.contract import StageConfig
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.run_record import gpu_names, machine_record, processor_name, run_record


def test_the_record_has_time_gpus_and_machine(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfemo_jobs.runtime.run_record.gpu_names", lambda: ["NVIDIA H100"] * 2)
    spec = make_spec(resources={"gpusPerNode": 2, "nodes": 3})
    record = run_record(make_config(Stage.TRAIN, spec=spec), 4.00049)
    assert record["seconds"] == 4.0
    assert abs(record["finishedTime"] - time.time()) < 60
    assert (record["gpus"], record["machine"]["gpus"]) == (6, ["NVIDIA H100"] * 2)
    without = run_record(make_config(Stage.FLYWHEEL, spec=spec), 4.0)
    assert (without["gpus"], without["machine"]["gpus"]) == (0, [])
    assert platform.node() not in str(record)


def test_the_machine_of_this_test() -> None:
    record = machine_record(with_gpus=False)
    assert record["cores"] == len(os.sched_getaffinity(0))
    assert record["processor"]


def test_the_processors_name_is_that_of_the_first_core(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\nmodel name\t: Other\n")
    assert processor_name(cpuinfo) == "Some CPU @ 2 GHz"
    assert processor_name(tmp_path / "missing") == platform.machine()


def test_gpus_are_named_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_names() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H200\necho NVIDIA H200\n")
    program.chmod(0o755)
    assert gpu_names() == ["NVIDIA H200", "NVIDIA H200"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names() == []
