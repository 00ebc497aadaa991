"""Reading prompts, a few at a time on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad as padded
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from selfemo_jobs.acceleration.last_layer import last_mlp_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens that a CPU reads at once. More are slower there: what comes between two products no longer
#: fits the processor's cache, and memory of that size is asked of the kernel anew each time. Six
#: layers of SmolLM2 read 424 tokens at once at 53 GFLOP/s, 3,400 at 39 and 13,600 at 15 (one core,
#: float32).
CPU_TOKENS = 512


@dataclass
class Reading:
    """Prompts that have been read, padded on the left."""

    logits: torch.Tensor
    """Of the next token, shape (prompts, vocabulary)."""
    cache: DynamicCache
    mask: torch.Tensor
    """1 where there is a token, shape (prompts, width)."""
    position: torch.Tensor
    """Of the last token, shape (prompts, 1)."""


def read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], filler: int) -> Reading:
    """Read prompts; a CPU reads neighbors together as long as :data:`CPU_TOKENS` allow.

    Parameters
    ----------
    prompts
        Token ids; best in order of length, so that neighbors need little filling.
    filler
        The token that fills prompts up.
    """
    empty = DynamicCache(config=model.config)
    # a cache of another kind (a sliding window, a state) does not tell where its tokens stood
    plain = all(type(layer) is DynamicLayer for layer in empty.layers)
    if model.device.type != "cpu" or not plain:
        return _read(model, prompts, filler)
    return _joined(model, [_read(model, part, filler) for part in parts(prompts, CPU_TOKENS)])


def parts(prompts: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[Sequence[int]]]:
    """Yield neighbors that together, filled up to the longest, have at most so many tokens.

    A longer prompt is a part of its own.
    """
    start = longest = 0
    for end, prompt in enumerate(prompts):
        longest = max(longest, len(prompt))
        if end > start and longest * (end + 1 - start) > most:
            yield prompts[start:end]
            start, longest = end, len(prompt)
    yield prompts[start:]


def _read(model: PreTrainedModel, prompts: Sequence[Sequence[int]], filler: int) -> Reading:
    width = max(map(len, prompts))
    ids = torch.tensor([[filler] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    mask = mask.to(model.device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = next_logits(model, ids.to(model.device), mask, position, cache)
    return Reading(logits, cache, mask, position[:, -1:])


def next_logits(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    position: torch.Tensor,
    cache: DynamicCache,
) -> torch.Tensor:
    """Read tokens after those in the cache; return the next token's logits.

    Parameters
    ----------
    ids, position
        The tokens and where they stand, shape (rows, tokens).
    mask
        1 where there is a token, of the cache's and these; shape (rows, width).
    cache
        Takes these tokens up.

    Returns
    -------
    torch.Tensor
        Shape (rows, vocabulary).
    """
    last = torch.zeros_like(ids, dtype=torch.bool)
    last[:, -1] = True
    with last_mlp_at(model, last):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    logits: torch.Tensor = output.logits[:, -1]
    return logits


def _joined(model: PreTrainedModel, read: Sequence[Reading]) -> Reading:
    """Return several readings as one, each filled up on the left to the widest."""
    if len(read) == 1:
        return read[0]
    width = max(r.mask.size(1) for r in read)
    lacks = [width - r.mask.size(1) for r in read]
    cache = DynamicCache(config=model.config)
    for index in range(len(cache.layers)):
        layers = [r.cache.layers[index] for r in read]
        # (prompts, heads, tokens, head size)
        keys = [padded(y.keys, (0, 0, n, 0)) for y, n in zip(layers, lacks, strict=True)]
        values = [padded(y.values, (0, 0, n, 0)) for y, n in zip(layers, lacks, strict=True)]
        cache.update(torch.cat(keys), torch.cat(values), index)
    return Reading(
        torch.cat([r.logits for r in read]),
        cache,
        torch.cat([padded(r.mask, (n, 0)) for r, n in zip(read, lacks, strict=True)]),
        torch.cat([r.position for r in read]),
    )
