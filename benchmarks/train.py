"""Times the train stage's update against plain TRL ``GRPOTrainer``'s, on the same batch.

Both have the same weights, the same recorded tensors and the same DeepSpeed settings, and do the
same arithmetic: forward, loss, backward, AdamW. Generation, rewards and the pass that recomputes
old log-probabilities are not timed. Both are timed in turn within one process, and their weights
must agree at the end. The model has the shape of SmolLM2-135M with four layers. Prompts have about
120 tokens. Half of the groups answer with labels (4 tokens), half with a sentence (20 tokens).

Three things make the difference. The prompt of a group is read once, not once for each member. Only
completion tokens are projected onto the vocabulary; on a CPU, TRL projects prompts too. A pass
contains prompts of similar length; TRL shuffles, and pads a whole step to its longest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# `make gpu-check` compares the same two trainers on a GPU
os.environ |= (
    {}
    if os.environ.get("SELFEMO_BENCHMARK_ON_GPU") == "1"
    else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.stages.train.batches import TrainingStep
from selfemo_jobs.stages.train.ragged_rows import RaggedArray
from selfemo_jobs.stages.train.rollout_data import RolloutData
from selfemo_jobs.stages.train.worker import join_process_group, skip_generation_imports
from selfemo_jobs.stages.train.worker_protocol import TrainJob

GROUPS, MEMBERS = 4, 8
STEPS = 1
GOAL = 1.0
#: Weights may differ only by rounding; one Adam step moves each by the learning rate. In bfloat16,
#: a weight of two hundredths is rounded to eight bits.
RATE, TOLERANCE, BFLOAT16_TOLERANCE = 1e-5, 2e-6, 1e-4


def recorded_groups(count: int = GROUPS, tokens: int = 900) -> RolloutData:
    """Return groups in the form in which the flywheel stores them."""
    chance = random.Random(0)
    prompts, completions, groups = [], [], []
    for group in range(count):
        prompt = [chance.randrange(10, tokens) for _ in range(chance.randrange(60, 180))]
        groups.append(list(range(group * MEMBERS, (group + 1) * MEMBERS)))
        for _ in range(MEMBERS):
            length = chance.randrange(2, 7) if group % 2 else chance.randrange(8, 33)
            prompts.append(prompt)
            completions.append([chance.randrange(10, tokens) for _ in range(length)])
    drawn = sum(map(len, completions))
    advantages = np.array([chance.gauss(0, 1) for _ in prompts], np.float32)
    logprobs = RaggedArray(np.zeros(drawn, np.float32), _offsets(completions))
    imitated = np.zeros(len(advantages), np.bool_)
    texts = _ragged(prompts), _ragged(completions)
    return RolloutData(*texts, logprobs, advantages, groups, imitated)


def _offsets(texts: list[list[int]]) -> Any:
    return np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64)


def _ragged(texts: list[list[int]]) -> RaggedArray:
    return RaggedArray(np.array([x for text in texts for x in text], np.int32), _offsets(texts))


def model() -> Any:
    """Return the model, the same each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def trainers(
    job: TrainJob, rows: RolloutData, steps: list[TrainingStep], make_model: Callable[[], Any]
) -> tuple[Any, Any]:
    """Return our trainer and TRL's, each with its DeepSpeed engine."""
    from accelerate.state import AcceleratorState
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import PrinterCallback, SchedulerType, TrainerCallback
    from trl import GRPOTrainer
    from trl.trainer.utils import pad

    from selfemo_jobs.models.fetch import load_tokenizer
    from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer
    from selfemo_jobs.stages.train.training_arguments import training_arguments

    class Plain(GRPOTrainer):  # type: ignore[misc]
        """TRL's trainer with recorded completions in place of generated ones."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset)

        def _generate_and_score_completions(self, inputs: list[dict[str, int]]) -> dict[str, Any]:
            chosen = [x["row"] for x in inputs]
            out: dict[str, Any] = {}
            for name, side, texts in (
                ("prompt", "left", rows.prompts),
                ("completion", "right", rows.completions),
            ):
                device = ours.accelerator.device
                ids = [torch.tensor(texts[r].astype(np.int64), device=device) for r in chosen]
                out[f"{name}_ids"] = pad(ids, padding_value=0, padding_side=side)
                mask = [torch.ones_like(x) for x in ids]
                out[f"{name}_mask"] = pad(mask, padding_side=side)
            width = out["completion_ids"].size(1)
            out["old_per_token_logps"] = ours._rows.values(ours._old, chosen, width)
            out["advantages"] = torch.tensor(rows.advantages[chosen], device=device)
            out["num_items_in_batch"] = out["completion_mask"].sum()
            return out

    class Halt(TrainerCallback):  # type: ignore[misc]
        """Stops `train` after it has created the engine."""

        def on_train_begin(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = control.should_epoch_stop = True
            raise _Ready

    common = {
        "processing_class": load_tokenizer(job.policy),
        "callbacks": [Halt()],
        "train_dataset": Dataset.from_dict({"row": list(range(len(rows) + 1))}),
    }
    arguments = training_arguments(job, steps)
    ours = SelfGRPOTrainer(
        model=make_model(), args=arguments, rollouts=rows, steps=steps, kl_beta=0.0, **common
    )
    _make_engine(ours, PrinterCallback)
    AcceleratorState._reset_state()  # Accelerate expects one trainer in a process
    arguments = training_arguments(job, steps)
    # by default TRL's falls to 0 with the last step, and the comparison repeats the steps
    arguments.lr_scheduler_type = SchedulerType.CONSTANT
    plain = Plain(model=make_model(), args=arguments, reward_funcs=lambda **_: [0.0], **common)
    _make_engine(plain, PrinterCallback)
    return ours, plain


class _Ready(Exception):
    """The engine exists."""


def _make_engine(trainer: Any, printer: Any) -> None:
    trainer.remove_callback(printer)
    try:
        trainer.train()
    except _Ready:
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps


def update(trainer: Any, batches: list[list[dict[str, int]]]) -> float:
    """Run the steps and return the seconds."""
    passes = trainer.args.gradient_accumulation_steps
    start = time.perf_counter()
    for number, batch in enumerate(batches):
        trainer.state.global_step = number
        for index in range(passes):
            trainer.accelerator.gradient_state._set_sync_gradients(index == passes - 1)
            trainer.training_step(trainer.model_wrapped, batch, None)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--zero-stage", type=int, default=2)
    arguments = parser.parse_args()
    skip_generation_imports()
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder) / "tiny")  # for its tokenizer
        training = TrainingSpec.model_validate(
            {
                "batchSize": GROUPS * MEMBERS // STEPS,
                "microBatchSize": MEMBERS,
                "precision": "Float32",
                "gradientCheckpointing": False,
                "optimizer": {"learningRate": RATE, "warmupRatio": 0.0},
                "deepspeed": {"zeroStage": arguments.zero_stage},
            }
        )
        job = TrainJob(
            training=training,
            resources=ResourcesSpec(gpus_per_node=0),
            seed=0,
            prompts="compact-v1",
            temperature=1.0,
            folder=Path(folder),
            policy=Path(folder) / "tiny",
        )
        join_process_group(job)
        print(json.dumps(compare(job, arguments.repeats)))


def compare(
    job: TrainJob,
    repeats: int,
    rows: RolloutData | None = None,
    make_model: Callable[[], Any] = model,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Return the JSON line to print."""
    from selfemo_jobs.stages.train.training_loop import plan_training

    rows = rows or recorded_groups()
    steps = plan_training(rows, job.training, job.resources.processes, seed=0)
    ours, plain = trainers(job, rows, steps, make_model)
    old = ours.compute_logprobs(ours.model_wrapped)
    ours._rollouts.logprobs.values[:] = old  # TRL makes no correction without vLLM
    ours.set_logprobs(old, None, job.training.importance_cap)
    batches = [[{"row": r} for rows_ in s.micro_batches[0] for r in rows_] for s in steps]
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for repeat in range(repeats + 1):
        for name, trainer in (("ours", ours), ("plain", plain)):
            elapsed = update(trainer, batches)
            print(name, round(elapsed, 2), file=sys.stderr, flush=True)
            if repeat:  # the first repeat is a warm-up
                seconds[name].append(elapsed)
    pairs = zip(ours.model.parameters(), plain.model.parameters(), strict=True)
    difference = statistics.fmean((a - b).abs().mean().item() for a, b in pairs)
    tokens = int(rows.completions.lengths.sum())
    value = statistics.median(p / o for o, p in zip(seconds["ours"], seconds["plain"], strict=True))
    return {
        "name": "train: update tokens/s over plain TRL GRPOTrainer, same batch and DeepSpeed",
        "value": round(value, 2),
        "unit": "x",
        "goal": GOAL,
        "holds": value >= GOAL and difference < tolerance,
        "tokensPerSecond": round(tokens / statistics.median(seconds["ours"]), 1),
        "plainTokensPerSecond": round(tokens / statistics.median(seconds["plain"]), 1),
        "weightsApart": difference,
        "zeroStage": job.training.deepspeed.zero_stage,
        "repeats": repeats,
    }


if __name__ == "__main__":
    main()
