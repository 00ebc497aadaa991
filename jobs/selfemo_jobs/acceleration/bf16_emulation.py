"""bfloat16 on processors that do not multiply it: few without AVX512-BF16 or AMX do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

log = logging.getLogger(__name__)

#: Where bfloat16 takes so many times float32's time, a detour over float32 pays.
SLOW = 1.5
#: About the products of a small model's layer; both arithmetics take milliseconds.
_ROWS, _WIDTH = 64, 512


class RoundedProducts(TorchFunctionMode):
    """Works out products of bfloat16 in float32, while it is entered.

    Factors and results are bfloat16's numbers all the same, and sums are float32's, as in
    processors that multiply bfloat16 themselves: only the order of a sum may differ.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch's, by the detour where it multiplies bfloat16."""
        options = dict(kwargs or {})
        if func not in _PRODUCTS or not (_autocast() or args[0].dtype is torch.bfloat16):
            return func(*args, **options)
        out = options.pop("out", None)
        with torch.autocast("cpu", enabled=False):
            factors = {name: _factor(value) for name, value in options.items()}
            found: torch.Tensor = func(*map(_factor, args), **factors)
        return found.to(torch.bfloat16) if out is None else out.copy_(found)


#: What a decoder and TRL's head spend their time on. The first argument of each is a factor.
_PRODUCTS = frozenset({functional.linear, functional.scaled_dot_product_attention, torch.mm})


def bfloat16_products(wanted: bool) -> AbstractContextManager[Any]:
    """Return the context in which a CPU is to work; with bfloat16, the quicker one here.

    It says so once in the log where float32 would be quicker still.
    """
    return RoundedProducts() if wanted and _slow() else nullcontext()


def bfloat16_slowness() -> float:
    """Return how many times longer this processor takes for a product of bfloat16 than of float32.

    It is measured, in some tens of milliseconds: what a processor says of itself does not tell what
    PyTorch's kernels make of it.
    """
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


@cache
def _slow() -> bool:
    slowness = bfloat16_slowness()
    if slowness > SLOW:
        log.warning(
            "this processor takes %.1f times as long for products of bfloat16, so they are worked "
            "out in float32 and rounded; `training.precision: Float32` and `selfPlay.engineArgs."
            "dtype: float32` save the rounding",
            slowness,
        )
    return slowness > SLOW


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


def _factor(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(torch.bfloat16).float()
    return value


def _seconds(dtype: torch.dtype) -> float:
    factors = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    best = float("inf")
    for _ in range(5):  # the first makes the kernel
        began = time.perf_counter()
        functional.linear(*factors)
        best = min(best, time.perf_counter() - began)
    return best
