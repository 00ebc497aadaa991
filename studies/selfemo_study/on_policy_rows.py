"""The row kind `on-policy`: TRL's own GRPOTrainer, against which the evolution's way is timed.

Same generation 0, same prompts (the recognizer's, in the order in which the evolution draws them),
same rewards and gold labels, same layers trained, same number of steps and of completions in each.
What differs: TRL generates with Transformers while it trains, nothing is imitated, there is no
flywheel, no responder and no gate, the judge stays generation 0, and an advantage is not weighed
by its group's consistency.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from selfemo_api.api_model import ApiModel
from selfemo_api.contract import ENV_DATA
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.text.files import write_atomically
from selfemo_study.programs import run_module
from selfemo_study.row_record import (
    BASELINE,
    CONTROL,
    DEV,
    TEST,
    Answers,
    CurvePoint,
    Generation,
    RowResult,
)
from selfemo_study.row_work import Work

#: How often the model is kept on the way, and measured on dev afterwards.
POINTS = 6


class OnPolicyJob(ApiModel):
    """What the training process is told."""

    spec: EvolutionSpec
    policy: Path
    """Generation 0."""
    output: Path
    """Folder of the models that are kept on the way."""
    steps: int
    keep: list[int]
    """After these steps."""


class OnPolicyPoint(ApiModel):
    """What the training process says of a model that it kept."""

    step: int
    seconds: float
    """Of work so far, without the writing."""


def run_on_policy(work: Work) -> RowResult:
    """Train, measure the models on the way on dev, and the chosen one on test."""
    folder = work.folder.path.absolute()
    zero, steps = work.generation_zero(), work.steps()
    points = _train(work, zero, steps)
    measured = [(p, work.dev(folder / "models" / f"step-{p.step:06d}")) for p in points]
    best, dev = max(measured, key=lambda pair: pair[1].f1)
    answers: Answers = {
        (0, DEV): work.dev(zero),
        (1, DEV): dev,
        (0, TEST): work.test(zero),
        (1, TEST): work.test(folder / "models" / f"step-{best.step:06d}"),
    }
    curve = [CurvePoint(seconds=0.0, steps=0, dev=answers[0, DEV].f1)]
    curve += [CurvePoint(seconds=p.seconds, steps=p.step, dev=m.f1) for p, m in measured]
    trained = Generation(
        generation=1,
        outcome=CONTROL,
        seconds={Stage.TRAIN.value: points[-1].seconds, Stage.EVALUATE.value: dev.seconds},
        steps=steps,
        examples=steps * work.spec.training.batch_size,
    )
    result = work.finish(
        [Generation(generation=0, outcome=BASELINE), trained],
        answers,
        best=1,
        message=f"step {best.step} of {steps} by dev",
        curve=curve,
    )
    if not work.study.keep_models:
        for point in points:
            if point != best:
                shutil.rmtree(folder / "models" / f"step-{point.step:06d}")
    return result


def kept_steps(steps: int, points: int = POINTS) -> list[int]:
    """Return after which steps a model is kept: evenly, the last one always."""
    return sorted({max(1, round(steps * (i + 1) / points)) for i in range(points)})


def _train(work: Work, zero: Path, steps: int) -> list[OnPolicyPoint]:
    """Train, unless that is done; a training that was killed begins anew."""
    folder = work.folder.path.absolute()
    done = folder / "points.json"
    if not done.is_file():
        shutil.rmtree(folder / "models", ignore_errors=True)
        job = OnPolicyJob(
            spec=work.spec,
            policy=zero,
            output=folder,
            steps=steps,
            keep=kept_steps(steps),
        )
        write_atomically(folder / "job.json", job.model_dump_json(by_alias=True, indent=1))
        run_module(
            "selfemo_study.on_policy_worker",
            folder / "job.json",
            log=folder / "log.txt",
            environment={ENV_DATA: work.data.variable},
        )
    return [OnPolicyPoint.model_validate(p) for p in json.loads(done.read_text())]
