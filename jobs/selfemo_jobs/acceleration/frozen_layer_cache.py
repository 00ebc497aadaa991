"""What the layers below the trained ones make of each group: worked out once, then remembered.

``training.trainLayers`` leaves all but the last layers as they are, so a group leaves them the same
at its every reading: as training starts, in every epoch. They stand aside where all groups of a
batch are known, and the trained ones begin from what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from selfemo_jobs.acceleration.prefix_packing import Group, Packed

#: Most bytes that a process remembers, in main memory: a tenth of a small machine's. Ten thousand
#: groups of forty tokens take 1.9 GB with a hidden size of 1,152 in float32.
MOST_BYTES = 2 * 1024**3


def fits(tokens: int, hidden_size: int, itemsize: int, most: int = MOST_BYTES) -> bool:
    """Return whether so many tokens can be remembered.

    Parameters
    ----------
    tokens
        Of all groups.
    hidden_size
        Numbers of each.
    itemsize
        Bytes of each number.
    """
    return tokens * hidden_size * itemsize <= most


class FrozenLayers:
    """The layers of a model that are not trained, with a memory.

    Parameters
    ----------
    model
        A decoder whose layers return their hidden states alone (those that can be packed do).
    trained
        How many of its last layers are trained; at least one fewer than it has.
    """

    def __init__(self, model: PreTrainedModel, trained: int) -> None:
        self._known: dict[Group, Tensor] = {}
        self._batch: Packed | None = None
        self._knows = False  # all of the batch's groups
        *below, last = model.base_model.layers[:-trained]
        for layer in below:
            layer.forward = self._standing_aside(layer.forward)
        last.forward = self._remembering(last.forward)

    @contextmanager
    def reading(self, packed: Packed) -> Iterator[None]:
        """Say what the model is about to read."""
        self._batch = packed
        self._knows = all(group in self._known for group in packed.groups)
        try:
            yield
        finally:
            self._batch, self._knows = None, False

    def _standing_aside(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def read(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return hidden_states if self._knows else forward(hidden_states, *args, **kwargs)

        return read

    def _remembering(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def read(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if self._knows:
                return self._remembered(hidden_states)
            found = forward(hidden_states, *args, **kwargs)
            states = found.detach()
            for group, place in self._standing():
                # a copy: a view would keep the whole batch
                self._known.setdefault(group, states[place].to("cpu", copy=True))
            return found

        return read

    def _remembered(self, like: Tensor) -> Tensor:
        """Return the rows' states, shape (rows, length, hidden); filling, which is unread, is 0."""
        first = next(iter(self._known.values()))
        states = torch.zeros(like.shape, dtype=first.dtype)
        for group, place in self._standing():
            states[place] = self._known[group]
        return states.to(like.device)

    def _standing(self) -> Iterator[tuple[Group, tuple[int, slice]]]:
        """Yield each group of the batch, and its place: row and columns."""
        if self._batch is not None:
            for group, (row, start) in zip(self._batch.groups, self._batch.starts, strict=True):
                yield group, (row, slice(start, start + len(group)))
