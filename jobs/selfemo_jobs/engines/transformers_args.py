"""The arguments of the engine `Transformers`: batches, the device, and the type of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.load_errors import is_transient_load_error

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TransformersArgs:
    """The arguments that ``engineArgs`` may have for this engine."""

    batch_size: int = 64
    """The number of completions that are drawn together. On two cores, larger batches gain nothing,
    except where each prompt has many short completions: these share their beginnings, and 256 are a
    fifth faster."""
    device: str = "auto"
    """The device, as PyTorch names it. `auto` is the first GPU, or the CPU where there is none."""
    dtype: str = "auto"
    """`float32`, `bfloat16` or `float16`. `auto` is float32 on a CPU, because few CPUs have fast
    bfloat16, and the model's own type on a GPU."""

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the arguments of a spec, checked.

        Raises
        ------
        BadInput
            If an argument is unknown, or its value is not valid.
        """
        known: dict[str, type] = {f.name: type(getattr(cls, f.name)) for f in fields(cls)}
        for name, value in arguments.items():
            if name == "trust_remote_code" and value is False:
                continue  # the schema allows it
            if name not in known:
                raise BadInput(
                    f"`engineArgs.{name}` is not an argument of the engine Transformers: "
                    f"it takes {', '.join(sorted(known))}"
                )
            # JSON may write a whole number as 64.0
            whole = isinstance(value, float) and value.is_integer() and known[name] is int
            if isinstance(value, bool) or not (isinstance(value, known[name]) or whole):
                raise BadInput(f"`engineArgs.{name}` must be of type {known[name].__name__}")
        result = cls(**{k: known[k](v) for k, v in arguments.items() if k in known})
        if result.batch_size < 1:
            raise BadInput("`engineArgs.batch_size` must be 1 or more")
        if result.dtype not in ("auto", *_DTYPES):
            raise BadInput(f"`engineArgs.dtype` must be auto, {', '.join(_DTYPES)}")
        return result

    def find_device(self) -> torch.device:
        """Return the device.

        Raises
        ------
        BadInput
            If the device is unknown.
        Unavailable
            If the device is busy or has no memory left, which may pass.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            text = f"`engineArgs.device` {self.device}: {' '.join(str(error).split())}"
            if is_transient_load_error(error):
                text = f"{text}: run the same command again, or on another GPU"
                raise Unavailable(text) from error
            raise BadInput(text) from None

    def weights_dtype(self, device: torch.device, folder: Path) -> torch.dtype:
        """Return the type of the weights of a model on a device.

        Parameters
        ----------
        device
            The device.
        folder
            The model's folder.
        """
        if self.dtype != "auto":
            return _DTYPES[self.dtype]
        if device.type == "cpu":
            return torch.float32
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return config.dtype or torch.float32


#: The arguments of a spec without `engineArgs`.
DEFAULT_ARGS = TransformersArgs()
