"""Whether SELF-GRPO in bfloat16 at each ZeRO stage learns what float32 on the processor learns."""

from __future__ import annotations

import random
import shutil
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tools.gpu_check.lines import Settings
from tools.gpu_check.models import TOKENS, small_model

from selfemo_api.metrics import ProgressField, TrainMetric
from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.errors import StageError
from selfemo_jobs.models.fetch import load_model
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.train.launch import launch
from selfemo_jobs.stages.train.rollout_data import COLUMNS
from selfemo_jobs.stages.train.rollout_files import write_rollouts
from selfemo_jobs.stages.train.worker_protocol import TrainJob, TrainResult, write_json

GROUPS, SIZE, STEPS = 12, 4, 3
STAGES = (0, 1, 2, 3)
#: The share of what training changes by which a training may differ, in the log-probabilities of
#: its completions. AdamW moves each weight by the sign of its gradient, and bfloat16 changes that
#: of small ones. A wrong sign, mask or scale gives 1 or more.
GOAL = 0.35
#: The same of the gradient's norm and of the imitated answers' cross-entropy at each step.
CURVE_GOAL = 0.1

Row = dict[str, Any]


def run(settings: Settings) -> None:
    """Train at each ZeRO stage, and compare with one process on the processor in float32."""
    policy = small_model(settings)
    rows = recorded_rows(policy)
    first = _probabilities(policy, rows)
    reference = _train(settings, policy, rows, "reference", on_gpu=False, stage=0, bfloat16=False)
    right = _probabilities(reference.model_folder, rows)
    change = _distance(right, first)
    processes = max(1, torch.cuda.device_count()) if settings.on_gpu else 1
    for stage in STAGES:
        name = f"training: SELF-GRPO in bfloat16 at ZeRO {stage}"
        try:
            job = _train(
                settings,
                policy,
                rows,
                f"zero-{stage}",
                on_gpu=settings.on_gpu,
                stage=stage,
                bfloat16=True,
                processes=min(processes, 2),
            )
        except StageError as error:
            settings.write(name, holds=False, error=str(error))
            continue
        value = _distance(_probabilities(job.model_folder, rows), right) / change
        curve = _curve_distance(_result(job), _result(reference))
        settings.write(
            name,
            value=round(value, 4),
            unit="difference from float32 on the processor, as a share of what training changes",
            goal=GOAL,
            holds=value <= GOAL and curve <= CURVE_GOAL,
            steps=STEPS,
            processes=job.resources.processes,
            curvesApart=round(curve, 4),
            curvesGoal=CURVE_GOAL,
            changeNats=round(change, 4),
        )


def recorded_rows(policy: Path) -> list[Row]:
    """Return groups of both roles with random tokens, and the policy's own log-probabilities."""
    chance = random.Random(0)
    rows: list[Row] = []
    for group in range(GROUPS):
        prompt = [chance.randrange(3, TOKENS) for _ in range(chance.randrange(20, 120))]
        for member in range(SIZE):
            length = chance.randrange(1, 6) if group % 2 else chance.randrange(6, 25)
            rows.append(
                {
                    "group_id": f"g{group:04d}",
                    "role": "Recognizer" if group % 2 else "Responder",
                    "member": member,
                    "prompt_ids": prompt,
                    "completion_ids": [chance.randrange(3, TOKENS) for _ in range(length)],
                    "consensus": ["joy"],
                    "advantage": chance.gauss(0.0, 1.0),
                }
            )
    for row, logprobs in zip(rows, _probabilities(policy, rows), strict=True):
        row["logprobs"] = logprobs
    return rows


def recorded_table(settings: Settings) -> tuple[pa.Table, int, int]:
    """Return the groups as a table, their number, and their size."""
    return _table(recorded_rows(small_model(settings))), GROUPS, SIZE


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([SCORED.field(name) for name in COLUMNS]))


def _train(
    settings: Settings,
    policy: Path,
    rows: list[Row],
    name: str,
    *,
    on_gpu: bool,
    stage: int,
    bfloat16: bool,
    processes: int = 1,
) -> TrainJob:
    """Run a training as the stage does; return its job. Raises StageError."""
    folder = settings.folder / "training" / name
    job = _job(folder, policy, on_gpu=on_gpu, stage=stage, bfloat16=bfloat16, processes=processes)
    launch(job, _write(job, rows))
    return job


def write_job(folder: Path, policy: Path) -> None:
    """Write a training of one process on the processor to a folder, with its rows."""
    job = _job(folder, policy, on_gpu=False, stage=0, bfloat16=False, processes=1)
    _write(job, recorded_rows(policy))


def _job(
    folder: Path, policy: Path, *, on_gpu: bool, stage: int, bfloat16: bool, processes: int
) -> TrainJob:
    training = TrainingSpec.model_validate(
        {
            "batchSize": GROUPS * SIZE // STEPS,
            "microBatchSize": SIZE,
            "optimizer": {"learningRate": 2e-3, "warmupRatio": 0.0},
            "imitation": 1.0,
            "precision": "BFloat16" if bfloat16 else "Float32",
            "deepspeed": {"zeroStage": stage},
        }
    )
    resources = ResourcesSpec(
        gpus_per_node=processes if on_gpu else 0, processes_per_node=processes
    )
    return TrainJob(
        training=training,
        resources=resources,
        seed=1,
        prompts="compact-v1",
        temperature=1.0,
        folder=folder,
        policy=policy,
    )


def _write(job: TrainJob, rows: list[Row]) -> Path:
    """Write a job and its rows; return the path of the job's file."""
    shutil.rmtree(job.folder, ignore_errors=True)
    write_rollouts([_table(rows)], job.rows_folder, None)
    file = job.folder / "job.json"
    write_json(file, job)
    return file


def _probabilities(folder: Path, rows: list[Row]) -> list[list[float]]:
    """Return the log-probabilities of the completions under a model, in float32."""
    model = load_model(folder, torch.float32)
    values = []
    with torch.no_grad():
        for row in rows:
            prompt, completion = row["prompt_ids"], row["completion_ids"]
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(completion).unsqueeze(1))
            values.append(chosen.squeeze(1).tolist())
    return values


def _distance(first: list[list[float]], second: list[list[float]]) -> float:
    """Return the mean difference of log-probabilities, in nats."""
    pairs = zip(first, second, strict=True)
    return statistics.fmean(abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True))


def _result(job: TrainJob) -> TrainResult:
    return TrainResult.model_validate_json(job.result_file.read_bytes())


def _curve_distance(result: TrainResult, reference: TrainResult) -> float:
    """Return the largest relative difference of two values of a step."""
    return max(
        abs(a - b) / max(abs(b), 1e-3)
        for name in (ProgressField.GRAD_NORM.value, TrainMetric.IMITATION.value)
        for a, b in zip(result.steps[name], reference.steps[name], strict=True)
    )
