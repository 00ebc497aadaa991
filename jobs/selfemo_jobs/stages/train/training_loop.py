"""The training itself, within a process group."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig
from safetensors.numpy import load_file, save
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from transformers.integrations import deepspeed as hf_deepspeed
from trl import GRPOConfig
from trl.trainer.utils import add_fused_lm_head

from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField, TrainMetric
from selfemo_api.spec import Schedule, TrainingSpec
from selfemo_jobs.acceleration.bf16_emulation import bfloat16_products
from selfemo_jobs.errors import BadInput, Terminated
from selfemo_jobs.models.fetch import load_model, load_tokenizer
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.prompts.sets import load_prompt_set
from selfemo_jobs.stages.train.batches import PADDING, Shape, Step, plan_steps
from selfemo_jobs.stages.train.checkpoints import checkpoint, delete_others, mark_whole, whole_steps
from selfemo_jobs.stages.train.deepspeed_config import deepspeed_config
from selfemo_jobs.stages.train.model_export import merge_adapter, write_model
from selfemo_jobs.stages.train.rollout_data import Recorded, recorded, with_answers
from selfemo_jobs.stages.train.sigterm import SigtermFlag
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer
from selfemo_jobs.stages.train.worker_protocol import (
    TrainJob,
    TrainResult,
    local_rank,
    write_json,
)
from selfemo_jobs.store.local_files import write_file

log = logging.getLogger(__name__)

#: The old log-probabilities, kept beside the checkpoints: a resumed run has other weights.
_OLD = "old-logprobs.safetensors"
#: As Transformers names them.
SCHEDULES = {Schedule.CONSTANT: "constant_with_warmup", Schedule.LINEAR: "linear"}


def run_training(job: TrainJob, sigterm: SigtermFlag) -> None:
    """Train, and write the model and the result.

    Raises
    ------
    BadInput
        If the loss is not finite.
    Terminated
        If SIGTERM came; a checkpoint is saved.
    """
    training = job.training
    tokenizer = load_tokenizer(job.policy)
    rows = _rows(job, tokenizer)
    steps = planned(rows, training, job.seed)
    arguments = training_arguments(job, steps)
    dtype = torch.bfloat16 if training.bfloat16_weights else torch.float32
    model = _policy(job, dtype)
    adapter = lora_config(training)
    trainer = SelfGRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=Dataset.from_dict({"row": list(range(len(rows) + 1))}),
        peft_config=adapter,
        rows=rows,
        steps=steps,
        kl_beta=training.kl_beta,
        imitation=training.imitation,
        bfloat16_products=training.bfloat16_products,
        # ZeRO-3 gathers weights in the order in which all layers ask for them
        remember_below=training.train_layers if training.deepspeed.zero_stage < 3 else None,
    )
    for callback in (PrinterCallback, ProgressCallback):  # they write to standard output
        trainer.remove_callback(callback)
    with bfloat16_products(training.bfloat16_products):
        reference = _reference_logprobs(job, trainer, dtype)
        trainer.add_callback(_Watch(trainer, job, sigterm, reference))
        start = _agreed_start(job)
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    if sigterm.received and trainer.state.global_step < len(steps):
        raise Terminated("ended by SIGTERM")
    _finish(job, trainer, adapter, rows, steps)


def _rows(job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> Recorded:
    """Return the recorded rows, with the answers to imitate where the spec asks for it."""
    table = pq.read_table(job.rows)
    rows = recorded(table)
    if job.training.imitation == 0.0:
        return rows
    prompts = load_prompt_set(job.prompts)

    def answer(labels: Sequence[str]) -> Sequence[int]:
        return prompts.encode_completion(tokenizer, prompts.answer_text(labels))

    return with_answers(rows, table, answer)


def planned(rows: Recorded, training: TrainingSpec, seed: int) -> list[Step]:
    """Return the steps of a training."""
    return plan_steps(
        rows.groups,
        rows.prompts.lengths.tolist(),
        rows.completions.lengths.tolist(),
        Shape(training.batch_size, training.micro_batch_size, training.processes),
        epochs=training.epochs,
        seed=seed,
        max_steps=training.max_steps,
        imitated=frozenset(np.flatnonzero(rows.imitated).tolist()),
    )


def _policy(job: TrainJob, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model to train; what is not to be trained asks for no gradient."""
    model = load_model(job.policy, dtype)
    if job.training.train_layers is not None:
        train_last_layers(model, job.training.train_layers)
    return model


