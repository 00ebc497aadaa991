"""Log-probabilities of completions, with each shared prompt read once and little padding.

The members of a group share their prompt, and those that agree also share their completion. In a
padded batch, the prompt would be computed once for each member. Here a group is its prompt followed
by the members' distinct completions. Groups stand one after another in a row, which is as long as
the longest group. The attention mask keeps apart what does not belong together. Each token has the
position, and attends to exactly the tokens, that it would have in a row of its own. So the results
are the same up to rounding, and so are the gradients.

Layout of a group, for a prompt ``p1 … pn`` and completions ``a`` and ``b``:

======= ======== ===== ======== =====
input   p1…pn-1  pn a1 a2 …     pn b1 …
scored           a1 a2 a3 …     b1 b2 …
======= ======== ===== ======== =====

The prompt's last token is repeated before each completion, because the completion's first token is
predicted from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from trl.trainer import utils as trl_utils

from selfemo_jobs.acceleration.last_layer import last_mlp_at

#: The label of a token that is not scored, in TRL and Transformers.
IGNORED = -100


@dataclass(frozen=True)
class PackedGroup:
    """A prompt with its distinct completions."""

    prompt: tuple[int, ...]
    """Token ids of the prompt."""
    completions: tuple[tuple[int, ...], ...]
    """Token ids of each completion, in the group's order. Equal ones are there once."""

    def __len__(self) -> int:
        """Return the number of columns that the group takes."""
        return len(self.prompt) - 1 + sum(map(len, self.completions))


@dataclass(frozen=True)
class PackedBatch:
    """A batch of completions, packed."""

    groups: tuple[PackedGroup, ...]
    """The groups, in the order of their first completion."""
    starts: tuple[tuple[int, int], ...]
    """The row of each group, and its first column."""
    input_ids: Tensor
    """Token ids, shape (rows, length)."""
    position_ids: Tensor
    """The position of each token in its own text, shape (rows, length)."""
    mask: Tensor
    """Bool, shape (rows, 1, length, length): whether a token (third axis) attends to another
    (fourth axis)."""
    labels: Tensor
    """The token that each token predicts, or ``IGNORED``, shape (rows, length)."""
    places: Tensor
    """Where each completion token is scored, as an index into the flattened rows. Shape
    (completions, longest)."""
    scored: Tensor
    """Bool, shape (completions, longest): False after the end of a completion."""

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)


def pack(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], longest: int, pad: int
) -> PackedBatch:
    """Return a batch of completions, packed.

    Parameters
    ----------
    prompts
        The token ids of each completion's prompt, at least one. Equal prompts form a group.
    completions
        The token ids of each completion, possibly none. Equal completions of a group share their
        place in it.
    longest
        The number of columns of ``places`` and ``scored``; at least the length of the longest
        completion.
    pad
        The token id that fills rows up.
    """
    members: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        members.setdefault(tuple(prompt), {}).setdefault(tuple(completion), []).append(index)
    groups = tuple(PackedGroup(prompt, tuple(distinct)) for prompt, distinct in members.items())
    width = max(1, *map(len, groups))
    starts = _place_groups([len(group) for group in groups], width)
    shape = (1 + max(row for row, _ in starts), width)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    owners, segments = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    places = torch.zeros(len(prompts), longest, dtype=torch.long)
    scored = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for number, (group, (row, start)) in enumerate(zip(groups, starts, strict=True)):
        prompt, at = group.prompt, start + len(group.prompt) - 1
        ids[row, start:at] = torch.tensor(prompt[:-1], dtype=torch.long)
        positions[row, start:at] = torch.arange(at - start)
        owners[row, start : start + len(group)] = number
        for segment, completion in enumerate(group.completions, start=1):
            text, size = torch.tensor([prompt[-1], *completion]), len(completion)
            part = slice(at, at + size)
            ids[row, part], labels[row, part] = text[:-1], text[1:]
            positions[row, part] = torch.arange(size) + len(prompt) - 1
            segments[row, part] = segment
            indices = members[prompt][completion]
            places[indices, :size] = torch.arange(size) + row * width + at
            scored[indices, :size] = True
            at += size
    mask = _attention_mask(owners, segments)
    return PackedBatch(groups, starts, ids, positions, mask, labels, places, scored)


def _place_groups(lengths: Sequence[int], width: int) -> tuple[tuple[int, int], ...]:
    """Return a row and a column for each group: the longest first, each where it first fits.

    Parameters
    ----------
    lengths
        The number of columns of each group.
    width
        The number of columns of a row.
    """
    filled: list[int] = []
    places = dict.fromkeys(range(len(lengths)), (0, 0))
    for index in sorted(places, key=lambda i: -lengths[i]):
        size = lengths[index]
        row = next((r for r, used in enumerate(filled) if used + size <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        places[index] = (row, filled[row])
        filled[row] += size
    return tuple(places.values())


def _attention_mask(owners: Tensor, segments: Tensor) -> Tensor:
    """Return which token attends to which.

    A token attends to earlier tokens of its group: those of the prompt, and those of its own
    completion. Padding attends to padding, since an empty row of attention has a softmax of NaN.

    Parameters
    ----------
    owners
        The group of each token, and -1 for padding; shape (rows, length).
    segments
        0 for a prompt's tokens, and a number of its own for each completion; shape (rows, length).

    Returns
    -------
    Tensor
        Bool, shape (rows, 1, length, length).
    """
    same_group = owners.unsqueeze(1) == owners.unsqueeze(2)
    other, own = segments.unsqueeze(1), segments.unsqueeze(2)
    return (same_group & ((other == 0) | (other == own))).tril().unsqueeze(1)


def packed_logprobs(model: Callable[..., Any], batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of all completion tokens.

    Parameters
    ----------
    model
        A model with TRL's fused head (``add_fused_lm_head``), which applies the temperature.
    batch
        The batch, on the model's device.

    Returns
    -------
    tuple of Tensor
        Log-probabilities and entropies, in nats. Both have the shape (completions, longest), and 0
        after the end of a completion.
    """
    inner = getattr(model, "module", model)  # DeepSpeed's engine holds the model
    with scored_places_only(), last_mlp_at(inner, batch.labels != IGNORED):
        out = model(
            input_ids=batch.input_ids,
            attention_mask=batch.mask,
            position_ids=batch.position_ids,
            shift_labels=batch.labels,
            fused_lm_head=True,
        )
    places, scored = batch.places, batch.scored
    return unpack(out.log_probs, places, scored), unpack(out.entropy, places, scored)


def unpack(values: Tensor, places: Tensor, scored: Tensor) -> Tensor:
    """Return the values of tokens by completion, with 0 after the end of a completion.

    Parameters
    ----------
    values
        The value of each token, shape (rows, length).
    places, scored
        Where the tokens of each completion are, see :class:`PackedBatch`; shape (completions,
        longest), as the result.
    """
    unpacked = values.reshape(-1).gather(0, places.reshape(-1)).view_as(places)
    return unpacked.masked_fill(~scored, 0.0)


@contextmanager
def scored_places_only() -> Iterator[None]:
    """Return a context in which TRL's fused head scores labeled tokens only, on every device.

    TRL decides this by ``_use_triton``. Without it, the head projects every prompt token onto the
    vocabulary and discards the result. (TRL's reason is recompilation for each shape on Neuron
    devices.) The kernel is chosen by a name in another module, and stays the same. A test holds
    this.
    """
    original = trl_utils._use_triton
    trl_utils._use_triton = lambda _device: True
    try:
        yield
    finally:
        trl_utils._use_triton = original
