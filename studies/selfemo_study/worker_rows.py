"""The row kinds that a program of the study trains: `on-policy` and `adamatch`.

The program stores models during the training, and dev selects one of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from selfemo_api.api_model import ApiModel
from selfemo_api.contract import ENV_DATA
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.text.files import write_atomically
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_study.measurements import Measurements
from selfemo_study.row_result import (
    BASELINE,
    CONTROL,
    DEV,
    TEST,
    CurvePoint,
    Generation,
    RowResult,
)
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind
from selfemo_study.subprocesses import run_module

#: The number of checkpoints during the training, which are measured on dev afterwards.
CHECKPOINTS = 6
#: The module of the program of each kind.
WORKERS = {
    Kind.ON_POLICY: "selfemo_study.on_policy_worker",
    Kind.ADAMATCH: "selfemo_study.adamatch_worker",
}


class TrainingJob(ApiModel):
    """The configuration of the training process."""

    spec: EvolutionSpec
    policy: Path
    """The folder of generation 0."""
    policy_sha256: str | None = None
    """The hash of generation 0. None: an earlier harness did not note it."""
    output: Path
    """The folder of the checkpoints."""
    steps: int
    """Optimizer steps."""
    keep: list[int]
    """The steps after which the model is stored."""


class Checkpoint(ApiModel):
    """A model that the training process stored."""

    step: int
    """Optimizer steps so far."""
    examples: int
    """Completions that were trained on so far."""
    seconds: float
    """Seconds of work so far, without the writing."""


def run_worker(train: Callable[[TrainingJob], list[Checkpoint]]) -> int:
    """Run a program of :data:`WORKERS`: read the job, train, write the checkpoints.

    Parameters
    ----------
    train
        Trains the policy, and returns the checkpoints that were stored.
    """
    die_with_parent()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, type=Path, help="JSON of a TrainingJob")
    job = TrainingJob.model_validate_json(parser.parse_args().config.read_bytes())
    checkpoints = [checkpoint.to_json() for checkpoint in train(job)]
    write_atomically(job.output / "points.json", json.dumps(checkpoints, indent=1))
    return 0


class WorkClock:
    """Measures the seconds of work, without those of writing."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._excluded = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of work so far."""
        return time.monotonic() - self._began - self._excluded

    def exclude(self, seconds: float) -> None:
        """Do not count these seconds as work."""
        self._excluded += seconds


def run_worker_row(task: RowTask) -> RowResult:
    """Train, measure the checkpoints on dev, and measure the selected one on test.

    Parameters
    ----------
    task
        A row of one of the kinds in :data:`WORKERS`.

    Raises
    ------
    StudyError
        If the training fails.
    """
    folder = task.folder.path.absolute()
    baseline, steps = task.baseline_model(), task.steps()
    checkpoints = trained_checkpoints(task, baseline, steps)
    measured = [(c, task.measure_dev(checkpoint_folder(folder, c.step))) for c in checkpoints]
    best, dev = max(measured, key=lambda pair: pair[1].f1)
    measurements: Measurements = {
        (0, DEV): task.measure_dev(baseline),
        (1, DEV): dev,
        (0, TEST): task.measure_test(baseline),
        (1, TEST): task.measure_test(checkpoint_folder(folder, best.step)),
    }
    curve = [CurvePoint(seconds=0.0, steps=0, dev=measurements[0, DEV].f1)]
    curve += [CurvePoint(seconds=c.seconds, steps=c.step, dev=m.f1) for c, m in measured]
    trained = Generation(
        generation=1,
        outcome=CONTROL,
        seconds={Stage.TRAIN.value: checkpoints[-1].seconds, Stage.EVALUATE.value: dev.seconds},
        steps=steps,
        examples=checkpoints[-1].examples,
    )
    result = task.finish(
        [Generation(generation=0, outcome=BASELINE), trained],
        measurements,
        best=1,
        message=f"step {best.step} of {steps} by dev",
        curve=curve,
    )
    if not task.study.keep_models:
        for checkpoint in checkpoints:
            if checkpoint != best:
                shutil.rmtree(checkpoint_folder(folder, checkpoint.step))
    return result


def checkpoint_steps(steps: int, count: int = CHECKPOINTS) -> list[int]:
    """Return the steps after which the model is stored: evenly spaced, always with the last.

    Parameters
    ----------
    steps
        The number of steps of the training.
    count
        The number of checkpoints. There are fewer where there are fewer steps.

    Examples
    --------
    >>> checkpoint_steps(80, count=4)
    [20, 40, 60, 80]
    """
    return sorted({max(1, round(steps * (i + 1) / count)) for i in range(count)})


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return the folder of the model that was stored after a step."""
    return folder / "models" / f"step-{step:06d}"


def trained_checkpoints(task: RowTask, baseline: Path, steps: int) -> list[Checkpoint]:
    """Return the checkpoints of a row's training, which is done where it is not finished.

    A training that was killed starts from scratch. So does one that had another configuration or
    another generation 0.

    Parameters
    ----------
    task
        The row.
    baseline
        The folder of generation 0.
    steps
        Optimizer steps.

    Raises
    ------
    StudyError
        If the training fails.
    """
    folder = task.folder.path.absolute()
    checkpoints_file = folder / "points.json"
    job = TrainingJob(
        spec=task.spec,
        policy=baseline,
        policy_sha256=model_sha256(baseline),
        output=folder,
        steps=steps,
        keep=checkpoint_steps(steps),
    )
    job_file, text = folder / "job.json", job.model_dump_json(by_alias=True, indent=1)
    if not (checkpoints_file.is_file() and job_file.read_text() == text):
        checkpoints_file.unlink(missing_ok=True)
        shutil.rmtree(folder / "models", ignore_errors=True)
        write_atomically(job_file, text)
        run_module(
            WORKERS[task.row.kind],
            folder / "job.json",
            log=folder / "log.txt",
            environment={ENV_DATA: task.volumes.variable},
        )
    checkpoints = json.loads(checkpoints_file.read_text())
    return [Checkpoint.model_validate(checkpoint) for checkpoint in checkpoints]
