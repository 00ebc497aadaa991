"""Log-probabilities of completions with what they have in common read once, and little filling.

The members of a group share their prompt, and those that agree their completion too. Padded one
beside the other, the prompt would be computed once a member. Here a group is one prompt followed by
the members' different completions; groups follow one another in a row as long as it has room, which
the longest one decides; and the attention mask keeps apart what does not belong together. Each
token has the position and sees exactly the tokens that it would in a row of its own, so the result
is the same up to rounding, and so are the gradients.

Layout of a group, for a prompt ``p1 … pn`` and completions ``a``, ``b``:

====== ======== ===== ======== =====
input  p1…pn-1  pn a1 a2 …     pn b1 …
scores          a1 a2 a3 …     b1 b2 …
====== ======== ===== ======== =====

The prompt's last token stands at the head of each completion, because that is where the
completion's first token is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from trl.trainer import utils as trl_utils

from selfemo_jobs.acceleration.last_layer import PLAIN, last_mlp_at

#: The label that stands for "not scored" in TRL and Transformers.
IGNORED = -100


def can_pack(config: Any) -> bool:
    """Return whether a model (by its Transformers configuration) takes packed rows."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        config.model_type in PLAIN
        and config._attn_implementation == "sdpa"
        and set(layers) == {"full_attention"}
    )


@dataclass(frozen=True)
class Group:
    """A prompt and what was said to it."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    """Those that differ, in the group's order."""

    def __len__(self) -> int:
        """Return its tokens as they are laid out."""
        return len(self.prompt) - 1 + sum(map(len, self.completions))


@dataclass(frozen=True)
class Packed:
    """A batch of completions, packed."""

    groups: tuple[Group, ...]
    starts: tuple[tuple[int, int], ...]
    """In which row each group stands, and from which column on."""
    input_ids: Tensor
    """Shape (rows, length)."""
    position_ids: Tensor
    """Shape (rows, length)."""
    mask: Tensor
    """Bool, shape (rows, 1, length, length): which token (third) sees which (fourth)."""
    labels: Tensor
    """Shape (rows, length): the token that is predicted at each place, or ``IGNORED``."""
    places: Tensor
    """Shape (completions, longest): where in the flattened rows each completion token is scored."""
    scored: Tensor
    """Bool, shape (completions, longest): False where a completion has ended."""

    def to(self, device: torch.device) -> Packed:
        """Return it on a device."""
        tensors = ((n, v) for n, v in vars(self).items() if isinstance(v, Tensor))
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors}
        return replace(self, **moved)


def pack(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], longest: int, pad: int
) -> Packed:
    """Lay completions out.

    Parameters
    ----------
    prompts, completions
        Token ids by completion; equal prompts make a group wherever they stand, and equal
        completions of one share their place in it. A prompt has at least one token, a completion
        may have none.
    longest
        Columns of the result; at least the longest completion.
    pad
        A token id that fills rows up.
    """
    members: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        members.setdefault(tuple(prompt), {}).setdefault(tuple(completion), []).append(index)
    groups = tuple(Group(prompt, tuple(said)) for prompt, said in members.items())
    width = max(1, *map(len, groups))
    starts = _room([len(group) for group in groups], width)
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
    mask = _mask(owners, segments)
    return Packed(groups, starts, ids, positions, mask, labels, places, scored)


def _room(lengths: Sequence[int], width: int) -> tuple[tuple[int, int], ...]:
    """Return a row and a column for each group: the longest first, each where it first fits."""
    filled: list[int] = []
    found = dict.fromkeys(range(len(lengths)), (0, 0))
    for index in sorted(found, key=lambda i: -lengths[i]):
        size = lengths[index]
        row = next((r for r, used in enumerate(filled) if used + size <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        found[index] = (row, filled[row])
        filled[row] += size
    return tuple(found.values())


def _mask(owners: Tensor, segments: Tensor) -> Tensor:
    """Return who sees whom: what came before in the same group, of its prompt or the same segment.

    Filling sees filling, so that no row of attention is empty (its softmax would be NaN).

    Parameters
    ----------
    owners
        Shape (rows, length): the group of each token; filling has -1.
    segments
        Shape (rows, length): 0 is the prompt, each completion has its own.
    """
    group = owners.unsqueeze(1) == owners.unsqueeze(2)
    seen, sees = segments.unsqueeze(1), segments.unsqueeze(2)
    return (group & ((seen == 0) | (seen == sees))).tril().unsqueeze(1)


def packed_logprobs(model: Callable[..., Any], packed: Packed) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of all completion tokens.

    Parameters
    ----------
    model
        With TRL's fused head (``add_fused_lm_head``), which applies the temperature.
    packed
        On the model's device.

    Returns
    -------
    tuple
        Both of shape (completions, longest), 0 where a completion has ended. Entropies in nats.
    """
    inner = getattr(model, "module", model)  # DeepSpeed's engine holds the model
    with scored_places_only(), last_mlp_at(inner, packed.labels != IGNORED):
        out = model(
            input_ids=packed.input_ids,
            attention_mask=packed.mask,
            position_ids=packed.position_ids,
            shift_labels=packed.labels,
            fused_lm_head=True,
        )
    return _unpack(out.log_probs, packed), _unpack(out.entropy, packed)


def _unpack(values: Tensor, packed: Packed) -> Tensor:
    found = values.reshape(-1).gather(0, packed.places.reshape(-1)).view_as(packed.places)
    return found.masked_fill(~packed.scored, 0.0)


@contextmanager
def scored_places_only() -> Iterator[None]:
    """Return a context in which TRL's fused head scores labeled places only, on every device.

    TRL asks ``_use_triton`` whether to; elsewhere it projects every prompt token onto the
    vocabulary, only to throw that away (its reason, recompilation for each shape, is Neuron's).
    The kernel is chosen by another module's name and stays as it is. Pinned by a test.
    """
    kept = trl_utils._use_triton
    trl_utils._use_triton = lambda _device: True
    try:
        yield
    finally:
        trl_utils._use_triton = kept
