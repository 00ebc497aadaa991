"""One process of training, started by torchrun: ``python -m selfemo_jobs.train.worker TASK``.

DeepSpeed runs for real, on GPUs and on the CPU alike: the process checks that its model is a
DeepSpeedEngine at the ZeRO stage asked for, says so in the log, and fails if it is not.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import deepspeed
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig

from selfemo_api.contract import ExitCode
from selfemo_api.training import Precision
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.lifetime import die_with_parent
from selfemo_jobs.logs import configure_logging
from selfemo_jobs.models.fetch import load_model, load_tokenizer
from selfemo_jobs.train.batches import Step, groups_of, steps_of
from selfemo_jobs.train.deepspeed_config import deepspeed_config
from selfemo_jobs.train.task import ERROR, FIGURES, TrainFigures, TrainTask, WorkerError
from selfemo_jobs.train.trainer import SelfGRPOTrainer

log = logging.getLogger(__name__)

#: In a checkpoint's folder once every process has written its share.
WHOLE = "whole"
#: TRL's names of the figures that the manifest keeps, by ours.
KEPT_FIGURES = {
    "loss": "loss",
    "gradNorm": "grad_norm",
    "entropy": "entropy",
    "kl": "kl",
    "clipLow": "clip_ratio/low_mean",
    "clipHigh": "clip_ratio/high_mean",
    "importanceMean": "importance/mean",
}


def main(path: str) -> int:
    """Run this process's share of a task and return the exit code."""
    die_with_parent(os.getppid())
    configure_logging("Train")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    task = TrainTask.model_validate_json(Path(path).read_bytes())
    try:
        _train(task)
    except StageError as error:
        return _fail(task, error.kind, str(error), error.exit_code)
    except torch.OutOfMemoryError as error:
        words = (
            f"out of GPU memory ({error}): lower `training.microBatchSize`, or raise the ZeRO stage"
        )
        return _fail(task, BadInput.kind, words, ExitCode.BAD_INPUT)
    return ExitCode.OK


