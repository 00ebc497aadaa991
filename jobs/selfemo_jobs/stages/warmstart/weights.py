"""Which weights of a model a warm start trains, on which device, and how the model is written.

The weights are those that the train stage would train: adapters (`training.lora`), the last layers
(`training.trainLayers`), or all. The embeddings and the output head are never trained: a few
hundred dialogues teach them nothing, and they are half of a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from selfemo_api.spec import EvolutionSpec, Precision, TrainingSpec
from selfemo_jobs.acceleration.rounded_products import checkpointing_options, rounding_context
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.adapters import lora_config
from selfemo_jobs.models.fetch import load_model, move_model
from selfemo_jobs.models.model_export import merge_adapter, write_model
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.stages.warmstart.supervised_trainer import freeze_embeddings

#: The start of PEFT's full names of weights, before the names in the model.
_PEFT_PREFIX = "base_model.model."


def load_for_training(folder: Path, spec: EvolutionSpec, seed: int) -> PreTrainedModel:
    """Return a model on its device, whose weights that require gradients are to be trained.

    Parameters
    ----------
    folder
        The folder of the model.
    spec
        The spec of the evolution.
    seed
        The seed of the adapters' first weights.

    Raises
    ------
    BadInput
        If the model cannot be loaded or trained as the spec says, or there is no GPU.
    """
    device, dtype = _device_and_dtype(spec)
    model = move_model(load_model(folder, dtype), device, folder)
    training = spec.training
    adapter = lora_config(training)
    if adapter is not None:
        from peft import get_peft_model

        torch.manual_seed(seed)
        # it keeps the type of the model's weights: the trainer has float32 copies of its own
        peft = get_peft_model(model, adapter, autocast_adapter_dtype=False)
        model = peft.get_base_model()
    elif training.train_layers > 0:
        train_last_layers(model, training.train_layers)
    else:
        model.requires_grad_(True)
    freeze_embeddings(model)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable(checkpointing_options(rounded=rounds_products(spec)))
    loaded: PreTrainedModel = model
    return loaded


def trained_layers(training: TrainingSpec) -> int | None:
    """Return the number of last layers that are trained, or None if weights of all layers are.

    Parameters
    ----------
    training
        The field ``spec.training``.
    """
    return training.train_layers or None if lora_config(training) is None else None


def precision_of(spec: EvolutionSpec) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes the context of the training's forward passes.

    On a CPU, `training.precision: BFloat16` rounds the factors of products, as in the train stage.
    On a GPU the weights themselves are bfloat16.

    Parameters
    ----------
    spec
        The spec of the evolution.
    """
    return rounding_context(rounded=rounds_products(spec))


def rounds_products(spec: EvolutionSpec) -> bool:
    """Return whether the forward passes of a training round the factors of products, as on a CPU.

    Parameters
    ----------
    spec
        The spec of the evolution.
    """
    return spec.resources.gpus_per_node == 0 and spec.training.precision is Precision.BFLOAT16


def write_trained(
    policy: Path, training: TrainingSpec, weights: Mapping[str, Tensor], folder: Path
) -> None:
    """Write a model with trained weights in place of its own, whole or not at all.

    All other weights are those of the policy, bit by bit. Adapters are merged in float32.

    Parameters
    ----------
    policy
        The folder of the model that was trained.
    training
        The field ``spec.training``.
    weights
        The trained weights in float32, by their names in the model of :func:`load_for_training`.
    folder
        The folder to write.
    """
    adapter = lora_config(training)
    if adapter is not None:
        named = {_PEFT_PREFIX + name: weight for name, weight in weights.items()}
        model, state = merge_adapter(named, adapter, policy)
    else:
        model = load_model(policy, torch.float32)
        state = {**model.state_dict(), **weights}
    write_model(model, state, policy, folder)


def _device_and_dtype(spec: EvolutionSpec) -> tuple[torch.device, torch.dtype]:
    """Return where a warm start trains, and the type of the weights. Raises BadInput."""
    if spec.resources.gpus_per_node == 0:
        return torch.device("cpu"), torch.float32
    if not torch.cuda.is_available():
        raise BadInput(
            f"`resources.gpusPerNode` is {spec.resources.gpus_per_node}, but PyTorch finds no GPU: "
            "set it to 0 to train on the CPU"
        )
    bfloat16 = spec.training.precision is Precision.BFLOAT16
    return torch.device("cuda"), torch.bfloat16 if bfloat16 else torch.float32
