"""Log-probabilities of completions, with a row for each: for models that cannot read packed rows.

A prompt and its completion begin at the first column of their row, and padding follows them. So
each token has the position that it has while text is generated, in models that number the columns,
too (GPT-2), and no state of a recurrent layer begins with padding. The models are causal: no token
sees the padding after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfemo_jobs.acceleration.prefix_packing import IGNORED, scored_places_only, unpack


@dataclass(frozen=True)
class PaddedRows:
    """A batch of completions, each in a row of its own."""

    input_ids: Tensor
    """Token ids, shape (completions, length)."""
    mask: Tensor
    """1 for the tokens of a row, and 0 for padding; shape (completions, length)."""
    labels: Tensor
    """The token that each token predicts, or ``IGNORED``, shape (completions, length)."""
    places: Tensor
    """Where each completion token is scored, as an index into the flattened rows. Shape
    (completions, longest)."""
    scored: Tensor
    """Bool, shape (completions, longest): False after the end of a completion."""

    def to(self, device: torch.device) -> PaddedRows:
        """Return the batch on a device."""
        return PaddedRows(*(value.to(device) for value in vars(self).values()))


def pad_rows(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], longest: int, pad: int
) -> PaddedRows:
    """Return a batch of completions, each in a row of its own.

    Parameters
    ----------
    prompts
        The token ids of each completion's prompt, at least one.
    completions
        The token ids of each completion, possibly none.
    longest
        The number of columns of ``places`` and ``scored``; at least the length of the longest
        completion.
    pad
        The token id that fills rows up.

    Examples
    --------
    >>> rows = pad_rows([[1, 2], [3]], [[7], [8]], 1, 0)
    >>> rows.input_ids.tolist(), rows.labels.tolist()
    ([[1, 2, 7], [3, 8, 0]], [[-100, 7, -100], [8, -100, -100]])
    """
    texts = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    width = max(map(len, texts))
    ids, mask = torch.full((len(texts), width), pad), torch.zeros(len(texts), width).long()
    labels = torch.full_like(ids, IGNORED)
    places = torch.zeros(len(texts), longest, dtype=torch.long)
    scored = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, (text, completion) in enumerate(zip(texts, completions, strict=True)):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[row, : len(text)] = 1
        size, first = len(completion), len(text) - len(completion) - 1  # predicts its first token
        labels[row, first : first + size] = torch.tensor(completion, dtype=torch.long)
        places[row, :size] = torch.arange(size) + row * width + first
        scored[row, :size] = True
    return PaddedRows(ids, mask, labels, places, scored)


def row_logprobs(
    model: Callable[..., Any], rows: PaddedRows, *, auxiliary_loss: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return log-probabilities and entropies of all completion tokens.

    Parameters
    ----------
    model
        A model with TRL's fused head (``add_fused_lm_head``), which applies the temperature.
    rows
        The batch, on the model's device.
    auxiliary_loss
        Whether the loss is computed by which a mixture of experts balances them.

    Returns
    -------
    tuple
        Log-probabilities and entropies, in nats. Both have the shape (completions, longest), and 0
        after the end of a completion. Then the auxiliary loss, or None.
    """
    options = {"output_router_logits": True} if auxiliary_loss else {}
    with scored_places_only():
        out = model(
            input_ids=rows.input_ids,
            attention_mask=rows.mask,
            shift_labels=rows.labels,
            fused_lm_head=True,
            **options,
        )
    logprobs = unpack(out.log_probs, rows.places, rows.scored)
    entropies = unpack(out.entropy, rows.places, rows.scored)
    return logprobs, entropies, out.aux_loss if auxiliary_loss else None