def _train(task: TrainTask) -> None:
    on_cpu = task.training.gpus_per_node == 0
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl")
    rank, processes = dist.get_rank(), dist.get_world_size()
    steps = _steps(task, processes)
    arguments = _arguments(task, len(steps), on_cpu)
    # After the arguments: with ZeRO-3 they make the weights be split while they are loaded.
    bf16 = task.training.precision is Precision.BFLOAT16
    model = load_model(Path(task.policy), torch.bfloat16 if bf16 else torch.float32)
    accumulation = arguments.gradient_accumulation_steps
    slots = len(steps) * accumulation * processes
    stop = _StopOnSignal()
    trainer = SelfGRPOTrainer(
        steps=steps,
        rank=rank,
        importance_cap=task.training.importance_cap,
        kl_beta=task.training.kl_beta,
        model=model,
        args=arguments,
        processing_class=load_tokenizer(Path(task.policy)),
        train_dataset=Dataset.from_dict(
            {"step": [slot // (accumulation * processes) for slot in range(slots)]}
        ),
        peft_config=_lora(task),
        callbacks=[stop],
    )
    trainer.add_callback(_Oversight(trainer, task))
    trainer.train(resume_from_checkpoint=_last_checkpoint(task.folder))
    if stop.stopped:
        raise SystemExit(ExitCode.TERMINATED)
    _save(trainer, task, steps)


def _steps(task: TrainTask, processes: int) -> list[Step]:
    training = task.training
    tables = [pq.read_table(path) for path in task.rows]
    groups = [g for t in tables for g in groups_of(t, merge=training.kl_beta == 0.0)]
    return steps_of(
        sorted(groups, key=lambda g: g.group_id),
        batch_size=training.batch_size,
        processes=processes,
        accumulation=training.batch_size // (training.micro_batch_size * processes),
        epochs=training.epochs,
        max_steps=training.max_steps,
        seed=task.seed,
    )


def _arguments(task: TrainTask, steps: int, on_cpu: bool) -> GRPOConfig:
    training = task.training
    return GRPOConfig(
        output_dir=str(task.folder / "checkpoints"),
        deepspeed=deepspeed_config(training, on_cpu=on_cpu),
        bf16=training.precision is Precision.BFLOAT16,
        learning_rate=training.learning_rate,
        weight_decay=0.0,  # one short pass near the start: nothing to regularise
        lr_scheduler_type="constant_with_warmup",  # generations follow each other: no annealing
        warmup_steps=math.ceil(training.warmup_ratio * steps),
        max_grad_norm=training.max_grad_norm,
        num_train_epochs=1,  # all epochs are laid out in the steps
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size
        // (training.micro_batch_size * training.processes),
        gradient_checkpointing=training.gradient_checkpointing,
        num_generations=task.group_size,
        temperature=task.temperature,
        loss_type="dapo",  # token-level normalisation over the whole step
        epsilon=training.clip.low,
        epsilon_high=training.clip.high,
        beta=0.0,  # the trainer sets it: its reference comes recorded
        disable_dropout=True,
        seed=task.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=training.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        use_vllm=False,
    )


def _lora(task: TrainTask) -> Any:
    lora = task.training.lora
    if lora is None:
        return None
    from peft import LoraConfig

    everything = lora.target_modules == ["all-linear"]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if everything else lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint; leave no broken one for transformers to find.

    Checkpoints are this stage's own files in its work folder; nothing else is ever unpickled.
    """
    found = sorted(
        (folder / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1])
    )
    whole = [path for path in found if (path / WHOLE).is_file()]
    dist.barrier()  # all processes have looked before one of them clears up
    if dist.get_rank() == 0:
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    dist.barrier()
    return str(whole[-1]) if whole else None


class _StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """SIGTERM: save a checkpoint after the step under way, all processes together."""

    def __init__(self) -> None:
        self._asked = False
        self.stopped = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signum: int, _frame: FrameType | None) -> None:
        self._asked = True

    def on_step_end(
        self,
        args: TrainingArguments,
        _state: TrainerState,
        control: TrainerControl,
        **_more: Any,
    ) -> None:
        asked = torch.tensor(float(self._asked), device=args.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        if asked.item():
            self.stopped = control.should_save = control.should_training_stop = True


class _Oversight(TrainerCallback):  # type: ignore[misc]
    """Proves the engine, takes the log-probabilities before the first step, watches the loss."""

    def __init__(self, trainer: SelfGRPOTrainer, task: TrainTask) -> None:
        self._trainer = trainer
        self._task = task

    def on_train_begin(
        self,
        _args: TrainingArguments,
        _state: TrainerState,
        _control: TrainerControl,
        **_more: Any,
    ) -> None:
        trainer, wanted = self._trainer, self._task.training.deepspeed.zero_stage
        engine = trainer.model_wrapped
        if not isinstance(engine, deepspeed.DeepSpeedEngine):
            raise TypeError(f"training runs on {type(engine).__name__}, not on DeepSpeed")
        stage = engine.zero_optimization_stage()
        if stage != wanted:
            raise ValueError(f"DeepSpeed runs at ZeRO stage {stage}, not {wanted}")
        fields = {
            "engine": type(engine).__name__,
            "zeroStage": stage,
            "worldSize": dist.get_world_size(),
            "backend": dist.get_backend(),
        }
        log.info("engine", extra={"fields": fields})
        trainer.old_logps = self._recorded("old", engine)
        if trainer.beta:
            trainer.reference_logps = self._recorded("reference", None)

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_more: Any,
    ) -> None:
        logs = logs or {}
        loss = logs.get("loss")
        if loss is None:
            return
        if not (math.isfinite(loss) and math.isfinite(logs.get("grad_norm", 0.0))):
            raise BadInput(
                f"the loss or its gradient is not a number at step {state.global_step}: lower "
                f"`training.learningRate` ({self._task.training.learning_rate:g})"
            )
        if state.is_world_process_zero:
            fields = {
                "done": state.global_step,
                "total": state.max_steps,
                "loss": loss,
                "gradNorm": logs.get("grad_norm"),
                "importanceMean": logs.get("importance/mean"),
            }
            log.info("progress", extra={"fields": fields})

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        **_more: Any,
    ) -> None:
        dist.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / WHOLE).touch()

    def _recorded(self, name: str, engine: torch.nn.Module | None) -> list[torch.Tensor]:
        """Return log-probabilities from before the first step; a resumed run reads them again."""
        path = (
            self._task.folder / f"{name}-{dist.get_rank()}-of-{dist.get_world_size()}.safetensors"
        )
        ready = torch.tensor(float(path.is_file()))
        ready = ready.to(self._trainer.accelerator.device)
        dist.all_reduce(ready, op=dist.ReduceOp.MIN)
        if ready.item():
            found = load_file(path)
            return [found[f"{i}"] for i in range(len(found))]
        model = engine if engine is not None else self._anchor()
        logps = self._trainer.logps(model)
        new = path.with_suffix(".new")
        save_file({f"{i}": value.contiguous() for i, value in enumerate(logps)}, new)
        new.replace(path)
        dist.barrier()
        return logps

    def _anchor(self) -> PreTrainedModel:
        from trl.trainer.grpo_trainer import add_fused_lm_head

        task = self._task
        model = load_model(Path(task.anchor or task.policy), self._trainer.model.dtype)
        add_fused_lm_head(model, temperature=task.temperature, cast_lm_head_to_fp32=False)
        return model.to(self._trainer.accelerator.device)


def _save(trainer: SelfGRPOTrainer, task: TrainTask, steps: list[Step]) -> None:
    """Write the trained weights (or the adapter) and the figures; every process takes part."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if dist.get_rank() == 0:
        new = task.model.with_name("trained.new")
        shutil.rmtree(new, ignore_errors=True)
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        model.save_pretrained(new, state_dict=state)
        shutil.rmtree(task.model, ignore_errors=True)
        new.replace(task.model)
        figures = TrainFigures(
            steps=trainer.state.global_step,
            tokens=sum(step.tokens for step in steps),
            metrics=_figures(trainer.state.log_history),
        )
        (task.folder / FIGURES).write_text(figures.model_dump_json(by_alias=True))
    dist.barrier()
    dist.destroy_process_group()


def _figures(history: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over steps of each kept figure, and the last loss."""
    rows = [row for row in history if "loss" in row]
    found = {}
    for name, theirs in KEPT_FIGURES.items():
        values = [row[theirs] for row in rows if row.get(theirs) is not None]
        if values:
            found[name] = round(sum(values) / len(values), 6)
    if rows:
        found["lossLast"] = round(rows[-1]["loss"], 6)
    return found


def _fail(task: TrainTask, kind: str, message: str, code: int) -> int:
    log.error(message)
    error = WorkerError(kind=kind, message=message)
    (task.folder / ERROR).write_text(error.model_dump_json())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
