"""DeepSpeed's configuration, written out in full: nothing is left to `auto`. Pure."""

from __future__ import annotations

from typing import Any

from selfemo_api.spec import Offload, TrainingSpec


def deepspeed_config(training: TrainingSpec) -> dict[str, Any]:
    """Return the configuration of ``deepspeed.initialize``.

    Parameters
    ----------
    training
        ``spec.training``.
    """
    passes = training.batch_size // (training.micro_batch_size * training.processes)
    return {
        "train_batch_size": training.batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": training.bfloat16_weights},
        "optimizer": _optimizer(training),
        "zero_optimization": _zero(training),
        # A node's own disk: checkpoints of several nodes never share a folder.
        "checkpoint": {"use_node_local_storage": training.nodes > 1},
    }


def _optimizer(training: TrainingSpec) -> dict[str, Any]:
    return {
        "type": "AdamW",
        "params": {
            "lr": training.learning_rate,
            "betas": [0.9, 0.999],  # PyTorch's and TRL's
            "eps": 1e-8,
            "weight_decay": 0.0,  # TRL's: a generation is too short for weights to grow
            # PyTorch's own kernels: DeepSpeed's are compiled at the first start, and neither the
            # image nor a laptop has the compiler.
            "torch_adam": True,
        },
    }


def _zero(training: TrainingSpec) -> dict[str, Any]:
    wanted = training.deepspeed
    on_gpu = training.gpus_per_node > 0
    zero: dict[str, Any] = {
        "stage": wanted.zero_stage,
        # Numbers reduced or gathered at once. DeepSpeed's 500 M take gigabytes whatever the model;
        # a tenth still fills any link.
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
    }
    if wanted.zero_stage == 3:
        # Whole weights come out at the end, in the arithmetic's own type.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    # Pinned memory makes copies to a GPU faster; without one there is nothing to copy to.
    place = {"device": "cpu", "pin_memory": on_gpu}
    if wanted.offload is not Offload.NONE:
        zero["offload_optimizer"] = dict(place)
    if wanted.offload is Offload.OPTIMIZER_AND_PARAMETERS:
        zero["offload_param"] = dict(place)
    return zero
