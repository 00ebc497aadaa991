"""The output of the layers below the trained ones, for prompts that several models read.

With ``training.trainLayers`` all models of a run have the same layers below the trained ones. What
these make of a prompt is the same in every generation. So it is computed once and kept, and a later
model only runs its trained layers. That is enough for the first token of a completion. Further
tokens would need the keys and values of the layers below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from hashlib import blake2b, sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from selfemo_jobs.acceleration.divided_decoder import DividedDecoder
from selfemo_jobs.acceleration.last_layer import can_pack, last_mlp_at
from selfemo_jobs.acceleration.prefill import Prefill
from selfemo_jobs.acceleration.prompt_parts import split_prompts, tokens_at_once

#: The fields of a configuration that the lower layers' output follows from, beside the weights.
_SETTINGS = (
    *("model_type", "hidden_act", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
)


class PromptStates:
    """The hidden states below the trained layers, of prompts that were read.

    Prompts of equal length are read together, without padding. What is computed for a prompt then
    depends on no other prompt, up to rounding. So it does not matter which of them were kept.

    Parameters
    ----------
    model
        A decoder of the plain build, see :func:`can_divide`.
    trained
        The number of last layers that are trained.
    precision
        The context in which the layers compute.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trained: int,
        precision: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._model = model
        self._divided = DividedDecoder(model, trained)
        self._precision = precision or nullcontext()
        self._new: dict[str, Tensor] = {}
        self._files: dict[str, Any] = {}

    @cached_property
    def key(self) -> str:
        """A hash of all that the states of a prompt follow from. Models with equal keys share them.

        These are the embedding, the lower layers, and the type of the numbers.
        """
        decoder = self._model.get_decoder()
        config = {name: getattr(self._model.config, name, None) for name in _SETTINGS}
        kind = [str(self._model.dtype), self._model.device.type, torch.__version__]
        digest = sha256(json.dumps([config, kind], sort_keys=True, default=str).encode())
        for module in (decoder.embed_tokens, *self._divided.lower_layers):
            for name, value in module.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def __contains__(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt was read, now or in a file."""
        name = _name(prompt)
        return name in self._new or name in self._files

    def load(self, path: Path) -> None:
        """Use the states in a file of :meth:`take_new`. They stay in the file until they are used.

        Parameters
        ----------
        path
            The file. It must not change as long as this object is used.
        """
        file: Any = safe_open(path, framework="pt")
        self._files.update(dict.fromkeys(file.keys(), file))

    def take_new(self) -> bytes | None:
        """Return the states that :meth:`read` has computed as a file, and forget them.

        Returns
        -------
        bytes or None
            A safetensors file with a tensor of shape (tokens, hidden size) for each prompt. None if
            nothing was computed since the last call.
        """
        if not self._new:
            return None
        data: bytes = save(dict(sorted(self._new.items())))
        self._new.clear()
        return data

    @torch.inference_mode()
    def read(self, prompts: Sequence[Sequence[int]]) -> int:
        """Compute the states of the prompts that were not read before.

        Parameters
        ----------
        prompts
            The token ids of each prompt.

        Returns
        -------
        int
            The number of tokens that the lower layers read.
        """
        missing = sorted(
            {tuple(prompt) for prompt in prompts if prompt not in self}, key=lambda p: (len(p), p)
        )
        most = tokens_at_once(self._model)
        with self._precision, self._divided.lower_only():
            for length, group in groupby(missing, key=len):
                equally_long, size = [*group], max(1, most // length)
                for start in range(0, len(equally_long), size):
                    part = equally_long[start : start + size]
                    for prompt, states in zip(part, self._lower(part), strict=True):
                        self._new[_name(prompt)] = states.to("cpu", copy=True)
        return sum(map(len, missing))

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Return the model's state after prompts that were read. No further token can be read.

        Parameters
        ----------
        prompts
            The token ids of each prompt. Sorted by length they need the least padding.
        """
        parts = [self._upper(part) for part in split_prompts(prompts, tokens_at_once(self._model))]
        width = max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = (torch.arange(width) >= width - lengths[:, None]).long().to(self._model.device)
        cache = DynamicCache(config=self._model.config)
        position = (lengths[:, None] - 1).to(self._model.device)
        return Prefill(torch.cat(parts), cache, mask, position)

    def _lower(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the states of prompts of one length, shape (prompts, tokens, hidden size)."""
        ids = torch.tensor(prompts, device=self._model.device)
        states: Tensor = self._model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def _upper(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of the token after each prompt, shape (prompts, vocabulary)."""
        device, width = self._model.device, max(map(len, prompts))
        states = torch.zeros(
            len(prompts), width, self._model.config.hidden_size, dtype=self._model.dtype
        )
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            states[row, -len(prompt) :] = self._states(prompt)
            mask[row, -len(prompt) :] = 1
        last = torch.zeros_like(mask, dtype=torch.bool)
        last[:, -1] = True
        with self._divided.trained_only(), last_mlp_at(self._model, last.to(device)):
            output = self._model(
                inputs_embeds=states.to(device),
                attention_mask=mask.to(device),
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
                use_cache=False,
                logits_to_keep=1,
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _states(self, prompt: Sequence[int]) -> Tensor:
        name = _name(prompt)
        states: Tensor = (
            self._new[name] if name in self._new else self._files[name].get_tensor(name)
        )
        return states


def can_divide(model: PreTrainedModel, trained: int) -> bool:
    """Return whether a model can run the layers below the trained ones alone.

    Parameters
    ----------
    model
        The model.
    trained
        The number of last layers that are trained.
    """
    return can_pack(model.config) and 0 < trained < len(model.get_decoder().layers)


def _name(prompt: Sequence[int]) -> str:
    """Return the name of a prompt in a file: 128 bits, which do not meet by chance."""
    return blake2b(np.asarray(prompt, np.int32).tobytes(), digest_size=16).hexdigest()
