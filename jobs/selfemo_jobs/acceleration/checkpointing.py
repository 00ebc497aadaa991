"""Gradient checkpointing: layers are computed again as the forward pass computed them."""

from __future__ import annotations

from typing import Any


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
