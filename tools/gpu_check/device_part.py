"""Which device it is, and what its products of matrices and its memory reach."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import torch
from tools.gpu_check.lines import DEVICE_FILE, Settings

from selfemo_jobs.stages.check.devices import find_device

#: The share of the published figures that large products and copies must reach. A GPU that reaches
#: less is throttled, shared, or not the one that it says.
GOAL = 0.5


def run(settings: Settings) -> None:
    """Write the figures of the device, for the other parts too."""
    flops, moved = _products(settings), _copies(settings)
    name = torch.cuda.get_device_name() if settings.on_gpu else f"{os.cpu_count()} processors"
    published = find_device(name) if settings.on_gpu else None
    peak = {
        "flops": published.teraflops * 1e12 if published else flops,
        "bytes": published.bandwidth * 1e9 if published else moved,
    }
    (settings.folder / DEVICE_FILE).write_text(json.dumps(peak))
    share = min(flops / peak["flops"], moved / peak["bytes"])
    settings.write(
        "device: products and copies, share of the published figures",
        value=round(share, 3),
        goal=GOAL,
        holds=share >= GOAL,
        model=name,
        published=published is not None,
        torch=torch.__version__,
        memoryGiB=round(_memory(settings) / 2**30, 1),
        teraflops=round(flops / 1e12, 2),
        gigabytesPerSecond=round(moved / 1e9, 1),
    )


def seconds(work: Callable[[], object], settings: Settings, repeats: int = 3) -> float:
    """Return the shortest time of some repeats; the first one, which compiles, does not count.

    Parameters
    ----------
    work
        What is timed.
    settings
        The device, which is waited for.
    repeats
        The number of times that count.
    """
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if settings.on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _products(settings: Settings) -> float:
    """Return the floating-point operations a second of a large product."""
    size, kind = (8192, torch.bfloat16) if settings.on_gpu else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=settings.device).to(kind) for _ in range(2))
    return 2.0 * size**3 / seconds(lambda: left @ right, settings, repeats=10)


def _copies(settings: Settings) -> float:
    """Return the bytes a second that a copy in the device's memory reads and writes."""
    size = (1 << 30) if settings.on_gpu else (1 << 26)
    source = torch.zeros(size, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)
    return 2.0 * size / seconds(lambda: target.copy_(source), settings, repeats=10)


def _memory(settings: Settings) -> int:
    if settings.on_gpu:
        return int(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
