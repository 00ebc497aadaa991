"""The configuration of DeepSpeed, complete and without `auto` values. Pure."""

from __future__ import annotations

from typing import Any

from selfemo_api.spec import Offload, Precision, ResourcesSpec, TrainingSpec


def deepspeed_config(training: TrainingSpec, resources: ResourcesSpec) -> dict[str, Any]:
    """Return the configuration for ``deepspeed.initialize``.

    Parameters
    ----------
    training
        The field ``spec.training``.
    resources
        The field ``spec.resources``.

    Returns
    -------
    dict
        The configuration, as DeepSpeed's JSON.

    Examples
    --------
    >>> config = deepspeed_config(TrainingSpec(batch_size=32, micro_batch_size=8), ResourcesSpec())
    >>> config["gradient_accumulation_steps"], config["optimizer"]["type"]
    (4, 'AdamW')
    """
    on_gpu = resources.gpus_per_node > 0
    accumulation = training.batch_size // (training.micro_batch_size * resources.processes)
    return {
        "train_batch_size": training.batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.optimizer.max_grad_norm,
        "bf16": {"enabled": on_gpu and training.precision is Precision.BFLOAT16},
        "optimizer": _optimizer(training),
        "zero_optimization": _zero(training, on_gpu=on_gpu),
        # Checkpoints are on the disk of each node; several nodes never share a folder.
        "checkpoint": {"use_node_local_storage": resources.nodes > 1},
    }


def _optimizer(training: TrainingSpec) -> dict[str, Any]:
    offloaded = training.deepspeed.offload is not Offload.NONE
    return {
        "type": "AdamW",
        "params": {
            "lr": training.optimizer.learning_rate,
            "betas": [0.9, 0.999],  # the defaults of PyTorch and TRL
            "eps": 1e-8,
            "weight_decay": 0.0,  # TRL's default: a generation is too short for weights to grow
            # PyTorch's own kernels. DeepSpeed compiles its own at the first start: those for a GPU
            # need nvcc, which the image does not have, and those for a CPU take minutes.
            "torch_adam": True,
            # One pass over the memory of the CPU instead of ten: a tenth of the time of a step.
            **({"fused": True} if offloaded else {}),
        },
    }


def _zero(training: TrainingSpec, *, on_gpu: bool) -> dict[str, Any]:
    """Return the settings of ZeRO: its stage, bucket sizes and offload."""
    settings = training.deepspeed
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        # Numbers that are reduced or gathered at once. DeepSpeed's default of 500 million takes
        # gigabytes for any model. A tenth of it still fills any network link.
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
    }
    if settings.zero_stage == 3:
        # The weights at the end are complete, and in the type that training computes in.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    # Pinned memory speeds up copies to a GPU. Without a GPU nothing is copied.
    place = {"device": "cpu", "pin_memory": on_gpu}
    if settings.offload is not Offload.NONE:
        zero["offload_optimizer"] = dict(place)
    if settings.offload is Offload.OPTIMIZER_AND_PARAMETERS:
        zero["offload_param"] = dict(place)
    return zero
