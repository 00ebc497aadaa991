"""Writes the trained model: whole weights as safetensors, in the policy's own type."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model
from selfemo_jobs.models.model_folder import model_files
from selfemo_jobs.store.local_files import replacing_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Transformers' own default: files of a size that storage and people handle well.
SHARD_SIZE = "5GB"
_INDEX = "model.safetensors.index.json"


def other_files(folder: Path) -> list[Path]:
    """Return a model's files besides its weights: configuration and tokenizer."""
    return [
        path
        for path in model_files(folder)
        if path.suffix != ".safetensors" and path.name != _INDEX
    ]


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the type that a model's weights are stored in (of its first tensor with fractions).

    Raises
    ------
    BadInput
        If there is none.
    """
    import torch
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                dtype: torch.dtype = file.get_slice(name)[:0].dtype
                if dtype in {torch.float32, torch.bfloat16, torch.float16}:
                    return dtype
    raise BadInput(f"{folder}: no weights in float32, bfloat16 or float16: convert the model")


def write_model(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], policy: Path, folder: Path
) -> None:
    """Write a model's folder, whole or not at all.

    Configuration and tokenizer are the policy's own files, byte for byte: training changes neither.

    Parameters
    ----------
    model
        Knows how its weights are named in files; its own tensors are not read.
    weights
        By name, as in ``model.state_dict()``.
    policy
        Folder of the model that was trained.
    folder
        To write.
    """
    dtype = stored_dtype(policy)
    # Tied weights have one name here and two in the state: the second would be stored as well.
    names = {n for n, _ in (*model.named_parameters(), *model.named_buffers())}
    whole = {name: _cast(value, dtype) for name, value in weights.items() if name in names}
    with replacing_folder(folder) as new:
        model.save_pretrained(new, state_dict=whole, max_shard_size=SHARD_SIZE)
        for path in new.iterdir():
            if path.suffix != ".safetensors" and path.name != _INDEX:
                path.unlink()
        for path in other_files(policy):
            shutil.copyfile(path, new / path.name)


def merge_adapter(
    weights: dict[str, torch.Tensor], adapter: Any, policy: Path
) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """Return a policy with an adapter merged into it, in float32, and its weights by name.

    Parameters
    ----------
    weights
        Of the adapter, with PEFT's full names; others are ignored.
    adapter
        Its ``LoraConfig``.
    policy
        Folder of the model it was trained on.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    base = load_model(policy, torch.float32)
    peft = get_peft_model(base, adapter)
    own = {k.replace(".default.", "."): v.float() for k, v in weights.items() if "lora_" in k}
    if not own:
        raise RuntimeError("the trained state holds no adapter")
    set_peft_model_state_dict(peft, own)
    merged: PreTrainedModel = peft.merge_and_unload(safe_merge=True)
    return merged, merged.state_dict()


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value