def lora_config(training: TrainingSpec) -> LoraConfig | None:
    """Return PEFT's configuration, or None for full weights."""
    lora = training.lora
    if lora is None:
        return None
    modules = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # a word of PEFT's, not the name of a module
        target_modules="all-linear" if modules == ["all-linear"] else modules,
        task_type="CAUSAL_LM",
    )


def training_arguments(job: TrainJob, steps: list[Step]) -> GRPOConfig:
    """Return TRL's arguments for a training."""
    training = job.training
    config = deepspeed_config(training)
    return GRPOConfig(
        output_dir=str(job.checkpoints),
        deepspeed=config,
        accelerator_config={"use_configured_state": True},  # see the worker
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=config["gradient_accumulation_steps"],
        num_generations=training.batch_size,  # only checked: must divide the batch
        max_steps=len(steps),
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.schedule],
        warmup_steps=math.ceil(training.warmup_ratio * len(steps)),
        max_grad_norm=training.max_grad_norm,
        loss_type="dapo",
        epsilon=training.clip.low,
        epsilon_high=training.clip.high,
        beta=0.0,  # see SelfGRPOTrainer
        use_bias_correction_kl=True,  # times the ratio: its gradient is the reverse KL's own
        temperature=job.temperature,
        bf16=training.bfloat16_weights,
        gradient_checkpointing=training.gradient_checkpointing,
        seed=job.seed % 2**32,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        save_steps=training.checkpoint_steps,
        save_total_limit=2,  # one may be half written
        save_on_each_node=training.nodes > 1,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Prepares the trainer once its engine is there, and watches over its steps."""

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

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """Check the engine; have the old log-probabilities, from before the first step."""
        trainer, training = self._trainer, self._job.training
        trainer.check_engine(training.deepspeed.zero_stage)
        path = self._job.folder / _OLD
        if path.is_file():
            old = load_file(path)["old"]
        else:
            old = trainer.measure_logprobs(trainer.model_wrapped)
            if local_rank() == 0:
                write_file(path, save({"old": old}))
            dist.barrier()
        reference = self._reference
        if reference is None and training.kl_beta > 0:
            reference = old  # the reference is the policy as it starts
        trainer.use_logprobs(old, reference, training.importance_cap)

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_kwargs: Any
    ) -> None:
        """Say how far it is; stop where the loss is not finite."""
        if "loss" not in logs:
            return  # the summary at the end
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise BadInput(
                    f"training diverged: {name} is {logs[name]} at step {state.global_step}; lower "
                    f"`training.learningRate` ({self._job.training.learning_rate})"
                )
        if state.is_world_process_zero:
            figures = {
                ProgressField.LOSS: round(logs["loss"], 6),
                ProgressField.GRAD_NORM: round(logs["grad_norm"], 6),
                ProgressField.LEARNING_RATE: logs["learning_rate"],
            }
            fields = {
                ProgressField.DONE: state.global_step,
                ProgressField.TOTAL: state.max_steps,
                **figures,
            }
            log.info(PROGRESS_MESSAGE, extra={"fields": fields})

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Save and stop where SIGTERM came to any process: all must do it at the same step."""
        asked = torch.tensor(float(self._sigterm.received), device=self._trainer.accelerator.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        if asked.item() and state.global_step < state.max_steps:
            self._sigterm.received = True
            control.should_save = control.should_training_stop = True
        elif state.global_step >= state.max_steps:
            control.should_save = False  # the finished model follows at once

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Mark the checkpoint as whole when every process has written its files."""
        dist.barrier()
        if local_rank() == 0:
            mark_whole(checkpoint(self._job.checkpoints, state.global_step))
        dist.barrier()


def _agreed_start(job: TrainJob) -> Path | None:
    """Return the newest checkpoint that is whole on every node, and delete all others.

    DeepSpeed's and Transformers' checkpoints are unpickled. They are this training's own files, in
    its scratch folder; the parts that Transformers reads, it reads with ``weights_only``.
    """
    found = set(whole_steps(job.checkpoints)) if (job.folder / _OLD).is_file() else set()
    everyones: list[set[int]] = [set()] * dist.get_world_size()
    dist.all_gather_object(everyones, found)
    shared = set.intersection(*everyones)
    start = max(shared, default=None)
    if local_rank() == 0:
        delete_others(job.checkpoints, [] if start is None else [start])
        if start is None:
            (job.folder / _OLD).unlink(missing_ok=True)  # another node may lack it
    dist.barrier()
    if start is None:
        return None
    log.info("goes on from a checkpoint", extra={"fields": {"step": start}})
    return checkpoint(job.checkpoints, start)


def _reference_logprobs(
    job: TrainJob, trainer: SelfGRPOTrainer, dtype: torch.dtype
) -> npt.NDArray[np.float32] | None:
    """Return the reference's log-probabilities; None if the policy's serve or none are needed.

    The reference is loaded whole on each process, before the engine takes its memory, and let go.
    """
    if job.reference is None or job.training.kl_beta == 0:
        return None
    with _without_zero3():
        reference = load_model(job.reference, dtype).to(trainer.accelerator.device)
        add_fused_lm_head(reference, job.temperature, outputs=("log_probs", "entropy"))
        return trainer.measure_logprobs(reference)


@contextmanager
def _without_zero3() -> Iterator[None]:
    """Load and run models whole: under ZeRO-3 Transformers splits every model that is loaded."""
    kept = hf_deepspeed._hf_deepspeed_config_weak_ref
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        hf_deepspeed._hf_deepspeed_config_weak_ref = kept


def _finish(
    job: TrainJob,
    trainer: SelfGRPOTrainer,
    adapter: LoraConfig | None,
    rows: Recorded,
    steps: list[Step],
) -> None:
    """Write the model, then the result."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        with _without_zero3():
            if adapter is not None:
                model, weights = merge_adapter(weights, adapter, job.policy)
            write_model(model, weights, job.policy, job.model)
        write_json(job.result, TrainResult(metrics=_metrics(trainer, rows, steps)))
    dist.barrier()


def _metrics(trainer: SelfGRPOTrainer, rows: Recorded, steps: list[Step]) -> dict[str, float]:
    """Return the figures of the manifest: means over the steps, and no times."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]

    def mean(name: str) -> float:
        return math.fsum(entry[name] for entry in history) / len(history)

    trained = sorted({r for s in steps for p in s.passes for x in p for r in x if r != PADDING})
    offsets = rows.completions.offsets
    places = np.concatenate([np.arange(offsets[r], offsets[r + 1]) for r in trained])
    return {
        TrainMetric.STEPS: float(len(steps)),
        TrainMetric.ROWS: float(len(trained)),
        TrainMetric.TOKENS: float(sum(step.tokens for step in steps)),
        TrainMetric.LOSS: history[-1]["loss"],
        TrainMetric.LOSS_MEAN: mean("loss"),
        TrainMetric.GRAD_NORM: mean("grad_norm"),
        TrainMetric.ENTROPY: mean("entropy"),
        TrainMetric.CLIP_LOW: mean("clip_ratio/low_mean"),
        TrainMetric.CLIP_HIGH: mean("clip_ratio/high_mean"),
        TrainMetric.KL: mean("kl") if trainer.beta else 0.0,
        **({TrainMetric.IMITATION: mean("imitation")} if rows.imitated.any() else {}),
        TrainMetric.IMPORTANCE_MEAN: float(trainer.weights[places].mean(dtype=np.float64)),
    }
