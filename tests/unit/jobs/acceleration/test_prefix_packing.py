"""Reading a group's prompt once changes nothing: neither log-probabilities nor gradients."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
)
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head

from selfemo_jobs.acceleration.last_layer import can_pack
from selfemo_jobs.acceleration.prefix_packing import IGNORED, pack, packed_logprobs

TEMPERATURE = 0.7


def llama(layers: int = 2) -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def texts() -> tuple[list[list[int]], list[list[int]]]:
    """Two groups mixed with each other, members that agree, a prompt of one token, and an empty
    completion.
    """
    chance = random.Random(0)

    def some(n: int) -> list[int]:
        return [chance.randrange(3, 300) for _ in range(n)]

    long, short = some(30), some(20)
    prompts = [long, short, long, long, short, [5], long, short]
    said = [some(5), some(2), [], some(7), some(1), some(4)]
    return prompts, [*said, said[0], said[0]]


@pytest.mark.parametrize("name", ["tiny", "llama"])
def test_equals_each_completion_by_itself(name: str, tiny_model: Path) -> None:
    model = llama() if name == "llama" else AutoModelForCausalLM.from_pretrained(tiny_model)
    model = model.to(torch.float64)  # rounding aside, it is the same
    add_fused_lm_head(model, TEMPERATURE, outputs=("log_probs", "entropy"))
    assert can_pack(model.config)
    prompts, completions = texts()
    weights = torch.arange(1.0, 9.0, dtype=torch.float64)

    found, entropies = packed_logprobs(model, pack(prompts, completions, 9, 0))
    assert found.shape == entropies.shape == (8, 9)
    (found.sum(1) * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()

    total = torch.zeros((), dtype=torch.float64)
    for index, (prompt, said) in enumerate(zip(prompts, completions, strict=True)):
        size = len(said)
        assert not found[index, size:].any()
        assert not entropies[index, size:].any()
        if not said:
            continue
        logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
        logs = torch.log_softmax(logits / TEMPERATURE, -1)
        alone = logs.gather(1, torch.tensor(said).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(found[index, :size].double(), alone, rtol=1e-5, atol=1e-5)
        entropy = -(logs.exp() * logs).sum(1)
        torch.testing.assert_close(entropies[index, :size].double(), entropy, rtol=1e-5, atol=1e-5)
        total = total + weights[index] * alone.sum()
    total.backward()
    for parameter, gradient in gradients.items():
        expected = model.get_parameter(parameter).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def different(prompts: list[list[int]], completions: list[list[int]]) -> int:
    """Completion tokens, with what one prompt is answered twice counted once."""
    pairs = {(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)}
    return sum(len(completion) for _, completion in pairs)


def test_equal_prompts_are_one_group_and_equal_completions_share_their_place() -> None:
    prompts, completions = texts()
    packed = pack(prompts, completions, 7, 0)
    assert [len(group) for group in packed.groups] == [29 + 5 + 7, 19 + 2 + 1 + 5, 4]
    assert packed.starts == ((0, 0), (1, 0), (1, 27))
    assert packed.input_ids.shape == (2, 29 + 5 + 7)
    assert packed.scored.sum() == sum(map(len, completions))
    assert (packed.labels != IGNORED).sum() == different(prompts, completions)
    assert packed.places[6].tolist() == packed.places[0].tolist()
    assert packed.places[7].tolist() != packed.places[0].tolist()  # to another prompt


def test_a_batch_takes_hardly_more_room_than_its_groups() -> None:
    chance = random.Random(1)
    sizes = [chance.randint(8, 60) for _ in range(28)]
    prompts = [[number + 3] * size for number, size in enumerate(sizes)]
    packed = pack(prompts, [[1, 2]] * len(sizes), 2, 0)
    groups = sum(size + 1 for size in sizes)
    assert packed.input_ids.numel() <= 1.15 * groups
    taken = torch.zeros_like(packed.input_ids)
    for group, (row, start) in zip(packed.groups, packed.starts, strict=True):
        taken[row, start : start + len(group)] += 1
    assert taken.max() == 1
    assert taken.sum() == groups


def test_only_completion_tokens_meet_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the head would project every prompt token: TRL decides it by `_use_triton`."""
    model = llama()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    seen = []
    kernel = trl_utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(
        trl_utils._ChunkedLogProbFunction,
        "apply",
        lambda hidden, *rest: seen.append(len(hidden)) or kernel(hidden, *rest),
    )
    before = trl_utils._use_triton
    prompts, completions = texts()
    packed_logprobs(model, pack(prompts, completions, 7, 0))
    assert seen == [different(prompts, completions)]
    assert trl_utils._use_triton is before


def test_a_pass_of_nothing_but_padding() -> None:
    model = llama()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    found, _ = packed_logprobs(model, pack([[3], [3]], [[], []], 1, 3))
    assert found.tolist() == [[0.0], [0.0]]
    found.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_what_else_sees_tokens_its_own_way_is_not_packed() -> None:
    config = Qwen2Config(use_sliding_window=True, sliding_window=8, max_window_layers=0)
    config._attn_implementation = "sdpa"
    assert not can_pack(config)
    config = Qwen2Config()
    config._attn_implementation = "sdpa"
    assert can_pack(config)
    config._attn_implementation = "flash_attention_2"
    assert not can_pack(config)
    other = GraniteConfig()
    other._attn_implementation = "sdpa"
    assert not can_pack(other)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_of_a_row_are_not_packed(kind: str) -> None:
    factors = {"short_factor": [1.0] * 64, "long_factor": [4.0] * 64}
    scaling = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4, **factors}
    config = LlamaConfig(rope_parameters={**scaling, "original_max_position_embeddings": 2048})
    config._attn_implementation = "sdpa"
    assert not can_pack(config)
