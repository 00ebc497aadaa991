"""Rounded products of a training on a CPU: forward passes, and layers that are computed again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def rounding_context(*, rounded: bool) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes the context of the forward passes.

    Parameters
    ----------
    rounded
        Whether a CPU rounds the factors of products to bfloat16.
    """
    if not rounded:
        return nullcontext
    from selfemo_jobs.acceleration.bf16_emulation import bfloat16_products  # for a CPU alone

    return bfloat16_products


def checkpointing_options(*, rounded: bool) -> dict[str, Any]:
    """Return PyTorch's options of gradient checkpointing.

    The backward pass computes layers again. PyTorch restores autocast for that, but not what
    replaces products of bfloat16, so that the layers would compute something else.

    Parameters
    ----------
    rounded
        Whether a CPU rounds the factors of products in the forward pass, as in the context of
        :func:`~selfemo_jobs.acceleration.bf16_emulation.bfloat16_products`.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if rounded:
        from selfemo_jobs.acceleration.bf16_emulation import recomputation  # for a CPU alone

        options["context_fn"] = recomputation
    return options
