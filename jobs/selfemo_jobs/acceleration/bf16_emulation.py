"""bfloat16 on CPUs without fast instructions for it: most lack AVX512-BF16 and AMX."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

log = logging.getLogger(__name__)

#: From this ratio of bfloat16's time to float32's on, computing in float32 and rounding pays.
SLOW = 1.5
#: Shape of the products that are timed, as in a layer of a small model: some milliseconds each.
_ROWS, _WIDTH = 64, 512
#: How often each product is timed, in turn. The first call also compiles the kernel. On a busy
#: machine, a few in a row may all be interrupted.
_REPEATS = 30


class EmulatedBFloat16(TorchFunctionMode):
    """Computes products of bfloat16 in float32 while the context is entered.

    Factors and results are bfloat16 numbers, and sums are float32, as on processors with
    instructions for bfloat16. Only the order of the sums may differ.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch; products of bfloat16 are computed in float32."""
        options = dict(kwargs or {})
        if func not in _PRODUCTS or not (_autocast() or args[0].dtype is torch.bfloat16):
            return func(*args, **options)
        out = options.pop("out", None)
        with torch.autocast("cpu", enabled=False):
            factors = {name: _factor(value) for name, value in options.items()}
            product: torch.Tensor = func(*map(_factor, args), **factors)
        return product.to(torch.bfloat16) if out is None else out.copy_(product)


#: The functions in which a decoder and TRL's head spend their time. The first argument of each is a
#: factor.
_PRODUCTS = frozenset({functional.linear, functional.scaled_dot_product_attention, torch.mm})


def bfloat16_context() -> AbstractContextManager[Any]:
    """Return the context in which this CPU computes products of bfloat16 fastest.

    A processor without instructions for bfloat16 is measured at the first call. If bfloat16 is slow
    on it, a warning in the log names the settings that save the rounding.
    """
    return EmulatedBFloat16() if _slow() else nullcontext()


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Round the factors of a CPU's products to bfloat16 while the context is entered.

    Weights and sums stay float32. Training takes about half of the time where the processor has
    instructions for bfloat16.
    """
    with bfloat16_context(), torch.autocast("cpu", torch.bfloat16):
        yield


def recomputation() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return what is entered more for a layer with gradient checkpointing.

    Returns
    -------
    tuple of context managers
        That of its forward pass, and that of computing it again in the backward pass.
    """
    return nullcontext(), bfloat16_products()


def bfloat16_slowness() -> float:
    """Return the time of a product of bfloat16, divided by that of the same product of float32.

    It is measured, in some tens of milliseconds: without instructions for bfloat16, a processor's
    flags do not say how fast PyTorch's kernels are on it.
    """
    best = {torch.bfloat16: float("inf"), torch.float32: float("inf")}
    for _ in range(_REPEATS):
        best = {dtype: min(seconds, _seconds(dtype)) for dtype, seconds in best.items()}
    return best[torch.bfloat16] / best[torch.float32]


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for products of bfloat16 (AVX512-BF16, AMX)."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, bool)() for flag in flags)


@cache
def _slow() -> bool:
    if multiplies_bfloat16():
        return False
    slowness = bfloat16_slowness()
    if slowness > SLOW:
        log.warning(
            "this CPU takes %.1f times as long for matrix products in bfloat16, so they are "
            "computed in float32 and rounded; `overrides.training.precision: Float32` and "
            "`selfPlay.engineArgs.dtype: float32` save the rounding",
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
    """Return the time of one product."""
    factors = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    began = time.perf_counter()
    functional.linear(*factors)
    return time.perf_counter() - began
