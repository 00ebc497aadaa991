"""What follows from a stage's result: advance, promote, roll back, or stop. Pure."""

from __future__ import annotations

from datetime import datetime

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, JudgeModel, OnRegression
from selfemo_api.stages import Stage, next_stage, stages_of
from selfemo_api.status import (
    Best,
    Current,
    EvolutionStatus,
    GenerationRecord,
    Outcome,
    Reason,
)
from selfemo_operator.planner.accounting import with_result_counted
from selfemo_operator.planner.collapse import collapse_of
from selfemo_operator.planner.gpus import gpus_of
from selfemo_operator.planner.stage_config import baseline_model, pinned_spec

#: Ends after which the same stage is worth another try once a person has mended the cause.
_FIXABLE = (
    Reason.BAD_INPUT,
    Reason.STAGE_FAILED,
    Reason.DEADLINE_EXCEEDED,
    Reason.PENDING_TOO_LONG,
)


def begin(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus:
    """Return the status with which an evolution starts: generation 0, its evaluation."""
    spec = evolution.spec
    model = baseline_model(spec)
    return evolution.status.model_copy(
        update={
            "generation": 0,
            "stage": Stage.EVALUATE,
            "attempt": 1,
            "start_time": now,
            "current": Current(spec=spec.to_json(), policy_uri=model, judge_uri=model),
        }
    )


def validate_result(status: EvolutionStatus, result: StageResult) -> str | None:
    """Return why a result cannot be the answer of the stage under way, or None where it can."""
    if (result.generation, result.stage) != (status.generation, status.stage):
        return f"it answered for generation {result.generation}, {result.stage.value}"
    if result.stage is Stage.TRAIN and not result.model_uri:
        return "its result names no model"
    selecting = pinned_spec(status).selection_dataset
    if result.stage is Stage.EVALUATE and selecting not in {s.source for s in result.scores}:
        return f"its result has no score of {selecting}"
    return None


def record(
    evolution: EmotionEvolution, status: EvolutionStatus, result: StageResult
) -> tuple[EvolutionStatus, Reason | None, str]:
    """Return the status after a stage's result, and why the evolution ends there (if it does).

    Recording and advancing are one step, so that one status write carries both.
    """
    current = status.current
    if current is None or status.stage is None:
        raise ValueError("no stage is under way")
    spec = pinned_spec(status)
    current = current.model_copy(update={"results": [*current.results, result]})
    status = status.model_copy(
        update={"current": current, "failures": 0, "disruptions": 0, "last_failure": None}
    )
    status = with_result_counted(status, spec, result)
    if result.stage is Stage.SCORE:
        status = status.model_copy(update={"reward": result.metrics.get("rewardMean")})
    collapsed = (
        collapse_of(result, status.baseline, spec.evolution.collapse)
        if status.generation > 0
        else None
    )
    if collapsed:
        return _collapsed(evolution, status, result, collapsed), Reason.COLLAPSED, collapsed
    following = next_stage(status.generation, result.stage)
    if following is not None:
        return status.model_copy(update={"stage": following, "attempt": 1}), None, ""
    status = _close_generation(evolution, status, spec, result)
    reason, message = _stop(evolution.spec, status)
    if reason is None:
        status = _next_generation(evolution, status)
    return status, reason, message


def reopen(
    evolution: EmotionEvolution, status: EvolutionStatus, reason: Reason, now: datetime
) -> EvolutionStatus | None:
    """Return the status with which a finished evolution goes on after an edit, or None.

    An edit of a failed evolution is taken as "mended, try again": the stage under way is tried
    with the spec as it is now. An edit of one that came to its end goes on where the new spec
    leaves room (more generations, a higher goal, more patience). A collapsed one goes on from its
    best. The time at rest counts for no deadline, as if it had been suspended.
    """
    rested = (now - status.completion_time).total_seconds() if status.completion_time else 0.0
    goes_on = {
        "completion_time": None,
        "retry_after": None,
        "failures": 0,
        "disruptions": 0,
        "last_failure": None,
        "suspended_seconds": status.suspended_seconds + max(0.0, rested),
    }
    if reason in _FIXABLE and status.current is not None:
        current = status.current.model_copy(update={"spec": evolution.spec.to_json()})
        changes = {**goes_on, "current": current, "attempt": status.attempt + 1}
        return status.model_copy(update=changes)
    if status.best is None or _stop(evolution.spec, status)[0] is not None:
        return None
    return _next_generation(evolution, status.model_copy(update=goes_on))


def _close_generation(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
) -> EvolutionStatus:
    """Compare the generation with the best, and write it into the history."""
    score = next(s for s in result.scores if s.source == spec.selection_dataset)
    f1 = score.weighted_f1
    model = _model_made(status)
    best = status.best
    if best is None:
        outcome, message = Outcome.BASELINE, "the model as given"
    elif f1 > best.f1 + spec.evolution.min_delta:
        outcome = Outcome.PROMOTED
        message = f"F1 {f1:.4f} is above generation {best.generation}'s {best.f1:.4f}"
    else:
        rolled = spec.evolution.on_regression is not OnRegression.CONTINUE
        outcome = Outcome.ROLLED_BACK if rolled else Outcome.CONTINUED
        message = f"F1 {f1:.4f} is not above generation {best.generation}'s {best.f1:.4f}"
    better = outcome in (Outcome.BASELINE, Outcome.PROMOTED)
    if better:
        best = Best(generation=status.generation, f1=f1, model_uri=model)
    entry = _entry(status, spec, outcome, message, f1)
    return status.model_copy(
        update={
            "best": best,
            "f1": f1,
            "baseline": status.baseline or score,
            "without_improvement": 0 if better else status.without_improvement + 1,
            "history": [*status.history, entry][-evolution.spec.history_limit :],
        }
    )


def _collapsed(
    evolution: EmotionEvolution, status: EvolutionStatus, result: StageResult, message: str
) -> EvolutionStatus:
    """Write a collapsed generation into the history; the best stays what it was."""
    spec = pinned_spec(status)
    scores = {s.source: s.weighted_f1 for s in result.scores}
    f1 = scores.get(spec.selection_dataset)
    entry = _entry(status, spec, Outcome.COLLAPSED, message, f1)
    history = [*status.history, entry][-evolution.spec.history_limit :]
    return status.model_copy(update={"history": history, "f1": status.f1 if f1 is None else f1})


def _entry(
    status: EvolutionStatus, spec: EvolutionSpec, outcome: Outcome, message: str, f1: float | None
) -> GenerationRecord:
    results = status.current.results if status.current else []
    by_stage = {r.stage: r for r in results}
    scored, kept = by_stage.get(Stage.SCORE), by_stage.get(Stage.FLYWHEEL)
    evaluated = by_stage.get(Stage.EVALUATE)
    return GenerationRecord(
        generation=status.generation,
        outcome=outcome,
        message=message,
        f1=f1,
        scores=evaluated.scores if evaluated else [],
        reward=scored.metrics.get("rewardMean") if scored else None,
        consistency=scored.metrics.get("consistencyMean") if scored else None,
        kept=kept.rows if kept else None,
        model_uri=_model_made(status),
        stage_seconds={r.stage.value: r.seconds for r in results},
        gpu_seconds=sum(r.seconds * gpus_of(spec, r.stage) for r in results),
    )


def _model_made(status: EvolutionStatus) -> str:
    trained = status.result(Stage.TRAIN)
    if trained is not None and trained.model_uri:
        return trained.model_uri
    return status.current.policy_uri if status.current else ""


def _stop(spec: EvolutionSpec, status: EvolutionStatus) -> tuple[Reason | None, str]:
    """Return why the evolution ends with this generation; edits of the stop rules count at once."""
    policy, best = spec.evolution, status.best
    if best is None:
        raise ValueError("a closed generation has a best")
    if policy.goal is not None and best.f1 >= policy.goal.f1:
        return Reason.GOAL_REACHED, f"F1 {best.f1:.4f} reached the goal {policy.goal.f1:g}"
    if status.generation >= policy.max_generations:
        done = f"generation {status.generation} was the last; best is {best.generation}"
        return Reason.MAX_GENERATIONS_REACHED, f"{done} with F1 {best.f1:.4f}"
    if status.without_improvement >= policy.patience:
        return Reason.PLATEAUED, (
            f"{status.without_improvement} generations without a better F1 than {best.f1:.4f}"
        )
    if status.without_improvement > 0 and policy.on_regression is OnRegression.STOP:
        return Reason.REGRESSED, f"generation {status.generation} is not better than the best"
    return None, ""


def _next_generation(evolution: EmotionEvolution, status: EvolutionStatus) -> EvolutionStatus:
    """Start the next generation: pin the spec as it is now, and choose its models."""
    spec, best, current = evolution.spec, status.best, status.current
    if best is None or current is None:
        raise ValueError("a closed generation has a best")
    collapsed = bool(status.history) and status.history[-1].outcome is Outcome.COLLAPSED
    goes_on = spec.evolution.on_regression is OnRegression.CONTINUE and not collapsed
    policy = _model_made(status) if goes_on else best.model_uri
    judges = {
        JudgeModel.BASELINE: baseline_model(spec),
        JudgeModel.BEST: best.model_uri,
        JudgeModel.POLICY: policy,
    }
    generation = status.generation + 1
    return status.model_copy(
        update={
            "generation": generation,
            "stage": stages_of(generation)[0],
            "attempt": 1,
            "current": Current(
                spec=spec.to_json(),
                policy_uri=policy,
                judge_uri=judges[spec.reward.judge.model],
            ),
        }
    )
