"""Whether a model fits: DeepSpeed's estimates, and the engine's weights and KV cache."""

from __future__ import annotations

import sys

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_jobs.models.model_weights import Tensor
from selfemo_jobs.stages.check import stage
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.memory import (
    ModelSize,
    check_memory,
    model_size,
    training_needs,
    warm_start_needs,
)

GIB = 1 << 30
#: As Qwen3-8B has them.
LARGE = ModelSize(8_190_735_360, 8_190_735_360, 622_329_856, 2 * 36 * 8 * 128)


def problems(
    world: World, size: ModelSize, *, main: int | None = None, gpus: tuple[int, ...] = ()
) -> list[str]:
    findings = Findings()
    spec = world.config().spec
    check_memory(spec, size, findings, main_memory=main, gpu_memory=list(gpus))
    return [str(finding) for finding in findings.problems]


def on_gpus(world: World, count: int, **training: object) -> World:
    world.spec["resources"] = {"gpusPerNode": count}
    world.spec["selfPlay"] = {"engine": "VLLM"}
    world.spec["training"] = {"microBatchSize": 1}
    world.override(training={"precision": "BFloat16", **training})
    return world


def test_the_sizes_of_a_model(world: World) -> None:
    matrix = Tensor("F32", (8, 4))
    tensors = {
        "model.embed_tokens.weight": Tensor("F32", (100, 4)),
        "model.layers.0.mlp.up_proj.weight": matrix,
        "model.layers.1.mlp.up_proj.weight": matrix,
        "model.norm.weight": Tensor("F32", (4,)),
    }
    config = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 4}
    size = model_size(world.config().spec, config, tensors)
    assert size == ModelSize(468, 468, 400, 2 * 2 * 2 * 2)
    world.spec["training"] = {"trainLayers": 1}
    assert model_size(world.config().spec, config, tensors).trained == 36
    world.spec["training"] = {"lora": {"rank": 4}}
    config |= {"num_key_value_heads": 1, "head_dim": 3}
    size = model_size(world.config().spec, config, tensors)
    assert (size.trained, size.cache_per_token) == (2 * 4 * (8 + 4), 2 * 2 * 1 * 3)
    world.override(training={"lora": {"targetModules": ["up_proj"]}})
    assert model_size(world.config().spec, config, tensors).trained == 96


def test_the_estimates_are_those_of_deepspeed(world: World) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    spec = on_gpus(world, 4, deepspeed={"zeroStage": 2}).config().spec
    needs = training_needs(spec, LARGE)
    assert needs.gpu == estimate_zero2_model_states_mem_needs(LARGE.trained, 4, 1, False)[1]
    spec = on_gpus(world, 4, deepspeed={"zeroStage": 2, "offload": "Optimizer"}).config().spec
    needs = training_needs(spec, LARGE)
    expected = estimate_zero2_model_states_mem_needs(LARGE.trained, 4, 1, True)
    assert (needs.main, needs.gpu) == expected
    settings = {"zeroStage": 3, "offload": "OptimizerAndParameters"}
    spec = on_gpus(world, 4, deepspeed=settings).config().spec
    needs = training_needs(spec, LARGE)
    expected = estimate_zero3_model_states_mem_needs(
        LARGE.trained, LARGE.largest_layer, 4, 1, True, True
    )
    assert (needs.main, needs.gpu) == expected[:2]


def test_a_model_that_training_cannot_hold(world: World) -> None:
    assert problems(on_gpus(world, 1), LARGE, gpus=(80 * GIB,)) == [
        "model.uri: training of 8,190.7 million parameters (of 8,190.7 million in the model) "
        "needs 152.6 GiB of memory of each GPU by DeepSpeed's estimate, but only 80.0 GiB are "
        "available: set `training.lora` or `training.trainLayers`, or use a smaller model"
    ]
    adapters = ModelSize(LARGE.parameters, 87_000_000, LARGE.largest_layer, LARGE.cache_per_token)
    world.spec["training"]["lora"] = {"rank": 32}
    assert problems(world, adapters, gpus=(80 * GIB,)) == []
    lines = problems(world, adapters, gpus=(16 * GIB,))
    assert [line.partition(":")[0] for line in lines] == ["selfPlay.engineArgs", "model.uri"]


