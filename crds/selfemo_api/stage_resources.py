"""The number of pods and GPUs of a stage."""

from __future__ import annotations

from selfemo_api.spec import Engine, EvolutionSpec
from selfemo_api.stages import Stage

#: The arguments of vLLM that spread one engine over several GPUs.
_PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

#: The stages that compute nothing on a GPU.
STAGES_WITHOUT_GPU = (Stage.CHECK, Stage.FLYWHEEL, Stage.PUBLISH)


def pods_of(spec: EvolutionSpec, stage: Stage) -> int:
    """Return the number of pods of a stage: shards of self-play, nodes of a training, or one.

    Parameters
    ----------
    spec
        The spec of the evolution.
    stage
        The stage.
    """
    if stage is Stage.SELF_PLAY:
        return spec.self_play.shards
    return spec.resources.nodes if stage is Stage.TRAIN else 1


def gpus_per_pod(spec: EvolutionSpec, stage: Stage) -> int:
    """Return the number of GPUs of one pod of a stage.

    It is 0 for all stages if ``resources.gpusPerNode`` is 0. A pod of the ``VLLM`` engine has the
    product of the parallel sizes in ``selfPlay.engineArgs``.

    Parameters
    ----------
    spec
        The spec of the evolution.
    stage
        The stage.
    """
    if spec.resources.gpus_per_node == 0 or stage in STAGES_WITHOUT_GPU:
        return 0
    if stage is Stage.TRAIN:
        return spec.resources.gpus_per_node
    if stage is Stage.WARM_START:
        return 1
    engine = spec.evaluation_engine if stage is Stage.EVALUATE else spec.self_play.engine
    if engine is not Engine.VLLM:
        return 1
    gpus = 1
    for name in _PARALLEL_SIZES:
        size = spec.self_play.engine_args.get(name, 1)
        gpus *= size if isinstance(size, int) and size > 0 else 1
    return gpus


def gpus_of(spec: EvolutionSpec, stage: Stage) -> int:
    """Return the number of GPUs of all pods of a stage.

    Parameters
    ----------
    spec
        The spec of the evolution.
    stage
        The stage.
    """
    return pods_of(spec, stage) * gpus_per_pod(spec, stage)
