"""A quantized model is refused by each stage that reads it, before the weights are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models import stage_models
from selfemo_jobs.models.quantization import refuse_quantized
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.store import open_store


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


#: What the tools write into `config.json`, and how the message calls it.
METHODS = [
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
    ({"quant_method": "gptq", "bits": 3, "group_size": 64}, "gptq, 3 bits"),
    ({"quant_method": "awq", "bits": 4, "zero_point": True}, "awq, 4 bits"),
    ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "fp8"),
    ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ({"quant_method": "mxfp4"}, "mxfp4"),
    ({"quant_method": "hqq", "weights_only": True}, "hqq"),
    ({"quant_method": "torchao"}, "torchao"),
    ({"quant_method": "quanto"}, "quanto"),
    ({"quant_algo": "NVFP4", "producer": {"name": "modelopt"}}, "NVFP4"),
    ({"bits": 2}, "unknown method, 2 bits"),
]


@pytest.mark.parametrize(("details", "text"), METHODS)
def test_the_configuration_tells(model: Path, details: dict[str, Any], text: str) -> None:
    refuse_quantized(model, "s3://bucket/model")
    edit(model, quantization_config=details)
    with pytest.raises(BadInput) as caught:
        refuse_quantized(model, "s3://bucket/model")
    assert str(caught.value) == (
        f"s3://bucket/model: the model is quantized ({text}): training writes full-precision "
        "weights, so use the unquantized model"
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.mlp.up_proj.qweight", torch.int32),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.float32),
        ("model.layers.0.mlp.up_proj.weight.quant_map", torch.float32),
        ("model.layers.0.mlp.up_proj.weight_packed", torch.int32),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", torch.uint8),
        ("model.layers.0.mlp.up_proj.weight", torch.float8_e4m3fn),
        ("model.layers.0.mlp.up_proj.weight", torch.uint8),
        ("model.layers.0.mlp.up_proj.weight", torch.int8),
    ],
)
def test_the_weights_tell(model: Path, name: str, dtype: torch.dtype) -> None:
    """Some tools leave the configuration as it was."""
    path = model / "model.safetensors"
    tensors = {**load_file(path), name: torch.zeros(4, 4, dtype=dtype)}
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(BadInput, match="the model is quantized"):
        refuse_quantized(model, "file:///model")


@pytest.mark.parametrize("fetch", [stage_models.fetch_policy, stage_models.fetch_judge])
def test_each_stage_refuses_it(
    fetch: Callable[[StageContext], Path],
    model: Path,
    tmp_path: Path,
    make_config: Callable[..., StageConfig],
) -> None:
    """The file may have been replaced since the check: the stage itself ends with exit code 2."""
    edit(model, quantization_config={"quant_method": "awq", "bits": 4})
    config = make_config(Stage.SELF_PLAY, policy=model.as_uri(), judge=model.as_uri())
    context = StageContext(config, open_store(config.spec.storage), 0, 1, tmp_path, "0" * 64)
    with pytest.raises(BadInput, match=r"the model is quantized \(awq, 4 bits\)") as caught:
        fetch(context)
    assert caught.value.exit_code == 2
