"""Builds what a stage is told: pure functions from spec and status to a StageConfig."""

from __future__ import annotations

from selfemo_api.contract import StageConfig
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Start
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import EvolutionStatus, Outcome

#: The stage whose result each stage reads.
_PARENT = {
    Stage.SCORE: Stage.SELF_PLAY,
    Stage.FLYWHEEL: Stage.SCORE,
    Stage.TRAIN: Stage.FLYWHEEL,
    Stage.EVALUATE: Stage.TRAIN,
}


def pinned_spec(status: EvolutionStatus) -> EvolutionSpec:
    """Return the spec that the generation under way was started with."""
    if status.current is None:
        raise ValueError("no generation is under way")
    return EvolutionSpec.model_validate(status.current.spec)


def stage_config(evolution: EmotionEvolution, status: EvolutionStatus, stage: Stage) -> StageConfig:
    """Return what a stage of the generation under way is told.

    It follows from the pinned spec and the recorded results only: every attempt is told the same.
    """
    current = status.current
    if current is None:
        raise ValueError("no generation is under way")
    spec = pinned_spec(status)
    generation = status.generation
    policy = current.policy_uri
    parents = {}
    parent = _PARENT.get(stage) if generation > 0 else None
    if parent is not None:
        result = status.result(parent)
        if result is None:
            raise ValueError(f"{stage.value} needs the result of {parent.value}")
        parents[parent.slug] = result.manifest
        if stage is Stage.EVALUATE and result.model_uri:
            policy = result.model_uri
    if stage is Stage.TRAIN and spec.training.start is Start.BASELINE:
        policy = baseline_model(spec)
    return StageConfig(
        stage=stage,
        run=evolution.run,
        generation=generation,
        seed=stage_seed(spec.seed, generation, stage),
        spec=spec,
        policy_uri=policy,
        judge_uri=current.judge_uri,
        output=_folder(spec, evolution.run, generation, stage),
        parents=parents,
        replay=_replay(spec, evolution.run, status) if stage is Stage.FLYWHEEL else [],
        baseline=status.baseline,
    )


def baseline_model(spec: EvolutionSpec) -> str:
    """Return the URI of generation 0's model."""
    return spec.resume_from.uri if spec.resume_from else spec.model.uri


def _folder(spec: EvolutionSpec, run: str, generation: int, stage: Stage) -> str:
    return f"{spec.storage.uri.rstrip('/')}/{run}/{stage_prefix(generation, stage)}"


def _replay(spec: EvolutionSpec, run: str, status: EvolutionStatus) -> list[str]:
    """Return the flywheels of the generations in the history, newest first.

    A collapsed generation is left out: it may have none, and its groups are what must not spread.
    """
    if spec.flywheel.replay == 0.0:
        return []
    earlier = [
        entry.generation
        for entry in reversed(status.history)
        if entry.kept is not None and entry.outcome is not Outcome.COLLAPSED
    ]
    return [f"{_folder(spec, run, g, Stage.FLYWHEEL)}/manifest.json" for g in earlier]
