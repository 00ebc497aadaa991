"""A cache of what the layers that are not trained make of each group.

With ``training.trainLayers``, all layers but the last ones stay as they are. They give the same
hidden states each time they read a group: before the first step, and in every epoch. If the states
of all groups of a batch are cached, those layers are skipped, and the trained ones start from the
cached states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from selfemo_jobs.acceleration.prefix_packing import PackedBatch, PackedGroup

#: The most bytes that a process caches, in main memory: a tenth of a small machine's. Ten thousand
#: groups of forty tokens take 1.9 GB with a hidden size of 1,152 in float32.
MOST_BYTES = 2 * 1024**3


def fits_cache(tokens: int, hidden_size: int, itemsize: int, most: int = MOST_BYTES) -> bool:
    """Return whether the hidden states of so many tokens may be cached.

    Parameters
    ----------
    tokens
        The number of tokens of all groups together.
    hidden_size
        The number of values in a token's hidden state.
    itemsize
        The size of a value in bytes.
    most
        The limit in bytes.

    Examples
    --------
    >>> fits_cache(tokens=400_000, hidden_size=576, itemsize=4)
    True
    >>> fits_cache(tokens=1_000_000, hidden_size=4096, itemsize=2)
    False
    """
    return tokens * hidden_size * itemsize <= most


class FrozenLayerCache:
    """Skips the layers that are not trained where their output is cached.

    The forward methods of these layers are replaced for good.

    Parameters
    ----------
    model
        A decoder whose layers return only their hidden states. All that can be packed do.
    trained
        The number of last layers that are trained. It must be less than the number of layers.
    most_tokens
        The most tokens whose states are cached. Micro-batches may divide a group otherwise in each
        epoch, and each part is cached by itself.
    """

    def __init__(self, model: PreTrainedModel, trained: int, most_tokens: int) -> None:
        self._left = most_tokens
        self._states: dict[PackedGroup, Tensor] = {}
        self._batch: PackedBatch | None = None
        self._cached = False  # whether the states of all groups of the batch are there
        *below, last = model.base_model.layers[:-trained]
        for layer in below:
            layer.forward = self._skip_if_cached(layer.forward)
        last.forward = self._read_or_store(last.forward)

    @contextmanager
    def reading(self, batch: PackedBatch) -> Iterator[None]:
        """Return a context in which the model reads a batch, and nothing else."""
        self._batch = batch
        self._cached = all(group in self._states for group in batch.groups)
        try:
            yield
        finally:
            self._batch, self._cached = None, False

    def has_nothing_new(self, batch: PackedBatch) -> bool:
        """Return whether the model can read a batch without a state being stored."""
        new = (group for group in batch.groups if group not in self._states)
        return all(len(group) > self._left for group in new)

    def _skip_if_cached(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def skip_or_forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return hidden_states if self._cached else forward(hidden_states, *args, **kwargs)

        return skip_or_forward

    def _read_or_store(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def read_or_forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if self._cached:
                return self._cached_states(hidden_states)
            output = forward(hidden_states, *args, **kwargs)
            states = output.detach()
            for group, place in self._places():
                if group not in self._states and len(group) <= self._left:
                    # a copy: a view would keep the whole batch
                    self._states[group] = states[place].to("cpu", copy=True)
                    self._left -= len(group)
            return output

        return read_or_forward

    def _cached_states(self, like: Tensor) -> Tensor:
        """Return the batch's states, shape (rows, length, hidden); padding, which is unused, is 0.

        Parameters
        ----------
        like
            A tensor with the shape and on the device of the result.
        """
        first = next(iter(self._states.values()))
        states = torch.zeros(like.shape, dtype=first.dtype)
        for group, place in self._places():
            states[place] = self._states[group]
        return states.to(like.device)

    def _places(self) -> Iterator[tuple[PackedGroup, tuple[int, slice]]]:
        """Yield each group of the batch with its place: row and columns."""
        if self._batch is not None:
            for group, (row, start) in zip(self._batch.groups, self._batch.starts, strict=True):
                yield group, (row, slice(start, start + len(group)))
