"""Writes the trained model: complete weights as safetensors, in the data type of the policy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model
from selfemo_jobs.models.model_folder import model_files, notice_files
from selfemo_jobs.store.local_files import replacing_folder, translated_errors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Largest weights file. It is Transformers' default, a size that storage services handle well.
SHARD_SIZE = "5GB"
_INDEX = "model.safetensors.index.json"


def config_and_tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a model except its weights.

    Parameters
    ----------
    folder
        The folder of the model.

    Returns
    -------
    list of Path
        The files of the configuration and the tokenizer, and those with the terms of the model.
    """
    own = [p for p in model_files(folder) if p.suffix != ".safetensors" and p.name != _INDEX]
    return [*own, *notice_files(folder)]


def weights_dtype(folder: Path) -> torch.dtype:
    """Return the data type in which a model's weights are stored.

    Parameters
    ----------
    folder
        The folder of the model.

    Returns
    -------
    torch.dtype
        The type of the first floating-point tensor.

    Raises
    ------
    BadInput
        If no tensor is float32, bfloat16 or float16.
    """
    import torch
    from safetensors import safe_open

    for path in (path for path in model_files(folder) if path.suffix == ".safetensors"):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                dtype: torch.dtype = file.get_slice(name)[:0].dtype
                if dtype in {torch.float32, torch.bfloat16, torch.float16}:
                    return dtype
    raise BadInput(f"{folder} has no weights in float32, bfloat16 or float16: convert the model")


def write_model(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], policy: Path, folder: Path
) -> None:
    """Write the folder of a model, as a whole or not at all.

    The files of the configuration and the tokenizer are copies of the policy's: training changes
    neither.

    Parameters
    ----------
    model
        The model, which determines the names of the weights in files. Its own tensors are not read.
    weights
        The weights by name, as in ``model.state_dict()``.
    policy
        Folder of the model that was trained.
    folder
        Folder to write.

    Raises
    ------
    BadInput
        If the disk is full, or the folder may not be written.
    Unavailable
        If the server of a network file system is unavailable.
    """
    dtype = weights_dtype(policy)
    # Tied weights have one name here and two in the state dict, where the second is a copy.
    names = {n for n, _ in (*model.named_parameters(), *model.named_buffers())}
    state = {name: _cast(value, dtype) for name, value in weights.items() if name in names}
    with translated_errors(folder), replacing_folder(folder) as new:
        model.save_pretrained(new, state_dict=state, max_shard_size=SHARD_SIZE)
        for path in new.iterdir():
            if path.suffix != ".safetensors" and path.name != _INDEX:
                path.unlink()
        for path in config_and_tokenizer_files(policy):
            shutil.copyfile(path, new / path.name)


def merge_adapter(
    weights: dict[str, torch.Tensor], adapter: Any, policy: Path
) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """Return a policy with a trained adapter merged into it, in float32.

    Parameters
    ----------
    weights
        The weights of the adapter by PEFT's full names. Other weights are ignored.
    adapter
        The ``LoraConfig`` of the adapter.
    policy
        Folder of the model that the adapter was trained on.

    Returns
    -------
    model : PreTrainedModel
        The merged model.
    weights : dict of str to torch.Tensor
        Its weights by name.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    base = load_model(policy, torch.float32)
    peft = get_peft_model(base, adapter)
    own = {k.replace(".default.", "."): v.float() for k, v in weights.items() if "lora_" in k}
    if not own:
        raise RuntimeError("the trained state contains no adapter weights")
    set_peft_model_state_dict(peft, own)
    merged: PreTrainedModel = peft.merge_and_unload(safe_merge=True)
    return merged, merged.state_dict()


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value
