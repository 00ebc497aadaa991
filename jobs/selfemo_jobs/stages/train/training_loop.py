"""The training in one process of a process group, from the rows to the trained model."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
)
from transformers.integrations import deepspeed as hf_deepspeed
from trl.trainer.utils import add_fused_lm_head

from selfemo_api.metrics import ProgressField, TrainMetric
from selfemo_api.spec import TrainingSpec
from selfemo_jobs.errors import Terminated
from selfemo_jobs.models.adapters import lora_config
from selfemo_jobs.models.dropout import disable_dropout
from selfemo_jobs.models.fetch import load_model, load_tokenizer, move_model
from selfemo_jobs.models.model_export import merge_adapter, write_model
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.prompts import load_prompt_set
from selfemo_jobs.runtime.sigterm import SigtermFlag
from selfemo_jobs.runtime.step_curve import thin_curve
from selfemo_jobs.stages.train.batches import PADDING, BatchShape, StepPlan, plan_steps
from selfemo_jobs.stages.train.best_responses import read_best_responses
from selfemo_jobs.stages.train.checkpoints import (
    checkpoint_folder,
    complete_steps,
    is_whole,
)
from selfemo_jobs.stages.train.learning_rate import rate_factor
from selfemo_jobs.stages.train.loss import response_weight
from selfemo_jobs.stages.train.ragged_rows import FlaggedRows
from selfemo_jobs.stages.train.rollout_data import (
    RolloutData,
    add_imitation_rows,
    add_response_rows,
)
from selfemo_jobs.stages.train.rollout_files import (
    read_consensus,
    read_responses,
    read_rollouts,
    write_responses,
)
from selfemo_jobs.stages.train.spoken_turns import read_spoken_turns, turn_examples
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer
from selfemo_jobs.stages.train.training_arguments import training_arguments
from selfemo_jobs.stages.train.training_callback import OLD_LOGPROBS, TrainingCallback
from selfemo_jobs.stages.train.worker_protocol import (
    TrainJob,
    TrainResult,
    local_rank,
    write_json,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The columns of the stored curve, and their names in the trainer's log.
_CURVE = {
    ProgressField.LOSS: "loss",
    ProgressField.GRAD_NORM: "grad_norm",
    ProgressField.LEARNING_RATE: "learning_rate",
    TrainMetric.ENTROPY: "entropy",
    TrainMetric.KL: "kl",
    TrainMetric.IMITATION: "imitation",
}


def run_training(job: TrainJob, sigterm: SigtermFlag) -> None:
    """Train, and write the model and the result.

    A training that was interrupted continues from its last complete checkpoint.

    Parameters
    ----------
    job
        The training.
    sigterm
        Whether SIGTERM has arrived; read after each step.

    Raises
    ------
    BadInput
        If the loss is not finite.
    Terminated
        If SIGTERM arrived. A checkpoint is written.
    """
    training = job.training
    tokenizer = load_tokenizer(job.policy)
    rollouts = _load_rollouts(job, tokenizer)
    steps = plan_training(rollouts, training, job.resources.processes, job.seed)
    arguments = training_arguments(job, steps)
    dtype = torch.bfloat16 if job.bfloat16_weights else torch.float32
    model = _load_policy(job, dtype)
    adapter = lora_config(training)
    trainer = SelfGRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=Dataset.from_dict({"row": np.arange(len(rollouts) + 1)}),
        peft_config=adapter,
        rollouts=rollouts,
        steps=steps,
        kl_beta=training.kl_beta,
        imitation=training.imitation,
        response_weight=response_weight(training.imitation, job.responder_share),
        rate=rate_factor(training.optimizer, len(steps)),
        bfloat16_products=job.bfloat16_products,
        # ZeRO-3 gathers weights in the order in which all layers use them
        trained_layers=(
            training.train_layers or None if training.deepspeed.zero_stage < 3 else None
        ),
    )
    disable_dropout(trainer.model)  # which has its adapters by now, with a dropout of their own
    for callback in (PrinterCallback, ProgressCallback):  # they write to standard output
        trainer.remove_callback(callback)
    with precision_context(bfloat16_products=job.bfloat16_products):
        reference = _reference_logprobs(job, trainer, dtype)
        trainer.add_callback(TrainingCallback(trainer, job, sigterm, reference))
        checkpoint = _common_checkpoint(job)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if sigterm.received and trainer.state.global_step < len(steps):
        raise Terminated("ended by SIGTERM")
    _write_result(job, trainer, adapter, rollouts, steps)


def plan_training(
    rollouts: RolloutData, training: TrainingSpec, processes: int, seed: int
) -> StepPlan:
    """Return the steps of a training.

    Parameters
    ----------
    rollouts
        The rows to train on.
    training
        The field ``spec.training``.
    processes
        The number of processes on all nodes.
    seed
        The seed of the order.

    Returns
    -------
    StepPlan
        The steps in order.
    """
    return plan_steps(
        rollouts.groups,
        rollouts.prompts.lengths,
        rollouts.completions.lengths,
        BatchShape(training.batch_size, training.micro_batch_size, processes),
        epochs=training.epochs,
        seed=seed,
        max_steps=training.max_steps,
        imitated=FlaggedRows(rollouts.imitated),
        responses=rollouts.responses,
    )


def precision_context(*, bfloat16_products: bool) -> AbstractContextManager[Any]:
    """Return the context in which a training computes products of bfloat16.

    Only a CPU needs one, where the processor has no fast instructions for them.

    Parameters
    ----------
    bfloat16_products
        Whether float32 weights are rounded for products, see :class:`TrainJob`.

    Returns
    -------
    context manager
        The context of all forward and backward passes.
    """
    if not bfloat16_products:
        return nullcontext()
    from selfemo_jobs.acceleration.bf16_emulation import bfloat16_context  # for a CPU alone

    return bfloat16_context()


def _load_rollouts(job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> RolloutData:
    """Return the rows to train on, with what is imitated if imitation is on.

    The recognizer imitates the consensus of each group. The responder imitates its best responses,
    and, if the roles teach each other, the turns that were really said, given that consensus.
    """
    rollouts = read_rollouts(job.rows_folder)
    if job.training.imitation == 0.0:
        return rollouts
    prompts = load_prompt_set(job.prompts, job.prompt_templates)

    def encode_answer(labels: Sequence[str]) -> Sequence[int]:
        return prompts.encode_completion(tokenizer, prompts.recognizer_text(labels))

    rollouts = add_imitation_rows(rollouts, read_consensus(job.rows_folder), encode_answer)
    limits = job.max_prompt_tokens, job.max_response_tokens
    if local_rank() == 0:  # the processes of a node share the files
        turns = read_spoken_turns(job.rows_folder)
        said = turn_examples(turns, prompts, tokenizer, job.labels, *limits)
        write_responses(chain(said, read_best_responses(job.rows_folder)), job.rows_folder)
    dist.barrier()
    examples, responses = read_responses(job.rows_folder)
    return add_response_rows(rollouts, examples, responses) if len(responses) else rollouts


def _load_policy(job: TrainJob, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model to train. Weights that are not trained have no gradient."""
    model = load_model(job.policy, dtype)
    if job.training.train_layers > 0:
        train_last_layers(model, job.training.train_layers)
    return model


