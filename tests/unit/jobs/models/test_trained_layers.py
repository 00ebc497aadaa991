"""The last layer's feed-forward part is worked out where it is read; what is read is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from selfemo_jobs.acceleration.last_layer import last_mlp_at
from selfemo_jobs.models.fetch import load_model

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
IDS = torch.arange(12).view(2, 6)
READ = torch.tensor([[False] * 5 + [True], [False, True, True] + [False] * 3])


def model(name: str) -> Any:
    torch.manual_seed(0)
    qwen = name == "qwen3"
    made = (
        Qwen3ForCausalLM(Qwen3Config(**SIZES)) if qwen else LlamaForCausalLM(LlamaConfig(**SIZES))
    ).to(torch.float64)
    if name != "adapters":
        return made
    adapters = LoraConfig(target_modules=["q_proj", "gate_proj"], init_lora_weights=False)
    return get_peft_model(made, adapters, autocast_adapter_dtype=False)


def counted(net: Any) -> list[int]:
    """Return a list that the last feed-forward part appends its places to."""
    places: list[int] = []
    mlp = net.get_decoder().layers[-1].mlp
    mlp.gate_proj.register_forward_pre_hook(lambda _, args: places.append(args[0][..., 0].numel()))
    return places


def gradients(net: Any) -> list[torch.Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ["llama", "qwen3", "adapters"])
def test_what_is_read_and_its_gradients_are_the_same(name: str) -> None:
    net = model(name)
    places = counted(net)
    outcomes = []
    for context in (False, True):
        net.zero_grad()
        if context:
            with last_mlp_at(net, READ):
                logits = net(IDS).logits
        else:
            logits = net(IDS).logits
        logits[READ].square().sum().backward()
        outcomes.append([logits[READ].detach(), *gradients(net)])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected)
    assert places == [12, 3]
    net(IDS)
    assert places[-1] == 12, "it goes on after the context"


def test_nothing_changes_where_a_layer_is_run_twice() -> None:
    net = model("llama")
    net.gradient_checkpointing_enable()
    net.train()
    places = counted(net)
    with last_mlp_at(net, READ):
        logits = net(IDS).logits
    logits[READ].sum().backward()
    assert places == [12, 12]


def test_nothing_changes_in_a_model_of_another_build() -> None:
    net = model("llama")
    net.config.model_type = "gpt_oss"
    places = counted(net)
    with last_mlp_at(net, READ):
        net(IDS)
    assert places == [12]


def test_a_loaded_model_multiplies_the_vocabulary_by_what_lies_together(tiny_model: Path) -> None:
    """What lies apart takes PyTorch's CPU products ten times as long where a head is frozen."""
    net = load_model(tiny_model, torch.float32)
    read: list[torch.Tensor] = []
    net.get_output_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        last, every = net(IDS, logits_to_keep=2).logits, net(IDS).logits
    assert all(hidden.is_contiguous() for hidden in read)
    torch.testing.assert_close(last, every[:, -2:])
