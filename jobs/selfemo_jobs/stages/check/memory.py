"""Whether the model fits the memory: DeepSpeed's estimate for training, and vLLM's KV cache.

A warm start trains without DeepSpeed, on one GPU, and has an estimate of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfemo_api.spec import Engine, EvolutionSpec, Offload, Precision
from selfemo_jobs.models.model_weights import Tensor
from selfemo_jobs.stages.check.architecture import trained_tensors
from selfemo_jobs.stages.check.findings import Findings

_GIB = 1 << 30
#: The share of a GPU's memory that vLLM takes by default.
_UTILIZATION = 0.9
#: The environment variable of vLLM with the size of the KV cache on a CPU in GiB, and the value
#: that the engine sets where there is none.
_CPU_CACHE = ("VLLM_CPU_KVCACHE_SPACE", 2)
#: An upper bound of DeepSpeed's estimates in bytes: for each parameter that is trained, and for
#: each other one. Where this is far below the memory, DeepSpeed is not imported, which takes
#: seconds.
_TRAINED_MOST, _FROZEN_MOST = 30, 4
#: The bytes that a warm start holds for each parameter that it trains, beside the weights of the
#: model: two moments of AdamW and a gradient in float32; and in bfloat16 a copy in float32.
_WARM_START_STATES, _WARM_START_COPY = 12, 4


@dataclass(frozen=True)
class ModelSize:
    """The numbers that memory depends on."""

    parameters: int
    """The number of parameters."""
    trained: int
    """The number of parameters that are trained: of the model, or of its adapters."""
    largest_layer: int
    """The number of parameters of the largest tensor."""
    cache_per_token: int
    """The number of values in the KV cache for a token."""

    @property
    def frozen(self) -> int:
        """The number of the model's parameters that are not trained, if it has adapters or less."""
        return max(0, self.parameters - self.trained)


@dataclass(frozen=True)
class TrainingNeeds:
    """The memory in bytes that the states of a model take in training."""

    main: int
    """On each node."""
    gpu: int
    """On each GPU."""


