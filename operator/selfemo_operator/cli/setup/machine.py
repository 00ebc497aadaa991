"""What ``selfemo doctor`` finds about the machine: processor, memory, GPUs and disks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from selfemo_operator.cli.setup.finding import Finding, Mark

_GIB = 1 << 30
#: Memory in GiB below which even the small models do not train.
_LEAST_MEMORY = 4
#: Free space in GiB below which a model and its checkpoints do not fit.
_LEAST_DISK = 2
#: Instructions that make the work of a CPU fast, from new to old.
_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
_UNLIMITED = 1 << 60


def processor_finding(cpuinfo: str | None = None) -> Finding:
    """Return what is found about the processor.

    Parameters
    ----------
    cpuinfo
        The text of /proc/cpuinfo. None: that of this machine.
    """
    text = _read(Path("/proc/cpuinfo")) if cpuinfo is None else cpuinfo
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags[1].split()) if flags else set()
    useful = [flag for flag in _FLAGS if flag in has]
    count = len(os.sched_getaffinity(0))
    shown = f"{count} x {model[1] if model else 'unknown'} ({', '.join(useful) or 'no AVX2'})"
    if useful or not flags:
        return Finding(Mark.OK, "processor", shown)
    advice = "vLLM on a CPU needs AVX2: set `selfPlay.engine: Transformers`"
    return Finding(Mark.NOTE, "processor", shown, advice)


def memory_finding(root: Path = Path("/")) -> Finding:
    """Return what is found about the memory that a run may use.

    Parameters
    ----------
    root
        The root of the file system, in which `proc` and `sys` are.
    """
    numbers = dict(re.findall(r"^(\w+):\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE))
    total = int(numbers.get("MemTotal", 0)) * 1024
    free = int(numbers.get("MemAvailable", 0)) * 1024
    limit_text = _read(root / "sys/fs/cgroup/memory.max").strip()
    limit = int(limit_text) if limit_text.isdigit() else _UNLIMITED
    text = f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB available"
    if limit < min(total, _UNLIMITED):
        text += f", {limit / _GIB:.1f} GiB allowed by the cgroup"
    if min(free, limit) >= _LEAST_MEMORY * _GIB:
        return Finding(Mark.OK, "memory", text)
    advice = f"free some memory: the smallest runs need {_LEAST_MEMORY} GiB"
    return Finding(Mark.PROBLEM, "memory", text, advice)


def gpu_finding() -> Finding:
    """Return what is found about GPUs, by the driver's own program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding(Mark.OK, "gpu", "none: models run on the CPU")
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(Mark.PROBLEM, "gpu", f"{program} fails: {error}", _DRIVER)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["it printed nothing"]
        return Finding(Mark.PROBLEM, "gpu", f"{program} fails: {reason[-1]}", _DRIVER)
    return Finding(Mark.OK, "gpu", "; ".join(line.strip() for line in lines))


_DRIVER = "fix the NVIDIA driver, or hide the GPUs with CUDA_VISIBLE_DEVICES="


def disk_findings(state: Path) -> Iterator[Finding]:
    """Yield what is found about the disks of the state folder and of downloaded models.

    Parameters
    ----------
    state
        The folder with the states of all evolutions.
    """
    cache = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    for name, folder in (("disk of the state", state), ("disk of downloads", Path(cache))):
        existing = folder.absolute()
        while not existing.exists():
            existing = existing.parent
        free = shutil.disk_usage(existing).free
        text = f"{free / _GIB:.1f} GiB free at {existing}"
        if not os.access(existing, os.W_OK):
            advice = "make the folder writable, or use another folder"
            yield Finding(Mark.PROBLEM, name, f"{existing} is not writable", advice)
        elif free < _LEAST_DISK * _GIB:
            advice = f"free at least {_LEAST_DISK} GiB, or use a folder on another disk"
            yield Finding(Mark.PROBLEM, name, text, advice)
        else:
            yield Finding(Mark.OK, name, text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
