"""Less work in a decoder's last layer and head, where only some tokens are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

#: Architectures of the plain build: rotary positions, attention that takes a mask and positions as
#: they are given, and in each layer an `mlp` that takes each place by itself.
PLAIN = frozenset({"llama", "qwen2", "qwen3"})


def contiguous_head(model: PreTrainedModel) -> None:
    """Have the model's head read hidden states that lie one after the other, from now on.

    `logits_to_keep` cuts the last tokens out of each row, and what is cut out lies apart. With a
    head that is not trained PyTorch multiplies that by the vocabulary row by row on a CPU: three
    tokens of each of 8 rows take 0.31 s and, back, 0.72 s; 0.04 s and 0.03 s once copied (SmolLM2's
    head, float32, one core, PyTorch 2.13).

    Parameters
    ----------
    model
        One without a head is left as it is.
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(_head: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in given)


@contextmanager
def last_mlp_at(model: PreTrainedModel, places: Tensor) -> Iterator[None]:
    """Return a context in which the last layer's feed-forward part works where it is read, alone.

    What it makes of a place is seen by no other place, since no attention comes after it; and of a
    prompt only the end is read. It is three quarters of a layer's work: of six layers' reading an
    eighth, of training the last one alone more than half. What is read is the same up to rounding.

    Left as it is where the model's build is not known, and where gradient checkpointing would run
    it once more after the context has ended.

    Parameters
    ----------
    places
        Bool, shape (rows, length) of the tokens that are about to be read: where the model's output
        is used. It is of no use elsewhere.
    """
    if model.config.model_type not in PLAIN or model.is_gradient_checkpointing:
        yield
        return
    mlp = model.get_decoder().layers[-1].mlp  # of a model with adapters (PEFT) too
    forward = mlp.forward

    def at_places(hidden_states: Tensor) -> Tensor:
        found = forward(hidden_states[places])
        whole: Tensor = found.new_zeros(hidden_states.shape)
        whole[places] = found
        return whole

    mlp.forward = at_places
    try:
        yield
    finally:
        mlp.forward = forward
