"""The record beside a manifest: times, and the machine. It is for people and reports.

No result follows from it, and it is never read to decide anything. It has no host name.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.stage_resources import gpus_of

#: The name of the file, in the folder of the stage.
RUN_RECORD = "run.json"
_MODEL_NAME = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
#: Seconds to wait for the GPU driver's program.
_TIMEOUT = 10.0


def run_record(config: StageConfig, seconds: float) -> dict[str, Any]:
    """Return what differs between two runs of a stage: times, and the machine. It is for people.

    Parameters
    ----------
    config
        The stage's configuration.
    seconds
        The wall time of the stage's work in seconds.
    """
    gpus = gpus_of(config.spec, config.stage)
    return {
        "seconds": round(seconds, 3),
        "finishedTime": time.time(),
        "gpus": gpus,
        "machine": machine_record(with_gpus=gpus > 0),
    }


def machine_record(*, with_gpus: bool) -> dict[str, Any]:
    """Return the processor, the number of cores, and the names of the GPUs of this machine.

    Parameters
    ----------
    with_gpus
        Whether the stage uses GPUs. Otherwise the driver is not asked for their names.

    Examples
    --------
    >>> sorted(machine_record(with_gpus=False))
    ['cores', 'gpus', 'processor']
    """
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpus": gpu_names() if with_gpus else [],
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, or that of its architecture.

    Parameters
    ----------
    cpuinfo
        The file in which Linux describes the processor.
    """
    try:
        match = _MODEL_NAME.search(cpuinfo.read_text(errors="replace"))
    except OSError:
        match = None
    return " ".join(match.group(1).split()) if match else platform.machine()


def gpu_names() -> list[str]:
    """Return the name of each GPU that NVIDIA's driver reports; none without the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # the record is for people: a stage does not fail because of it
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