def model_size(
    spec: EvolutionSpec, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> ModelSize:
    """Return the size of a model.

    Parameters
    ----------
    spec
        The resolved spec.
    config
        The content of ``config.json``, or of its part about the decoder.
    tensors
        The tensors of the weights.
    """
    parameters = sum(tensor.size for tensor in tensors.values())
    lora = spec.training.lora
    if lora is not None and lora.rank > 0:
        trained = sum(lora.rank * sum(t.shape) for t in _adapted(spec, tensors).values())
    else:
        trained = sum(tensor.size for tensor in trained_tensors(spec, tensors).values())
    largest = max((tensor.size for tensor in tensors.values()), default=0)
    return ModelSize(parameters, trained, largest, _cache_per_token(config))


def training_needs(spec: EvolutionSpec, size: ModelSize) -> TrainingNeeds:
    """Return DeepSpeed's estimate of the memory for training.

    Its estimates are about the parameters that are trained. The others add their weights. On a CPU,
    all processes of a node share the main memory.

    Parameters
    ----------
    spec
        The resolved spec.
    size
        The size of the model.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    resources, deepspeed = spec.resources, spec.training.deepspeed
    offload = deepspeed.offload is not Offload.NONE
    offload_all = deepspeed.offload is Offload.OPTIMIZER_AND_PARAMETERS
    processes, nodes = resources.local_processes, resources.nodes
    weight = 4 if resources.gpus_per_node == 0 or _is_float32(spec) else 2
    frozen = size.frozen * weight
    if deepspeed.zero_stage == 3:
        main, gpu, _ = estimate_zero3_model_states_mem_needs(
            size.trained, size.largest_layer, processes, nodes, offload, offload_all
        )
        main, gpu = (main + frozen, gpu) if offload_all else (main, gpu + frozen // processes)
    else:
        divided = (processes, nodes) if deepspeed.zero_stage > 0 else (1, 1)
        main, gpu = estimate_zero2_model_states_mem_needs(size.trained, *divided, offload)
        gpu += frozen
    if resources.gpus_per_node == 0:
        states = gpu * processes + (main if offload else 0)
        return TrainingNeeds(main=states, gpu=0)
    # without offload, the main memory only holds the weights until they are on the GPUs
    return TrainingNeeds(main if offload else size.parameters * weight * processes, gpu)


def warm_start_needs(spec: EvolutionSpec, size: ModelSize) -> int:
    """Return the least memory in bytes of the GPU on which a warm start trains.

    Nothing is divided among GPUs. Activations are not counted. The embeddings and the output head
    are not trained: each is taken for as large as the largest tensor.

    Parameters
    ----------
    spec
        The resolved spec.
    size
        The size of the model.
    """
    lora, trained = spec.training.lora, size.trained
    if (lora is None or lora.rank == 0) and spec.training.train_layers == 0:
        trained = max(0, trained - 2 * size.largest_layer)
    weight, copy = (4, 0) if _is_float32(spec) else (2, _WARM_START_COPY)
    return size.parameters * weight + trained * (_WARM_START_STATES + copy)


def check_memory(
    spec: EvolutionSpec,
    size: ModelSize,
    findings: Findings,
    *,
    main_memory: int | None,
    gpu_memory: list[int],
) -> None:
    """Find what does not fit the memory.

    Parameters
    ----------
    spec
        The resolved spec.
    size
        The size of the model.
    findings
        The problems are added to it.
    main_memory
        The main memory in bytes of the machine that runs the stages. None: it is not known.
    gpu_memory
        The memory in bytes of each GPU, as far as it is known.
    """
    gpu = min(gpu_memory, default=None)
    _check_engine(spec, size, findings, main_memory, gpu)
    _check_warm_start(spec, size, findings, gpu)
    most = size.trained * _TRAINED_MOST + size.frozen * _FROZEN_MOST
    most *= spec.resources.local_processes
    known = [limit for limit in (main_memory, gpu) if limit is not None]
    if not known or most < min(known) // 2:
        return
    needs = training_needs(spec, size)
    for need, limit, what in (
        (needs.main, main_memory, "main memory"),
        (needs.gpu, gpu, "memory of each GPU"),
    ):
        if limit is not None and need > limit:
            findings.problem(
                "model.uri",
                f"training of {_millions(size.trained)} parameters (of "
                f"{_millions(size.parameters)} in the model) needs {_gib(need)} of {what} by "
                f"DeepSpeed's estimate, but only {_gib(limit)} are available: "
                f"{_advice(spec, size)}",
            )


def _check_warm_start(
    spec: EvolutionSpec, size: ModelSize, findings: Findings, gpu_memory: int | None
) -> None:
    """Find whether one GPU can hold the states of a warm start. On a CPU, Train needs as much."""
    if not spec.has_warm_start or spec.resources.gpus_per_node == 0 or gpu_memory is None:
        return
    needed = warm_start_needs(spec, size)
    if needed > gpu_memory:
        findings.problem(
            "warmStart.steps",
            f"a warm start trains on one GPU and needs at least {_gib(needed)} of its memory, "
            f"but it has {_gib(gpu_memory)}: set `training.lora` or `training.trainLayers`, use "
            "a smaller model, or set 0",
        )


def _check_engine(
    spec: EvolutionSpec,
    size: ModelSize,
    findings: Findings,
    main_memory: int | None,
    gpu_memory: int | None,
) -> None:
    """Find whether the engine of self-play can hold the model and one prompt."""
    arguments = spec.self_play.engine_args
    on_cpu = spec.resources.gpus_per_node == 0
    value = 4 if arguments.get("dtype", "float32" if on_cpu else "auto") == "float32" else 2
    weights = size.parameters * value
    tokens = spec.model.max_prompt_tokens + max(
        spec.self_play.max_tokens.recognizer, spec.self_play.max_tokens.responder
    )
    cache = size.cache_per_token * value * tokens
    if on_cpu:
        reserved = cache
        if spec.self_play.engine is Engine.VLLM:
            name, default = _CPU_CACHE
            reserved = int(os.environ.get(name) or default) * _GIB
            if cache > reserved:
                findings.problem(
                    "model.maxPromptTokens",
                    f"the KV cache of a prompt of {tokens} tokens takes {_gib(cache)}, but vLLM "
                    f"has {_gib(reserved)}: set {name}, or lower it",
                )
        if main_memory is not None and weights + reserved > main_memory:
            findings.problem(
                "model.uri",
                f"the {spec.self_play.engine.value} engine needs {_gib(weights + reserved)} of "
                f"main memory for {_millions(size.parameters)} parameters, but only "
                f"{_gib(main_memory)} are available: use a smaller model",
            )
        return
    if gpu_memory is None:
        return
    parts, share = 1, 1.0
    if spec.self_play.engine is Engine.VLLM:
        parts = _product(arguments, "tensor_parallel_size", "pipeline_parallel_size")
        share = float(arguments.get("gpu_memory_utilization", _UTILIZATION))
    needed, limit = (weights + cache) // parts, int(gpu_memory * share)
    if needed > limit:
        findings.problem(
            "selfPlay.engineArgs",
            f"the weights and the KV cache of a prompt of {tokens} tokens take {_gib(needed)} of "
            f"each GPU, but the engine has {_gib(limit)} ({share:g} of {_gib(gpu_memory)}): use "
            "a smaller model, larger GPUs, or `tensor_parallel_size`",
        )


def _advice(spec: EvolutionSpec, size: ModelSize) -> str:
    """Return how less memory can be taken."""
    lora = spec.training.lora
    if lora is None or lora.rank == 0:
        return "set `training.lora` or `training.trainLayers`, or use a smaller model"
    if spec.training.deepspeed.zero_stage < 3 and spec.resources.processes > 1:
        return "set `overrides.training.deepspeed.zeroStage: 3`, or use a smaller model"
    return "use a smaller model" if size.frozen else "use more GPUs"


def _adapted(spec: EvolutionSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the matrices that get adapters."""
    targets = spec.training.lora.target_modules if spec.training.lora else []
    matrices = {
        name.removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor.shape) == 2
    }
    if "all-linear" in targets:
        return {n: t for n, t in matrices.items() if any(part.isdecimal() for part in n.split("."))}
    return {n: t for n, t in matrices.items() if n.rpartition(".")[2] in targets}


def _cache_per_token(config: Mapping[str, Any]) -> int:
    """Return the number of keys and values of a token; 0 if it is not known."""
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    numbers = [config.get(name) for name in names]
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        return 0
    layers, heads, hidden = (int(number) for number in numbers if number is not None)
    groups = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or hidden // heads
    return 2 * layers * int(groups) * int(width)


def _is_float32(spec: EvolutionSpec) -> bool:
    return spec.training.precision is Precision.FLOAT32


def _product(arguments: Mapping[str, Any], *names: str) -> int:
    product = 1
    for name in names:
        value = arguments.get(name)
        product *= value if isinstance(value, int) and value > 0 else 1
    return product


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} million"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / (1 << 20):.0f} MiB"