def test_a_warm_start_that_one_gpu_cannot_hold(world: World) -> None:
    """The train stage divides its states among the GPUs; the warm start does not."""
    on_gpus(world, 8, deepspeed={"zeroStage": 3})
    assert problems(world, LARGE, gpus=(80 * GIB,) * 8) == []
    world.spec["warmStart"] = {"steps": 100}
    needed = LARGE.parameters * 2 + (LARGE.parameters - 2 * LARGE.largest_layer) * 16
    assert problems(world, LARGE, gpus=(80 * GIB,) * 8) == [
        f"warmStart.steps: a warm start trains on one GPU and needs at least {needed / GIB:.1f} "
        "GiB of its memory, but it has 80.0 GiB: set `training.lora` or `training.trainLayers`, "
        "use a smaller model, or set 0"
    ]
    assert problems(world, LARGE, gpus=(140 * GIB,) * 8) == []
    world.spec["training"]["lora"] = {"rank": 32}
    adapters = ModelSize(LARGE.parameters, 87_000_000, LARGE.largest_layer, LARGE.cache_per_token)
    assert problems(world, adapters, gpus=(40 * GIB,) * 8) == []


def test_the_least_memory_of_a_warm_start(world: World) -> None:
    size = ModelSize(1000, 1000, 100, 0)
    assert warm_start_needs(on_gpus(world, 1).config().spec, size) == 1000 * 2 + 800 * 16
    world.override(training={"precision": "Float32"})
    assert warm_start_needs(world.config().spec, size) == 1000 * 4 + 800 * 12
    world.spec["training"]["trainLayers"] = 1
    size = ModelSize(1000, 50, 100, 0)
    assert warm_start_needs(world.config().spec, size) == 1000 * 4 + 50 * 12


def test_an_engine_that_cannot_hold_one_prompt(world: World) -> None:
    on_gpus(world, 1, deepspeed={"zeroStage": 0})
    world.spec["training"]["lora"] = {"rank": 8}
    adapters = ModelSize(LARGE.parameters, 1_000_000, LARGE.largest_layer, LARGE.cache_per_token)
    world.spec["selfPlay"]["engineArgs"] = {"gpu_memory_utilization": 0.5}
    assert problems(world, adapters, gpus=(24 * GIB,)) == [
        "selfPlay.engineArgs: the weights and the KV cache of a prompt of 268 tokens take 15.3 "
        "GiB of each GPU, but the engine has 12.0 GiB (0.5 of 24.0 GiB): use a smaller model, "
        "larger GPUs, or `tensor_parallel_size`"
    ]
    world.spec["selfPlay"]["engineArgs"]["tensor_parallel_size"] = 2
    assert problems(world, adapters, gpus=(24 * GIB,)) == []


def test_the_kv_cache_of_vllm_on_a_cpu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    world.spec["selfPlay"] = {"engine": "VLLM"}
    world.spec["model"]["maxPromptTokens"] = 16384
    size = ModelSize(1_000_000, 1_000_000, 1000, LARGE.cache_per_token)
    assert problems(world, size) == [
        "model.maxPromptTokens: the KV cache of a prompt of 16396 tokens takes 4.5 GiB, but "
        "vLLM has 2.0 GiB: set VLLM_CPU_KVCACHE_SPACE, or lower it"
    ]
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "8")
    assert problems(world, size) == []


def test_a_model_that_the_main_memory_cannot_hold(world: World) -> None:
    lines = problems(world, LARGE, main=16 * GIB)
    assert lines[0] == (
        "model.uri: the Transformers engine needs 30.6 GiB of main memory for 8,190.7 million "
        "parameters, but only 16.0 GiB are available: use a smaller model"
    )
    assert lines[1].startswith(
        "model.uri: training of 8,190.7 million parameters (of 8,190.7 million in the model) needs "
        "152.6 GiB of main memory"
    )


def test_the_check_compares_with_this_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "main_memory", lambda: 10 << 20)
    assert world.problems() == [
        "model.uri: training of 0.9 million parameters (of 0.9 million in the model) needs 16 "
        "MiB of main memory by DeepSpeed's estimate, but only 10 MiB are available: set "
        "`training.lora` or `training.trainLayers`, or use a smaller model"
    ]
    monkeypatch.setattr(stage, "main_memory", lambda: GIB)
    assert world.problems() == []


def test_deepspeed_is_not_imported_where_there_is_plenty(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # an import raises ModuleNotFoundError
    assert problems(world, ModelSize(10**6, 10**6, 10**5, 1000), main=GIB) == []
