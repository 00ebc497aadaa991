"""bfloat16 by way of float32, on processors that do not multiply it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM

from selfemo_jobs.acceleration import bf16_emulation
from selfemo_jobs.acceleration.bf16_emulation import (
    EmulatedBFloat16,
    bfloat16_context,
    bfloat16_products,
    bfloat16_slowness,
)
from selfemo_jobs.acceleration.rounded_products import checkpointing_options


@pytest.fixture(autouse=True)
def _measured_again() -> Iterator[None]:
    bf16_emulation._slow.cache_clear()
    yield
    bf16_emulation._slow.cache_clear()


@pytest.mark.parametrize(("slowness", "emulates"), [(6.04, True), (0.6, False)])
def test_a_slow_processor_emulates_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    slowness: float,
    emulates: bool,
) -> None:
    monkeypatch.setattr(bf16_emulation, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(bf16_emulation, "bfloat16_slowness", lambda: slowness)
    found = [bfloat16_context() for _ in range(2)]
    assert all(isinstance(f, EmulatedBFloat16 if emulates else nullcontext) for f in found)
    said = [m for m in caplog.messages if "6.0 times as long for matrix products in bfloat16" in m]
    assert len(said) == (1 if emulates else 0)
    assert all("`overrides.training.precision: Float32`" in m for m in said)


def test_it_is_measured() -> None:
    assert 0.01 < bfloat16_slowness() < 1000


def test_a_product_is_the_exact_one_rounded() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(5, 64).bfloat16(), torch.randn(7, 64).bfloat16()
    exact = (x.double() @ w.double().T).bfloat16()
    with EmulatedBFloat16():
        tile = torch.empty(5, 7, dtype=torch.bfloat16)
        torch.mm(x, w.t(), out=tile)
        for found in (functional.linear(x, w), torch.mm(x, w.t()), tile):
            assert found.dtype is torch.bfloat16
            torch.testing.assert_close(found, exact, rtol=2**-8, atol=2**-8)
        plain = torch.nn.functional.linear(x.float(), w.float())
    assert plain.dtype is torch.float32  # float32 factors stay as they are


def passes(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids).logits
    logits.float().log_softmax(-1)[..., 5].sum().backward()
    return {"": logits.detach().float(), **{n: p.grad for n, p in model.named_parameters()}}


def test_training_agrees_with_the_processors_own(tiny_model: Path) -> None:
    """But for the order of sums, which decides a few roundings."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    own = passes(model, ids)
    own = {name: value.clone() for name, value in own.items()}
    with EmulatedBFloat16():
        found = passes(model, ids)
    for name, value in own.items():
        away = (found[name] - value).norm() / value.norm()
        assert away < 0.1, name


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("slow", [True, False])
def test_layers_are_computed_again_as_before(
    monkeypatch: pytest.MonkeyPatch, slow: bool, inside: bool
) -> None:
    """Even inside of the context: PyTorch leaves it while it runs a backward pass."""
    monkeypatch.setattr(bf16_emulation, "_slow", lambda: slow)
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    x = torch.randn(3, 16)

    def gradients(**options: Any) -> list[torch.Tensor]:
        layer.zero_grad()
        with bfloat16_products():
            found = checkpoint(layer, x, **options) if options else layer(x)
            loss = found.float().square().sum()
        with bfloat16_context() if inside else nullcontext():
            loss.backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None]

    torch.testing.assert_close(gradients(**checkpointing_options(rounded=True)), gradients())


def test_a_processor_with_the_instructions_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work on the machine must not decide how products are computed."""
    monkeypatch.setattr(bf16_emulation, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(bf16_emulation, "bfloat16_slowness", lambda: 99.0)
    assert isinstance(bfloat16_context(), nullcontext)
