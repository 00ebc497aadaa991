"""Prefill on a CPU: prompts are read a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad as pad_tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from selfemo_jobs.acceleration.prefill import Prefill, prefill
from selfemo_jobs.acceleration.prompt_parts import CPU_TOKENS, split_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prefill_in_parts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> Prefill:
    """Read prompts, at most :data:`CPU_TOKENS` tokens at a time; the result is the same.

    A model whose cache is not a plain one (a sliding window, a recurrent state) reads all prompts
    together, because such caches cannot be joined.

    Parameters
    ----------
    model
        The model, on the CPU.
    prompts
        The token ids of each prompt. Sorted by length they need the least padding.
    pad
        The token id that fills short prompts up.
    """
    layers = DynamicCache(config=model.config).layers
    if not all(type(layer) is DynamicLayer for layer in layers):
        return prefill(model, prompts, pad)
    return _join(model, [prefill(model, part, pad) for part in split_prompts(prompts, CPU_TOKENS)])


def _join(model: PreTrainedModel, parts: Sequence[Prefill]) -> Prefill:
    """Return several prefills as one, each padded on the left to the widest."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.size(1) for part in parts)
    missing = [width - part.mask.size(1) for part in parts]
    cache = DynamicCache(config=model.config)
    for index in range(len(cache.layers)):
        layers = [part.cache.layers[index] for part in parts]
        # (prompts, heads, tokens, head size)
        keys = [pad_tensor(y.keys, (0, 0, n, 0)) for y, n in zip(layers, missing, strict=True)]
        values = [pad_tensor(y.values, (0, 0, n, 0)) for y, n in zip(layers, missing, strict=True)]
        cache.update(torch.cat(keys), torch.cat(values), index)
    masks = [pad_tensor(part.mask, (n, 0)) for part, n in zip(parts, missing, strict=True)]
    return Prefill(
        torch.cat([part.logits for part in parts]),
        cache,
        torch.cat(masks),
        torch.cat([part.position for part in parts]),
    )
