"""Whether DeepSpeed trains the model, as the spec says."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine


def check_engine(engine: Any, zero_stage: int, processes: int) -> dict[str, str | int | None]:
    """Check the engine of a training, let it store the norm of gradients, and return its settings.

    Parameters
    ----------
    engine
        The model as Accelerate has wrapped it.
    zero_stage
        The ZeRO stage of the spec.
    processes
        The number of processes on all nodes.

    Returns
    -------
    dict of str to str, int or None
        Fields for the log.

    Raises
    ------
    RuntimeError
        If the model is not a DeepSpeed engine at that stage.
    """
    stage = engine.zero_optimization_stage() if isinstance(engine, DeepSpeedEngine) else None
    if stage != zero_stage or engine.world_size != processes:
        raise RuntimeError(
            f"training must run on a DeepSpeedEngine at ZeRO stage {zero_stage}, not on "
            f"{type(engine).__name__} at {stage}"
        )
    if zero_stage == 0 and not engine.bfloat16_enabled():
        engine.clip_fp32_gradients = functools.partial(_clip_and_store_norm, engine)
    return {
        "engine": type(engine).__name__,
        "zeroStage": stage,
        "worldSize": engine.world_size,
        "backend": dist.get_backend(),
    }


def _clip_and_store_norm(engine: Any) -> None:
    """Clip gradients as the engine does, and store their norm, which it discards at ZeRO 0."""
    norm = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping())
    engine._global_grad_norm = norm.item()
