"""Prepares the trainer before the first step, and reports, checks and saves after each step."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from safetensors.numpy import load_file, save
from transformers import TrainerCallback

from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.sigterm import SigtermFlag
from selfemo_jobs.stages.train.checkpoints import (
    checkpoint_folder,
    delete_other_checkpoints,
    mark_complete,
)
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer
from selfemo_jobs.stages.train.worker_protocol import TrainJob, local_rank
from selfemo_jobs.store.local_files import write_file

log = logging.getLogger(__name__)

#: Fields of a progress line that not every training has, and their names in the trainer's log.
_LOGGED = {
    ProgressField.KL: "kl",
    ProgressField.ENTROPY: "entropy",
    ProgressField.CLIP_LOW: "clip_ratio/low_mean",
    ProgressField.CLIP_HIGH: "clip_ratio/high_mean",
}

#: File of the log-probabilities under the policy as training starts. It is stored beside the
#: checkpoints, because a training that continues from a checkpoint has other weights.
OLD_LOGPROBS = "old-logprobs.safetensors"


class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """The callback of a training.

    Parameters
    ----------
    trainer
        The trainer that the callback is added to.
    job
        The training.
    sigterm
        Whether SIGTERM has arrived at this process. It is set if SIGTERM arrived at any process.
    reference
        Log-probabilities under the reference, or None if they are not needed or the reference is
        the policy as training starts.
    """

    def __init__(
        self,
        trainer: SelfGRPOTrainer,
        job: TrainJob,
        sigterm: SigtermFlag,
        reference: npt.NDArray[np.float32] | None,
    ) -> None:
        self._trainer = trainer
        self._job = job
        self._sigterm = sigterm
        self._reference = reference

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Check the engine, and compute or load the old log-probabilities.

        The checkpoint is loaded by now, so the others are deleted.
        """
        trainer, training = self._trainer, self._job.training
        if local_rank() == 0:
            delete_other_checkpoints(self._job.checkpoints_folder, [state.global_step])
        dist.barrier()
        trainer.check_engine(training.deepspeed.zero_stage)
        file = self._job.folder / OLD_LOGPROBS
        if file.is_file():
            old = load_file(file)["old"]
            trainer.refill_cache(trainer.model_wrapped, state.global_step)
        else:
            old = trainer.compute_logprobs(trainer.model_wrapped)
            if local_rank() == 0:
                write_file(file, save({"old": old}))
            dist.barrier()
        reference = self._reference
        if reference is None and training.kl_beta > 0:
            reference = old  # the reference is the policy as training starts
        trainer.set_logprobs(old, reference, training.importance_cap)

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_kwargs: Any
    ) -> None:
        """Log the progress, and fail if the loss or the gradient is not finite."""
        if "loss" not in logs:
            return  # the summary at the end
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                rate = self._job.training.optimizer.learning_rate
                raise BadInput(
                    f"training diverged: {name} is {logs[name]} at step {state.global_step}; lower "
                    f"`training.optimizer.learningRate` ({rate})"
                )
        if state.is_world_process_zero:
            fields = {
                ProgressField.DONE: state.global_step,
                ProgressField.TOTAL: state.max_steps,
                ProgressField.LOSS: round(logs["loss"], 6),
                ProgressField.GRAD_NORM: round(logs["grad_norm"], 6),
                ProgressField.LEARNING_RATE: logs["learning_rate"],
            }
            fields |= {f: round(logs[name], 6) for f, name in _LOGGED.items() if name in logs}
            log.info(PROGRESS_MESSAGE, extra={"fields": fields})

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Save and stop if SIGTERM arrived at any process: all must do so at the same step."""
        device = self._trainer.accelerator.device
        terminated = torch.tensor(float(self._sigterm.received), device=device)
        dist.all_reduce(terminated, op=dist.ReduceOp.MAX)
        if terminated.item() and state.global_step < state.max_steps:
            self._sigterm.received = True
            control.should_save = control.should_training_stop = True
        elif state.global_step >= state.max_steps:
            control.should_save = False  # the finished model is written at once

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Mark the checkpoint as complete when every process has written its files."""
        dist.barrier()
        if local_rank() == 0:
            checkpoint = checkpoint_folder(self._job.checkpoints_folder, state.global_step)
            mark_complete(checkpoint, hashes=not self._sigterm.received)  # little time is left then
        dist.barrier()
