"""Prefill: a model reads prompts and keeps their keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from selfemo_jobs.acceleration.last_layer import last_mlp_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Prefill:
    """The state of a model that has read some prompts. They are padded on the left."""

    logits: torch.Tensor
    """Logits of the next token, shape (prompts, vocabulary)."""
    cache: DynamicCache
    """Keys and values of all tokens."""
    mask: torch.Tensor
    """1 where there is a token and 0 where there is padding, shape (prompts, width)."""
    position: torch.Tensor
    """Position of each prompt's last token, shape (prompts, 1)."""

    def select(self, rows: Iterable[int]) -> Prefill:
        """Return a copy of the state of some prompts. Tokens can be read into it alone.

        Parameters
        ----------
        rows
            The indices of the prompts, in the order of the copy.
        """
        index = torch.tensor(list(rows), device=self.mask.device)
        cache = copy(self.cache)
        # keys and values of a plain layer are replaced, never changed
        cache.layers = [
            copy(layer) if type(layer) is DynamicLayer else deepcopy(layer)
            for layer in self.cache.layers
        ]
        cache.batch_select_indices(index)
        return Prefill(self.logits[index], cache, self.mask[index], self.position[index])


def prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> Prefill:
    """Read all prompts together.

    Parameters
    ----------
    model
        The model, on any device.
    prompts
        The token ids of each prompt.
    pad
        The token id that fills short prompts up.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    mask = mask.to(model.device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = next_logits(model, ids.to(model.device), mask, position, cache)
    return Prefill(logits, cache, mask, position[:, -1:])


def next_logits(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    position: torch.Tensor,
    cache: DynamicCache,
) -> torch.Tensor:
    """Read tokens that follow those in the cache; return the logits of the next token.

    Parameters
    ----------
    model
        The model.
    ids
        The token ids to read, shape (rows, tokens).
    mask
        1 where there is a token, shape (rows, width). The width counts the tokens in the cache and
        those to read.
    position
        The position of each token to read, shape (rows, tokens).
    cache
        Keys and values of the tokens before. Those of the tokens that are read are added to it.

    Returns
    -------
    torch.Tensor
        Logits of shape (rows, vocabulary).
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