def _common_checkpoint(job: TrainJob) -> Path | None:
    """Return the newest checkpoint that is complete and whole on every node.

    The checkpoints of DeepSpeed and Transformers are unpickled. They are files that this training
    wrote to its own scratch folder. Transformers reads its parts with ``weights_only``. The other
    checkpoints stay until this one is loaded.
    """
    old_logprobs = job.folder / OLD_LOGPROBS
    own = set(complete_steps(job.checkpoints_folder)) if old_logprobs.is_file() else set()
    for step in sorted(set.intersection(*_of_all_processes(own)), reverse=True):
        checkpoint = checkpoint_folder(job.checkpoints_folder, step)
        # the processes of a node share the files
        whole = is_whole(checkpoint, local_rank(), job.resources.local_processes)
        if all(_of_all_processes(whole)):
            log.info("resumes from a checkpoint", extra={"fields": {"step": step}})
            return checkpoint
        if not whole:
            log.warning("%s is damaged and not used", checkpoint)
    if local_rank() == 0:
        old_logprobs.unlink(missing_ok=True)  # another node may lack the file
    dist.barrier()
    return None


def _of_all_processes(value: T) -> list[T]:
    """Return the value of each process."""
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _reference_logprobs(
    job: TrainJob, trainer: SelfGRPOTrainer, dtype: torch.dtype
) -> npt.NDArray[np.float32] | None:
    """Return the log-probabilities under the reference.

    None is returned if they are not needed, or if the reference is the policy. Each process loads
    the whole reference before the engine takes its memory, and frees it afterwards.
    """
    if job.reference is None or job.training.kl_beta == 0:
        return None
    with _without_zero3():
        device, loaded = trainer.accelerator.device, load_model(job.reference, dtype)
        reference = move_model(loaded, device, job.reference)
        add_fused_lm_head(reference, job.temperature, outputs=("log_probs", "entropy"))
        return trainer.compute_logprobs(reference)


