"""Builds the Job of a stage and the StageConfig that it is started with. Pure."""

from __future__ import annotations

from selfemo_api.contract import Earlier, GenerationOutcome, RunOutcomes, StageConfig
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Start
from selfemo_api.stages import Stage, job_name, stage_prefix
from selfemo_api.status import EvolutionStatus, Outcome
from selfemo_operator.planner.promotion import model_of, next_policy
from selfemo_operator.planner.recovery import repairs
from selfemo_operator.planner.types import CreateJob

#: The stage whose result a stage reads.
_PARENT = {
    Stage.SCORE: Stage.SELF_PLAY,
    Stage.FLYWHEEL: Stage.SCORE,
    Stage.TRAIN: Stage.FLYWHEEL,
    Stage.EVALUATE: Stage.TRAIN,
}
#: The stages whose results Publish reads.
_PUBLISHED = (Stage.WARM_START, Stage.TRAIN, Stage.EVALUATE)


def create_job(
    evolution: EmotionEvolution, status: EvolutionStatus, spec: EvolutionSpec
) -> CreateJob:
    """Return the action that creates the Job of the current stage and attempt.

    Parameters
    ----------
    evolution
        The resource, for its name and its run.
    status
        The status, with a generation and a stage.
    spec
        The spec pinned for the current generation.

    Raises
    ------
    ValueError
        If no generation is in progress, or the result of an earlier stage is missing.
    """
    if status.stage is None:
        raise ValueError("no stage is in progress")
    name = job_name(evolution.metadata.name, status.generation, status.stage, status.attempt)
    return CreateJob(name, status.attempt, stage_config(evolution, status, spec, status.stage))


def stage_config(
    evolution: EmotionEvolution, status: EvolutionStatus, spec: EvolutionSpec, stage: Stage
) -> StageConfig:
    """Return the configuration of a stage of the current generation.

    It follows from the pinned spec, the recorded results and the recovery in progress only, so it
    is the same for every attempt. The other parameters are those of :func:`create_job`.
    """
    current, generation = status.current, status.generation
    if current is None:
        raise ValueError("no generation is in progress")
    policy = current.policy_uri
    parents = {}
    results = {result.stage: result for result in current.results}
    parent = _PARENT.get(stage) if generation > 0 else None
    if generation == 0 and stage is Stage.EVALUATE and Stage.WARM_START in results:
        parent = Stage.WARM_START
    if parent is not None:
        if parent not in results:
            raise ValueError(f"{stage.value} needs the result of {parent.value}")
        parents[parent.slug] = results[parent].manifest
        if stage is Stage.EVALUATE:
            policy = results[parent].model_uri or policy
    if stage is Stage.PUBLISH:
        parents = {r.stage.slug: r.manifest for r in current.results if r.stage in _PUBLISHED}
        policy = model_of(status)
    if stage is Stage.TRAIN and spec.training.start is Start.BASELINE:
        policy = status.baseline_uri or spec.baseline_uri
    elif stage is Stage.TRAIN and spec.training.start is Start.MODEL:
        policy = spec.model.uri
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
        baseline_uri=status.baseline_uri if stage is Stage.EVALUATE else None,
        earlier_evaluations=(
            _earlier_evaluations(spec, evolution.run, status) if stage is Stage.EVALUATE else {}
        ),
        outcomes=_outcomes(spec, status) if stage is Stage.PUBLISH else None,
        repair=repairs(status, stage),
    )


def _outcomes(spec: EvolutionSpec, status: EvolutionStatus) -> RunOutcomes:
    """Return what has happened so far, with the closed generation as the last one."""
    if status.best is None or status.current is None:
        raise ValueError("Publish needs a closed generation")
    return RunOutcomes(
        best=status.best,
        generations=[
            GenerationOutcome(
                generation=record.generation,
                outcome=record.outcome,
                f1=record.f1,
                model_uri=record.model_uri,
                message=record.message,
            )
            for record in status.history
        ],
        baseline_uri=status.baseline_uri or spec.baseline_uri,
        next_policy_uri=next_policy(spec, status),
        changes=status.current.changes,
    )


def _folder(spec: EvolutionSpec, run: str, generation: int, stage: Stage) -> str:
    return f"{spec.storage.uri.rstrip('/')}/{run}/{stage_prefix(generation, stage)}"


def _earlier_evaluations(
    spec: EvolutionSpec, run: str, status: EvolutionStatus
) -> dict[Earlier, str]:
    """Return the manifests of the evaluations that the expression of a generation is paired with.

    The best generation is left out if it is the baseline.
    """
    if status.generation == 0 or status.best is None:
        return {}
    generations = {Earlier.BASELINE: 0}
    if status.best.generation > 0:
        generations[Earlier.BEST] = status.best.generation
    return {
        name: f"{_folder(spec, run, generation, Stage.EVALUATE)}/manifest.json"
        for name, generation in generations.items()
    }


def _replay(spec: EvolutionSpec, run: str, status: EvolutionStatus) -> list[str]:
    """Return the flywheel manifests of the generations in the history, newest first.

    A collapsed generation is left out: it may have no flywheel, and its groups must not spread.
    """
    if spec.flywheel.replay == 0.0:
        return []
    earlier = [
        record.generation
        for record in reversed(status.history)
        if record.kept is not None and record.outcome is not Outcome.COLLAPSED
    ]
    return [f"{_folder(spec, run, g, Stage.FLYWHEEL)}/manifest.json" for g in earlier]
