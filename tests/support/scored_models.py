"""Small models whose distributions are not flat, and a plain reading of their probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_sharp(folder: Path, tiny_model: Path) -> None:
    """Write the tiny model with large weights: what it predicts differs much between prompts."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=False)
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _enlarge(model)
    model.save_pretrained(folder)


def make_sliding(folder: Path, tiny_model: Path) -> None:
    """Write a model with the tiny model's tokenizer whose layers see the last eight tokens."""
    from transformers import MistralConfig, MistralForCausalLM

    shutil.copytree(tiny_model, folder)
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=8,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    model = MistralForCausalLM(config)
    _enlarge(model)
    model.save_pretrained(folder)


def _enlarge(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "embed" not in name:
                weight.mul_(5.0)


def plain_logprob(
    model: PreTrainedModel, prompt: Sequence[int], continuation: Sequence[int]
) -> float:
    """Return a continuation's log-probability: one forward pass, without cache or padding."""
    ids = torch.tensor([[*prompt, *continuation]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    logprobs = torch.log_softmax(logits, dim=-1)
    return float(logprobs.gather(-1, torch.tensor([continuation]).T).sum())
