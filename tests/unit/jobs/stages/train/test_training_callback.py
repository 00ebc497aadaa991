"""The checks of the callback after each step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.training_callback import TrainingCallback
from selfemo_jobs.stages.train.worker_protocol import TrainJob


def make_callback(**training: Any) -> Any:
    spec = TrainingSpec.model_validate({"optimizer": {"learningRate": 0.5}} | training)
    job = TrainJob(
        training=spec,
        resources=ResourcesSpec(),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=Path("f"),
        policy=Path("p"),
    )
    return TrainingCallback(None, job, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("logs", [{"loss": float("nan"), "grad_norm": 1.0}, {"grad_norm": "inf"}])
def test_a_loss_or_gradient_that_is_not_finite_requires_a_user_fix(logs: dict[str, Any]) -> None:
    logs_of_step = {"loss": 1.0, "learning_rate": 0.5} | {
        name: float(value) for name, value in logs.items()
    }
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    with pytest.raises(
        BadInput, match=r"at step 7; lower `training.optimizer.learningRate` \(0.5\)"
    ):
        make_callback().on_log(None, state, None, logs_of_step)