@contextmanager
def _without_zero3() -> Iterator[None]:
    """Load models as a whole: under ZeRO-3 Transformers partitions every model that it loads."""
    config = hf_deepspeed._hf_deepspeed_config_weak_ref
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        hf_deepspeed._hf_deepspeed_config_weak_ref = config


def _write_result(
    job: TrainJob,
    trainer: SelfGRPOTrainer,
    adapter: LoraConfig | None,
    rollouts: RolloutData,
    steps: StepPlan,
) -> None:
    """Write the model, then the result."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        with _without_zero3():
            if adapter is not None:
                model, weights = merge_adapter(weights, adapter, job.policy)
            write_model(model, weights, job.policy, job.model_folder)
        metrics = _metrics(trainer, rollouts, steps)
        write_json(job.result_file, TrainResult(metrics=metrics, steps=_step_curve(trainer)))
    dist.barrier()


def _metrics(trainer: SelfGRPOTrainer, rollouts: RolloutData, steps: StepPlan) -> dict[str, float]:
    """Return the metrics of the manifest: means over the steps, and no times."""
    history = _history(trainer)

    def mean(name: str) -> float:
        return math.fsum(entry[name] for entry in history) / len(history)

    batches = (batch for step in steps for share in step.micro_batches for batch in share)
    trained = np.zeros(len(rollouts), np.bool_)
    for batch in batches:
        trained[[row for row in batch if row != PADDING]] = True
    trained_rows = float(np.count_nonzero(trained))
    trained[rollouts.responses] = False  # their samples are counted already
    trained &= ~rollouts.imitated  # they have no weight: nothing has sampled them
    weights = trainer.importance_weights[np.repeat(trained, rollouts.completions.lengths)]
    return {
        TrainMetric.STEPS: float(len(steps)),
        TrainMetric.ROWS: trained_rows,
        TrainMetric.TOKENS: float(sum(step.sampled_tokens for step in steps)),
        TrainMetric.LOSS: history[-1]["loss"],
        TrainMetric.LOSS_MEAN: mean("loss"),
        TrainMetric.GRAD_NORM: mean("grad_norm"),
        TrainMetric.ENTROPY: mean("entropy"),
        TrainMetric.CLIP_LOW: mean("clip_ratio/low_mean"),
        TrainMetric.CLIP_HIGH: mean("clip_ratio/high_mean"),
        TrainMetric.KL: mean("kl") if trainer.beta else 0.0,
        **({TrainMetric.IMITATION: mean("imitation")} if rollouts.imitated.any() else {}),
        TrainMetric.IMPORTANCE_MEAN: float(weights.mean(dtype=np.float64)) if len(weights) else 1.0,
    }


def _step_curve(trainer: SelfGRPOTrainer) -> dict[str, list[float]]:
    """Return the values of the optimizer steps that the manifest stores."""
    history = _history(trainer)
    logged = set.intersection(*(set(entry) for entry in history))
    columns = {str(n): [entry[k] for entry in history] for n, k in _CURVE.items() if k in logged}
    return thin_curve(columns)


def _history(trainer: SelfGRPOTrainer) -> list[dict[str, float]]:
    """Return the logged values of each step, those before a checkpoint included."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]
