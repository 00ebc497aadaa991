"""Times a step of AdamW over weights in main memory, as an offload has them.

``python benchmarks/optimizer.py [--parameters 50000000] [--repeats 7]`` compares three kernels:
PyTorch's fused one, which `training.deepspeed.offload` uses; PyTorch's ordinary one; and
DeepSpeed's own, which it compiles at the first start (minutes, with a C++ compiler). They take
turns in one process, so that other work on the machine hits all of them. Their weights must agree
at the end. It prints one JSON line; all figures are ratios to the fused kernel: of the shortest
wall times, since other work on the machine only adds time, and of the median processor times
(`processor`). Without a compiler, DeepSpeed's is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch

OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
#: The claim: PyTorch's fused kernel, which needs no compiler, is several times as fast.
GOAL = 5.0
#: The kernels add in another order, and each step moves a weight by the learning rate.
TOLERANCE = 1e-5


def optimizers(count: int) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
    """Yield each kernel with weights and gradients of its own, which are equal at the start.

    ZeRO keeps a process's part of the weights in one flat tensor.
    """

    def weights() -> torch.nn.Parameter:
        generator = torch.Generator().manual_seed(0)
        flat = torch.nn.Parameter(torch.randn(count, generator=generator))
        flat.grad = torch.randn(count, generator=generator)
        return flat

    flat = weights()
    yield "fused", flat, torch.optim.AdamW([flat], fused=True, **OPTIONS)
    flat = weights()
    yield "ordinary", flat, torch.optim.AdamW([flat], **OPTIONS)
    flat = weights()
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        kernel = DeepSpeedCPUAdam([flat], adamw_mode=True, **OPTIONS)
    except (ImportError, OSError, RuntimeError) as error:  # of the compilation
        print(f"DeepSpeed's kernel is left out: {error}", file=sys.stderr)
        return
    yield "deepspeed", flat, kernel


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value / seconds["fused"], 2) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=50_000_000, help="weights of a step")
    parser.add_argument("--repeats", type=int, default=7, help="steps of each kernel")
    arguments = parser.parse_args()
    kernels = list(optimizers(arguments.parameters))
    wall: dict[str, list[float]] = {name: [] for name, _, _ in kernels}
    processor: dict[str, list[float]] = {name: [] for name, _, _ in kernels}
    for repeat in range(arguments.repeats + 1):
        for name, _, optimizer in kernels:
            began, used = time.perf_counter(), time.process_time()
            optimizer.step()
            if repeat:  # the first step allocates the moments
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - used)
    shortest = {name: min(times) for name, times in wall.items()}
    medians = {name: statistics.median(times) for name, times in processor.items()}
    first = kernels[0][1].detach()
    for name, flat, _ in kernels[1:]:
        difference = (flat.detach() - first).abs().max().item()
        assert difference < TOLERANCE, f"{name} differs by {difference}"
    line = {"name": "optimizer-step", "unit": "ratio", **_ratios(shortest)}
    line["processor"] = _ratios(medians)
    line["parameters"] = arguments.parameters
    line["milliseconds"] = {name: round(1000 * value, 1) for name, value in shortest.items()}
    line["holds"] = line["ordinary"] >= GOAL
    print(json.dumps(line))


if __name__ == "__main__":
    main()
