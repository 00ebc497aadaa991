"""Whether a processor multiplies bfloat16 well; few without AVX512-BF16 or AMX do."""

from __future__ import annotations

import logging
import time

import torch

log = logging.getLogger(__name__)

#: Where bfloat16 takes so many times float32's time, float32 is the better choice by any reckoning.
SLOW = 1.5
#: About the products of a small model's layer; both arithmetics take milliseconds.
_ROWS, _WIDTH = 64, 512


def bfloat16_slowness() -> float:
    """Return how many times longer this processor takes for a product of bfloat16 than of float32.

    It is measured, in some tens of milliseconds: what a processor says of itself does not tell what
    PyTorch's kernels make of it.
    """
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def warn_of_slow_bfloat16(field: str) -> None:
    """Say in the log where bfloat16 was asked of a processor that is slow at it.

    Parameters
    ----------
    field
        The setting that asks for it, and what to set instead.
    """
    slowness = bfloat16_slowness()
    if slowness > SLOW:
        log.warning(
            "%s is quicker here: this processor takes %.1f times as long for products of bfloat16",
            field,
            slowness,
        )


def _seconds(dtype: torch.dtype) -> float:
    factors = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    best = float("inf")
    for _ in range(5):  # the first makes the kernel
        began = time.perf_counter()
        torch.nn.functional.linear(*factors)
        best = min(best, time.perf_counter() - began)
    return best
