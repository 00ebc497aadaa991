"""How many GPUs a stage holds. Pure."""

from __future__ import annotations

from selfemo_api.contract import pods_of
from selfemo_api.spec import Engine, EvolutionSpec
from selfemo_api.stages import Stage

#: vLLM's ways to spread one engine over GPUs.
_SPREAD = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def gpus_per_pod(spec: EvolutionSpec, stage: Stage) -> int:
    """Return the GPUs of one of a stage's pods; none where `training.gpusPerNode` is 0."""
    if spec.training.gpus_per_node == 0 or stage is Stage.FLYWHEEL:
        return 0
    if stage is Stage.TRAIN:
        return spec.training.gpus_per_node
    engine = spec.evaluation_engine if stage is Stage.EVALUATE else spec.self_play.engine
    if engine is not Engine.VLLM:
        return 1
    gpus = 1
    for name in _SPREAD:
        size = spec.self_play.engine_args.get(name, 1)
        gpus *= size if isinstance(size, int) and size > 0 else 1
    return gpus


def gpus_of(spec: EvolutionSpec, stage: Stage) -> int:
    """Return the GPUs of all of a stage's pods together."""
    return pods_of(spec, stage) * gpus_per_pod(spec, stage)
