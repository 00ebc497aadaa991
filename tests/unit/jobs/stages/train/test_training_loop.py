"""The training runs in processes of its own, so that the stage needs no torch."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.stages.train.worker_protocol import TrainJob


def test_the_stage_itself_does_not_import_torch() -> None:
    code = "import sys, selfemo_jobs.stages.train.stage as s; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("precision", "gpus"), [("Float32", 0), ("BFloat16", 1)])
def test_bfloat16_needs_a_context_on_a_cpu_alone(precision: str, gpus: int) -> None:
    from selfemo_jobs.stages.train.training_loop import precision_context

    job = TrainJob(
        training=TrainingSpec.model_validate({"precision": precision}),
        resources=ResourcesSpec(gpus_per_node=gpus),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=Path("f"),
        policy=Path("p"),
    )
    context = precision_context(bfloat16_products=job.bfloat16_products)
    assert isinstance(context, nullcontext)
    assert job.bfloat16_weights is (precision == "BFloat16")
