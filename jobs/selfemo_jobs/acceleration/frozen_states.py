"""The output of the layers below the trained ones, for whole texts: it is computed once.

These layers give the same hidden states each time they read a text. A training that reads each text
several times then runs the trained layers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from selfemo_jobs.acceleration.divided_decoder import DividedDecoder
from selfemo_jobs.acceleration.frozen_layer_cache import fits_cache
from selfemo_jobs.acceleration.last_layer import can_pack
from selfemo_jobs.acceleration.prompt_parts import split_prompts, tokens_at_once


class FrozenStates:
    """The hidden states below the trained layers, of each of some texts.

    They are computed in an order that depends on the texts alone. So a training that continues
    later has the same states to the last bit.

    Parameters
    ----------
    model
        A decoder of the plain build, see :func:`can_keep_states`.
    trained
        The number of last layers that are trained. It must be less than the number of layers.
    texts
        The token ids of the texts.
    precision
        Returns the context in which the layers compute.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trained: int,
        texts: Sequence[tuple[int, ...]],
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._model = model
        self._decoder = model.get_decoder()
        self._divided = DividedDecoder(model, trained)
        self._states: dict[tuple[int, ...], Tensor] = {}
        most = tokens_at_once(model)
        ordered = sorted({*texts}, key=lambda text: (len(text), text))
        with torch.no_grad(), precision(), self._divided.lower_only():
            for part in split_prompts(ordered, most):
                for text, states in zip(part, self._read(part), strict=True):
                    self._states[tuple(text)] = states[-len(text) :].to("cpu", copy=True)

    def padded(self, texts: Sequence[tuple[int, ...]]) -> Tensor:
        """Return the states of some texts, padded with 0 on the left.

        Parameters
        ----------
        texts
            Texts among those that the object was made with.

        Returns
        -------
        torch.Tensor
            Shape (texts, length of the longest, hidden size), on the model's device.
        """
        longest = max(map(len, texts))
        first = self._states[texts[0]]
        result = torch.zeros(len(texts), longest, first.size(-1), dtype=first.dtype)
        for row, text in enumerate(texts):
            result[row, -len(text) :] = self._states[text]
        return result.to(self._model.device)

    def trained_layers_only(self) -> AbstractContextManager[None]:
        """Return a context in which the model has only its trained layers, final norm and head."""
        return self._divided.trained_only()

    def _read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, texts))
        ids = torch.tensor([[0] * (longest - len(text)) + list(text) for text in texts])
        lengths = torch.tensor([len(text) for text in texts])
        mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        states: Tensor = self._decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state
        return states


def can_keep_states(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> bool:
    """Return whether the states of all texts can be kept, and used in place of the first layers.

    Parameters
    ----------
    model
        The model.
    texts
        The token ids of the texts.
    """
    tokens = sum(map(len, texts))
    return can_pack(model.config) and fits_cache(
        tokens, model.config.hidden_size, model.dtype.itemsize
    )
