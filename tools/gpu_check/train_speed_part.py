"""Tokens a second of the update beside bare TRL, and the memory of training beside the estimate."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

from tools.gpu_check.lines import Settings
from tools.gpu_check.models import TOKENS, size_of, speed_model

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import EvolutionSpec, ResourcesSpec, TrainingSpec
from selfemo_jobs.stages.check.memory import ModelSize, training_needs
from selfemo_jobs.stages.train.worker import join_process_group, skip_generation_imports
from selfemo_jobs.stages.train.worker_protocol import TrainJob, write_json

#: The share of the estimate that the states of training may take.
MEMORY_GOAL = 1.0
_ONE_PROCESS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


def _prepare(settings: Settings) -> None:
    """Set the environment of a single training process. It comes before torch is imported."""
    os.environ |= {**_ONE_PROCESS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    if settings.on_gpu:
        os.environ["SELFEMO_BENCHMARK_ON_GPU"] = "1"
    else:
        os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    skip_generation_imports()


def _job(settings: Settings, name: str, groups: int, members: int, **training: Any) -> TrainJob:
    """Return a training of one step over some groups, in one process."""
    folder = settings.folder / "training" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = TrainingSpec.model_validate(
        {
            "batchSize": groups * members,
            "microBatchSize": groups * members // (4 if settings.on_gpu else 1),
            "precision": "BFloat16" if settings.on_gpu else "Float32",
            "gradientCheckpointing": False,
            "optimizer": {"learningRate": 1e-5, "warmupRatio": 0.0},
            "deepspeed": {"zeroStage": 2},
            **training,
        }
    )
    return TrainJob(
        training=spec,
        resources=ResourcesSpec(gpus_per_node=1 if settings.on_gpu else 0),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=folder,
        policy=speed_model(settings),
    )


def run(settings: Settings) -> None:
    """Compare the update with TRL's on the same batch."""
    _prepare(settings)
    import torch
    from benchmarks import train

    from selfemo_jobs.models.fetch import load_model

    groups = 16 if settings.on_gpu else train.GROUPS
    job = _job(settings, "speed", groups, train.MEMBERS)
    join_process_group(job)
    rows = train.recorded_groups(groups, TOKENS)
    kind = torch.bfloat16 if settings.on_gpu else torch.float32
    tolerance = train.BFLOAT16_TOLERANCE if settings.on_gpu else train.TOLERANCE
    line = train.compare(job, 3, rows, lambda: load_model(job.policy, kind), tolerance)
    size, tokens = size_of(job.policy), int(rows.completions.lengths.sum())
    prompts = sum(int(rows.prompts.lengths[group[0]]) for group in rows.groups)
    context = prompts / groups / 2
    # a group's prompt is read once; the backward pass takes twice the forward pass
    flops = 3 * size.forward_flops(prompts + tokens, context, tokens)
    rate = line.pop("tokensPerSecond")
    settings.write(
        "speed: training, over bare TRL on the same batch",
        **{name: value for name, value in line.items() if name not in ("name", "holds")},
        holds=line["weightsApart"] < tolerance and settings.reaches(line["value"], train.GOAL),
        tokensPerSecond=rate,
        shareOfPeak=round(flops / (tokens / rate) / settings.peak["flops"], 4),
        shape=settings.shape,
    )


def run_memory(settings: Settings) -> None:
    """Compare the memory that a training's states take with the estimate of `selfemo check`."""
    _prepare(settings)
    import torch
    from tools.gpu_check.training_part import recorded_table

    from selfemo_jobs.runtime.sigterm import SigtermFlag
    from selfemo_jobs.stages.train import training_loop
    from selfemo_jobs.stages.train.rollout_files import write_rollouts
    from selfemo_jobs.stages.train.training_callback import TrainingCallback

    table, groups, members = recorded_table(settings)
    job = _job(settings, "memory", groups, members)
    write_rollouts([table], job.rows_folder, None)
    write_json(job.folder / "job.json", job)
    join_process_group(job)
    measured: list[int] = []

    class Measuring(TrainingCallback):
        """Measures the memory after each step, when no pass is under way."""

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            measured.append(_states(settings))
            super().on_step_end(*arguments, **named)

    training_loop.TrainingCallback = Measuring  # type: ignore[misc]
    before = _states(settings)
    training_loop.run_training(job, SigtermFlag())
    states = max(measured) - before
    estimate = estimated_bytes(job)
    settings.write(
        "memory: states of training, share of the estimate",
        value=round(states / estimate, 3),
        goal=MEMORY_GOAL,
        holds=states <= MEMORY_GOAL * estimate,
        measuredMiB=round(states / 2**20, 1),
        estimatedMiB=round(estimate / 2**20, 1),
        # with the activations, which follow from `microBatchSize` and are not estimated
        peakMiB=round(torch.cuda.max_memory_allocated() / 2**20, 1) if settings.on_gpu else None,
        shape=settings.shape,
    )


def estimated_bytes(job: TrainJob) -> int:
    """Return the estimate of `selfemo check` for the states of a training."""
    size = size_of(job.policy)
    source = {"uri": "file:///dialogues.jsonl", "format": "JSONL"}
    spec = EvolutionSpec.model_validate(
        {
            "model": {"uri": job.policy.as_uri()},
            "dataset": {
                "labels": list(MELD),
                "sources": [
                    {"name": "train", "use": "SelfPlay", **source},
                    {"name": "dev", "use": "Evaluation", **source},
                ],
            },
            "storage": {"uri": Path("/runs").as_uri()},
        }
    ).model_copy(update={"training": job.training, "resources": job.resources})
    needs = training_needs(
        spec, ModelSize(size.parameters, size.parameters, size.head, size.cache_per_token)
    )
    on_gpu = job.resources.gpus_per_node > 0
    return needs.gpu if on_gpu else needs.main


def _states(settings: Settings) -> int:
    """Return the bytes of all tensors that are there."""
    import torch

    gc.collect()
    if settings.on_gpu:
        torch.cuda.synchronize()
        return int(torch.cuda.memory_allocated())
    storages = {}
    for item in gc.get_objects():
        if isinstance(item, torch.Tensor) and item.device.type == "cpu":
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
