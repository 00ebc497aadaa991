"""Log-probabilities of texts, each after several prompts of its own that begin alike.

The prompts of a text differ in a few tokens, such as the emotion that a response is to express.
What they share is read once: a text is the shared beginning, followed by one branch for each
prompt. The branches stand one after another in a row, and a mask keeps them apart, as in
:mod:`selfemo_jobs.acceleration.prefix_packing`. Each token has the position, and attends to exactly
the tokens, that it would have in a row of its own. So the results are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selfemo_jobs.acceleration.last_layer import can_pack, last_mlp_at
from selfemo_jobs.acceleration.prompt_parts import CPU_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens that a GPU reads at once. The mask grows with the square: 4,096 tokens take 16 MiB.
GPU_TOKENS = 4096


@dataclass(frozen=True)
class PromptedText:
    """A text, and the prompts after which it is scored."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids of each prompt, at least one."""
    text: tuple[int, ...]
    """Token ids of the text, at least one."""

    @property
    def shared(self) -> int:
        """The number of tokens with which all prompts begin. Each has at least one more."""
        limit = min(map(len, self.prompts)) - 1
        first = self.prompts[0]
        return next(
            (i for i in range(limit) if any(p[i] != first[i] for p in self.prompts)), max(limit, 0)
        )

    def __len__(self) -> int:
        """Return the number of tokens that are read."""
        shared, count = self.shared, len(self.prompts)
        rest = sum(map(len, self.prompts)) - count * shared
        return shared + rest + count * (len(self.text) - 1)


def text_logprobs(model: PreTrainedModel, texts: Sequence[PromptedText]) -> list[tuple[float, ...]]:
    """Return the log-probability of each text after each of its prompts.

    Parameters
    ----------
    model
        The model, on its device.
    texts
        The texts with their prompts.

    Returns
    -------
    list of tuple
        For each text, the natural logarithm of its probability after each of its prompts.
    """
    if not can_pack(model.config):
        return [_read_apart(model, text) for text in texts]
    most = CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS
    scores: list[tuple[float, ...]] = []
    for row in _rows(texts, most):
        scores += _read_row(model, row)
    return scores


def _rows(texts: Sequence[PromptedText], most: int) -> Iterator[list[PromptedText]]:
    """Yield the texts that share a row, in their order. A longer text has a row of its own."""
    row: list[PromptedText] = []
    length = 0
    for text in texts:
        size = len(text)
        if row and length + size > most:
            yield row
            row, length = [], 0
        row.append(text)
        length += size
    if row:
        yield row


def _read_row(model: PreTrainedModel, texts: Sequence[PromptedText]) -> list[tuple[float, ...]]:
    """Return the scores of texts that are read as one row."""
    ids: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    branches: list[int] = []
    places: list[int] = []  # where each token of a text is predicted
    targets: list[int] = []
    for owner, text in enumerate(texts):
        shared = text.shared
        beginning = text.prompts[0][:shared]
        segments = [(0, list(beginning), 0)]
        segments += [
            (branch, [*prompt[shared:], *text.text[:-1]], shared)
            for branch, prompt in enumerate(text.prompts, start=1)
        ]
        for branch, tokens, first in segments:
            ids += tokens
            positions += range(first, first + len(tokens))
            owners += [owner] * len(tokens)
            branches += [branch] * len(tokens)
            if branch:
                places += range(len(ids) - len(text.text), len(ids))
                targets += text.text
    device = model.device
    used = torch.zeros(1, len(ids), dtype=torch.bool, device=device)
    index = torch.tensor(places, device=device)
    used[0, index] = True
    with last_mlp_at(model, used):
        logits = model(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=_mask(torch.tensor(owners), torch.tensor(branches)).to(device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=index,
        ).logits[0]
    values = iter(_logprobs(logits, torch.tensor(targets, device=device)).tolist())
    return [tuple(sum(next(values) for _ in text.text) for _ in text.prompts) for text in texts]


def _mask(owners: Tensor, branches: Tensor) -> Tensor:
    """Return which token attends to which: to earlier ones of its text, and of its own branch.

    Parameters
    ----------
    owners
        The number of each token's text; shape (tokens,).
    branches
        0 for the shared beginning, and a number of its own for each prompt; shape (tokens,).

    Returns
    -------
    Tensor
        Bool, shape (1, 1, tokens, tokens).
    """
    same = owners.unsqueeze(0) == owners.unsqueeze(1)
    other, own = branches.unsqueeze(0), branches.unsqueeze(1)
    return (same & ((other == 0) | (other == own))).tril()[None, None]


def _read_apart(model: PreTrainedModel, text: PromptedText) -> tuple[float, ...]:
    """Return the scores of a text whose prompts are read one by one."""
    scores = []
    for prompt in text.prompts:
        ids = torch.tensor([[*prompt, *text.text]], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(text.text) + 1).logits[
            0, :-1
        ]
        scores.append(float(_logprobs(logits, ids[0, len(prompt) :]).sum()))
    return tuple(scores)


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each target token; shape (tokens,)."""
    logits = logits.float()
    chosen = logits.gather(-1, targets[:, None])[:, 0]
    return chosen - logits.logsumexp(dim=-1)
