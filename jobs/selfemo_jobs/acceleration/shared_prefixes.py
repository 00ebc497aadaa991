"""Prefill in which each beginning that several prompts share is read once.

The prompts of a chat begin with the same instructions, and the judge's prompts about the responses
of a group with the same turns. Sorted, prompts with a common beginning are neighbors. They are
written into a row, one after another, each without what it shares with the one before it. The
attention mask lets a token attend to exactly the tokens of its own prompt, and each token has the
position that it has there. So the results are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from selfemo_jobs.acceleration.last_layer import last_mlp_at
from selfemo_jobs.acceleration.prefill import Prefill
from selfemo_jobs.acceleration.prompt_parts import CPU_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: The least share of all tokens that must be shared. Short prompts of few speakers share a tenth by
#: chance, their names and first words. Other batches would then change the last digits of results
#: for little.
LEAST_SHARE = 0.2
#: The most tokens of a row on a GPU. The mask has the square of it.
_GPU_TOKENS = 2048


@dataclass
class SharedRow:
    """Several prompts in one row."""

    tokens: list[int] = field(default_factory=list)
    """The token of each column."""
    positions: list[int] = field(default_factory=list)
    """The position of each column in the prompts that it belongs to."""
    columns: list[list[int]] = field(default_factory=list)
    """The columns of each prompt, in order."""

    def add(self, prompt: Sequence[int], shared: int) -> None:
        """Add a prompt.

        Parameters
        ----------
        prompt
            The token ids of the prompt.
        shared
            The number of its first tokens that are those of the prompt before it.
        """
        first = len(self.tokens)
        added = range(first, first + len(prompt) - shared)
        self.columns.append([*(self.columns[-1][:shared] if shared else ()), *added])
        self.tokens += prompt[shared:]
        self.positions += range(shared, len(prompt))

    def mask(self) -> Tensor:
        """Return which column attends to which: bool, shape (columns, columns)."""
        mask = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for columns in self.columns:
            own = torch.tensor(columns)
            mask[own[:, None], own] = torch.ones(len(own), len(own), dtype=torch.bool).tril()
        return mask


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which two prompts begin alike.

    Examples
    --------
    >>> shared_length([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def shared_share(prompts: Sequence[Sequence[int]]) -> float:
    """Return the share of all tokens that need not be read, since an earlier prompt has them.

    Parameters
    ----------
    prompts
        The token ids of each prompt, in any order.

    Examples
    --------
    >>> shared_share([[5, 6, 7], [5, 6, 8], [9, 9]])
    0.25
    """
    ordered = sorted(map(tuple, prompts))
    shared = sum(map(shared_length, ordered, ordered[1:]))
    return shared / max(1, sum(map(len, ordered)))


def shared_rows(prompts: Sequence[Sequence[int]], most: int) -> Iterator[SharedRow]:
    """Yield rows of neighboring prompts.

    Parameters
    ----------
    prompts
        The token ids of each prompt, sorted.
    most
        The most tokens of a row. A prompt that is longer has a row of its own.

    Examples
    --------
    >>> [row.tokens for row in shared_rows([[5, 6, 7], [5, 6, 8], [9, 9]], most=5)]
    [[5, 6, 7, 8], [9, 9]]
    """
    row = SharedRow()
    before: Sequence[int] = ()
    for prompt in prompts:
        shared = shared_length(before, prompt)
        if row.columns and len(row.tokens) + len(prompt) - shared > most:
            yield row
            row, shared = SharedRow(), 0
        row.add(prompt, shared)
        before = prompt
    if row.columns:
        yield row


def prefill_shared(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, keep_cache: bool = True
) -> Prefill:
    """Read prompts, each shared beginning once.

    Parameters
    ----------
    model
        A decoder of the plain build (:func:`selfemo_jobs.acceleration.last_layer.can_pack`).
    prompts
        The token ids of each prompt, sorted.
    keep_cache
        Whether further tokens are read. Otherwise the result has no keys and values.

    Returns
    -------
    Prefill
        The state of the prompts, padded on the left as of
        :func:`~selfemo_jobs.acceleration.prefill.prefill`.
    """
    most = CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS
    width = max(map(len, prompts))
    cache = DynamicCache(config=model.config)
    logits: list[Tensor] = []
    keys: list[list[Tensor]] = [[] for _ in cache.layers]
    values: list[list[Tensor]] = [[] for _ in cache.layers]
    for row in shared_rows(prompts, most):
        row_logits, row_cache = _read(model, row)
        logits.append(row_logits)
        if keep_cache:
            # padding takes the first column, which no token attends to
            padded = [[0] * (width - len(own)) + own for own in row.columns]
            places = torch.tensor(padded, device=model.device)
            for layer, own_keys, own_values in zip(row_cache.layers, keys, values, strict=True):
                own_keys.append(layer.keys[0][:, places].transpose(0, 1))
                own_values.append(layer.values[0][:, places].transpose(0, 1))
    if keep_cache:
        for index, (own_keys, own_values) in enumerate(zip(keys, values, strict=True)):
            cache.update(torch.cat(own_keys), torch.cat(own_values), index)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    mask = (torch.arange(width) >= width - lengths[:, None]).long().to(model.device)
    return Prefill(torch.cat(logits), cache, mask, (lengths[:, None] - 1).to(model.device))


def _read(model: PreTrainedModel, row: SharedRow) -> tuple[Tensor, DynamicCache]:
    """Return the logits after each prompt of a row, and the row's keys and values."""
    device = model.device
    last = torch.tensor([columns[-1] for columns in row.columns], device=device)
    used = torch.zeros(1, len(row.tokens), dtype=torch.bool, device=device)
    used[0, last] = True
    cache = DynamicCache(config=model.config)
    with last_mlp_at(model, used):
        hidden = model.get_decoder()(
            input_ids=torch.tensor([row.tokens], device=device),
            attention_mask=row.mask()[None, None].to(device),
            position_ids=torch.tensor([row.positions], device=device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    logits: Tensor = model.get_output_embeddings()(hidden[0, last])
    return logits, cache
