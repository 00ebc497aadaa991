"""What watches over the steps, and the arguments that follow from the spec."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfemo_api.spec import TrainingSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.training_loop import _Watch, lora_config
from selfemo_jobs.stages.train.worker_protocol import TrainJob


def watch(**training: Any) -> Any:
    spec = TrainingSpec.model_validate({"learningRate": 0.5} | training)
    job = TrainJob(
        training=spec,
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=Path("f"),
        policy=Path("p"),
    )
    return _Watch(None, job, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("logs", [{"loss": float("nan"), "grad_norm": 1.0}, {"grad_norm": "inf"}])
def test_a_loss_that_is_not_finite_is_a_persons_to_mend(logs: dict[str, Any]) -> None:
    figures = {"loss": 1.0, "learning_rate": 0.5} | {
        name: float(value) for name, value in logs.items()
    }
    state = SimpleNamespace(global_step=7, is_world_process_zero=True)
    with pytest.raises(BadInput, match=r"at step 7; lower `training.learningRate` \(0.5\)"):
        watch().on_log(None, state, None, figures)


def test_all_linear_is_a_word_and_not_a_module() -> None:
    assert lora_config(TrainingSpec()) is None
    found = lora_config(TrainingSpec.model_validate({"lora": {"rank": 8}}))
    assert (found.target_modules, found.r) == ("all-linear", 8)
    named = {"lora": {"targetModules": ["q_proj", "v_proj"]}}
    found = lora_config(TrainingSpec.model_validate(named))
    assert set(found.target_modules) == {"q_proj", "v_proj"}


def test_the_stage_itself_does_without_torch() -> None:
    import subprocess

    code = "import sys, selfemo_jobs.stages.train.stage as s; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
