"""The arguments of TRL for a training. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import GRPOConfig

from selfemo_jobs.acceleration.rounded_products import checkpointing_options
from selfemo_jobs.models.adapters import lora_config
from selfemo_jobs.stages.train.batches import TrainingStep
from selfemo_jobs.stages.train.deepspeed_config import deepspeed_config
from selfemo_jobs.stages.train.loss import loss_arguments
from selfemo_jobs.stages.train.worker_protocol import TrainJob


def training_arguments(job: TrainJob, steps: Sequence[TrainingStep]) -> GRPOConfig:
    """Return TRL's arguments for a training.

    Parameters
    ----------
    job
        The training.
    steps
        The steps of the training; their number is used.

    Returns
    -------
    trl.GRPOConfig
        The arguments.
    """
    training = job.training
    config = deepspeed_config(training, job.resources)
    return GRPOConfig(
        output_dir=str(job.checkpoints_folder),
        deepspeed=config,
        accelerator_config={"use_configured_state": True},  # the worker created it
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        num_generations=training.batch_size,  # TRL only checks that it divides the batch
        max_steps=len(steps),
        learning_rate=training.optimizer.learning_rate,
        max_grad_norm=training.optimizer.max_grad_norm,
        **loss_arguments(training, job.temperature),
        bf16=job.bfloat16_weights,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs=_checkpointing_options(job),
        seed=job.seed % 2**32,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the callback stops at a loss that is not finite
        save_steps=training.checkpoint_steps,
        save_total_limit=2,  # one of them may be incomplete
        save_on_each_node=job.resources.nodes > 1,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


def _checkpointing_options(job: TrainJob) -> dict[str, Any] | None:
    """Return the options of gradient checkpointing.

    TRL selects the reentrant kind for adapters at ZeRO-3. It takes no context and needs none, since
    it does not compare what it computes again.
    """
    training = job.training
    if lora_config(training) is not None and training.deepspeed.zero_stage == 3:
        return None
    return checkpointing_options(rounded=job.bfloat16_products)
