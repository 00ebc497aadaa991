"""The configuration of DeepSpeed follows from the spec."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.stages.train.deepspeed_config import deepspeed_config


def config_of(resources: dict[str, object] | None = None, **training: object) -> dict[str, Any]:
    return deepspeed_config(
        TrainingSpec.model_validate(training), ResourcesSpec.model_validate(resources or {})
    )


def test_micro_batches_add_up_to_the_batch() -> None:
    resources = {"gpusPerNode": 3, "nodes": 2, "processesPerNode": 3}
    config = config_of(resources, batchSize=96, microBatchSize=4)
    assert config["train_batch_size"] == 96
    assert config["gradient_accumulation_steps"] == 4
    assert config["checkpoint"]["use_node_local_storage"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_zero_stage(stage: int) -> None:
    zero = config_of(deepspeed={"zeroStage": stage})["zero_optimization"]
    assert zero["stage"] == stage
    assert zero.get("stage3_gather_16bit_weights_on_model_save", False) is (stage == 3)
    assert "offload_optimizer" not in zero


def test_an_offloaded_optimizer_is_fused() -> None:
    """The fused form is the same function: it only reads the memory of the CPU once."""
    whole = config_of()["optimizer"]["params"]
    assert "fused" not in whole
    settings = {"zeroStage": 2, "offload": "Optimizer"}
    offloaded = config_of(deepspeed=settings)["optimizer"]["params"]
    assert offloaded == {**whole, "fused": True}
    results = []
    for params in (whole, offloaded):
        weights = torch.nn.Parameter(torch.linspace(-1, 1, 100))
        weights.grad = torch.linspace(2, -1, 100)
        # as DeepSpeed calls it
        kernel = {name: value for name, value in params.items() if name != "torch_adam"}
        optimizer = torch.optim.AdamW([weights], **{**kernel, "lr": 0.1}, foreach=None)
        for _ in range(3):
            optimizer.step()
        results.append(weights.detach())
    torch.testing.assert_close(*results)


def test_offload() -> None:
    both = {"zeroStage": 3, "offload": "OptimizerAndParameters"}
    zero = config_of({"gpusPerNode": 0}, deepspeed=both)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": False}
    one = {"zeroStage": 2, "offload": "Optimizer"}
    zero = config_of(deepspeed=one)["zero_optimization"]
    assert zero["offload_optimizer"]["pin_memory"]
    assert "offload_param" not in zero


def test_nothing_is_compiled_and_no_value_is_auto() -> None:
    config = config_of(precision="Float32", optimizer={"maxGradNorm": 0.5, "learningRate": 1e-5})
    assert config["optimizer"]["params"]["torch_adam"] is True
    assert config["optimizer"]["params"]["lr"] == 1e-5
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"] == {"enabled": False}
    assert "auto" not in str(config)
