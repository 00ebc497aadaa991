"""States below the trained layers: other models with the same lower layers read on from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from selfemo_jobs.acceleration.prompt_states import PromptStates, can_divide
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine

PROMPTS = [[5, 6, 7], [8], [9] * 20, [4, 5, 6], [5, 6], list(range(30, 70))]
DRAW = Sampling(n=40, max_tokens=1, seed=3)


def make_model(folder: Path, tiny_model: Path, *, seed: int, layers: int = 3) -> None:
    """Write a model. Only the last layer and the final norm depend on the seed."""
    shutil.copytree(tiny_model, folder)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6.0)  # what it predicts differs between prompts
        torch.manual_seed(seed)
        for weight in (*model.model.layers[-1].parameters(), model.model.norm.weight):
            weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(folder)


def open_engine(folder: Path, dtype: str = "float32") -> TransformersEngine:
    return TransformersEngine(folder, TransformersArgs(dtype=dtype), max_model_len=128)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_judge_of_a_later_generation_reads_its_trained_layers_alone(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    make_model(tmp_path / "first", tiny_model, seed=1)
    make_model(tmp_path / "second", tiny_model, seed=2)
    first, second = (open_engine(tmp_path / name, dtype) for name in ("first", "second"))
    plain = [engine.generate(PROMPTS, DRAW) for engine in (first, second)]
    assert plain[0] != plain[1], "the models differ"
    states = first.keep_states(1)
    later = second.keep_states(1)
    assert states is not None
    assert later is not None
    assert states.key == later.key
    assert states.read(PROMPTS) == sum(map(len, PROMPTS))
    new = first.generate(PROMPTS, DRAW)
    data = states.take_new()
    assert data is not None
    assert states.take_new() is None
    (tmp_path / "states").write_bytes(data)
    later.load(tmp_path / "states")
    reads = 0

    def count(*_: object) -> None:
        nonlocal reads
        reads += 1

    second.model.model.layers[0].register_forward_pre_hook(count)
    assert later.read(PROMPTS) == 0
    again = second.generate(PROMPTS, DRAW)
    labels = [[3], [4], [5]]
    scores = second.score(PROMPTS, labels)
    assert reads == 0
    longer = second.score(PROMPTS, [[3], [4, 1], [5]])  # the second token needs whole prompts
    assert reads > 0
    for row, other in zip(scores, longer, strict=True):
        tolerance = 1e-4 if dtype == "float32" else 0.1
        assert (row[0], row[2]) == pytest.approx((other[0], other[2]), abs=tolerance)
    for before, after in zip(plain, (new, again), strict=True):
        for group, other in zip(before, after, strict=True):
            same = sum(a.token_ids == b.token_ids for a, b in zip(group, other, strict=True))
            # a draw at the border of two tokens may change with the last digit
            assert same >= len(group) - (1 if dtype == "float32" else 4)
            for a, b in zip(group, other, strict=True):
                if a.token_ids == b.token_ids:
                    assert a.logprobs == pytest.approx(
                        b.logprobs, abs=1e-4 if dtype == "float32" else 0.1
                    )
    for engine in (first, second):
        engine.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_states_do_not_depend_on_which_prompts_were_kept(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    make_model(tmp_path / "model", tiny_model, seed=1)
    engine = open_engine(tmp_path / "model", dtype)
    together = PromptStates(engine.model, 1)
    together.read(PROMPTS)
    alone = PromptStates(engine.model, 1)
    for prompt in PROMPTS:
        alone.read([prompt])
    for prompt in PROMPTS:
        states = together._states(prompt), alone._states(prompt)
        if dtype == "bfloat16":  # its numbers hide the rounding of the sums
            assert torch.equal(*states)
        torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)
    engine.close()


def test_only_completions_of_one_token_of_kept_prompts_use_the_states(
    tiny_model: Path, tmp_path: Path
) -> None:
    make_model(tmp_path / "model", tiny_model, seed=1)
    engine = open_engine(tmp_path / "model")
    long = Sampling(n=2, max_tokens=4, seed=1)
    expected = engine.generate(PROMPTS, long)
    states = engine.keep_states(1)
    assert states is not None
    states.read(PROMPTS[:3])
    assert engine.generate(PROMPTS, long) == expected
    mixed = engine.generate(PROMPTS, DRAW)
    assert [len(group) for group in mixed] == [DRAW.n] * len(PROMPTS)
    assert PROMPTS[2] in states
    assert PROMPTS[3] not in states, "generating keeps nothing"
    engine.close()


def test_other_lower_layers_and_other_numbers_have_another_key(
    tiny_model: Path, tmp_path: Path
) -> None:
    make_model(tmp_path / "model", tiny_model, seed=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    key = PromptStates(model, 1).key
    assert PromptStates(model, 2).key != key
    assert PromptStates(model.to(torch.bfloat16), 1).key != key
    model = model.to(torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1.0
    assert PromptStates(model, 1).key != key
    assert not can_divide(model, 3)
    assert not can_divide(model, 0)
