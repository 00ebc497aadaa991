"""The life of an evolution: it starts, records results, promotes or rolls back, and ends. Pure.

:func:`advance` takes the status from the last pass to this one, as far as the outcome of the
current Job allows. Failed attempts are in :mod:`selfemo_operator.planner.attempts`, deadlines in
:mod:`selfemo_operator.planner.plan`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

from selfemo_api.collapse import crossed_bound
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import ScoreMetric
from selfemo_api.recipes import changed_settings
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, JudgeModel, OnRegression
from selfemo_api.stage_resources import gpus_of
from selfemo_api.stages import Stage, next_stage, stages_of
from selfemo_api.status import (
    HISTORY_LIMIT,
    Best,
    ConditionType,
    Current,
    EvolutionStatus,
    GenerationRecord,
    Outcome,
    Reason,
)
from selfemo_operator.planner.attempts import MAX_BACKOFF_SECONDS, after_attempt
from selfemo_operator.planner.types import (
    AttemptOutcome,
    End,
    Observed,
    Progress,
    StageJob,
    StatusChanges,
)

#: Ends after which the same stage may succeed once a user has fixed the cause.
_FIXABLE = (
    Reason.BAD_INPUT,
    Reason.STAGE_FAILED,
    Reason.DEADLINE_EXCEEDED,
    Reason.PENDING_TOO_LONG,
)


def advance(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Progress:
    """Return the evolution after the outcome of its current Job.

    Parameters
    ----------
    evolution
        The resource: its spec and the last status that was written.
    observed
        The evolution's Jobs as they are now.
    now
        The current time, with a time zone.

    Returns
    -------
    Progress
        The status is finished if the evolution has ended in an earlier pass and no edit of the
        spec lets it continue. An end in this pass is in ``end``; the status does not show it yet.
    """
    status = _started(evolution, now)
    if status.finished or status.current is None:
        return Progress(status, evolution.spec)
    spec = EvolutionSpec.model_validate(status.current.spec)
    status = _with_suspension(status, evolution.spec.suspend, now)
    job = _current_job(status, observed)
    if evolution.spec.suspend:
        return Progress(status, spec, job)
    status = _after_backoff(status, now)
    if job is None or not job.state.is_final:
        return Progress(status, spec, job)
    progress = after_attempt(evolution, status, spec, job, now)
    if isinstance(progress, StageResult):
        progress = record_result(evolution, status, spec, progress)
    return replace(progress, job=_current_job(progress.status, observed))


def begin(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus:
    """Return the status with which an evolution starts: the check of its input."""
    model = evolution.spec.baseline_uri
    changes: StatusChanges = {
        "generation": 0,
        "stage": stages_of(0)[0],
        "attempt": 1,
        "start_time": now,
        "current": _pinned(evolution.spec, policy=model, judge=model),
    }
    return evolution.status.model_copy(update=changes)


def _pinned(spec: EvolutionSpec, *, policy: str, judge: str) -> Current:
    """Return the start of a generation: its spec, with the values of its recipe, and its models.

    Parameters
    ----------
    spec
        The spec as it is now.
    policy, judge
        The URIs of the generation's models.
    """
    changes = [
        f"{path}={json.dumps(value)}"[:256] for path, value in changed_settings(spec).items()
    ]
    return Current(spec=spec.to_json(), policy_uri=policy, judge_uri=judge, changes=changes[:64])


def _with_label_prior(spec: EvolutionSpec, status: EvolutionStatus) -> EvolutionSpec:
    """Return a spec with the shares of the labeled sources, if it has no label prior of its own."""
    if spec.dataset.label_prior is not None or status.label_prior is None:
        return spec
    dataset = spec.dataset.model_copy(update={"label_prior": status.label_prior})
    return spec.model_copy(update={"dataset": dataset})


def _started(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus:
    """Return the status of an evolution that has started, and that an edit may have reopened."""
    if evolution.status.finished:
        return _reopened(evolution, now) or evolution.status
    return evolution.status if evolution.status.current else begin(evolution, now)


def _reopened(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus | None:
    """Return the status with which a finished evolution continues after an edit, or None.

    An edit of a failed evolution means that the cause was fixed: the current stage is attempted
    again with the spec as it is now. An edit of one that came to its end continues if the new spec
    allows it (more generations, a higher goal, more patience). A collapsed one continues from its
    best generation. The time since the end does not count for deadlines, as if it was suspended.
    """
    status = evolution.status
    summary = next((c for c in status.conditions if c.type is ConditionType.SUCCEEDED), None)
    if summary is None or evolution.metadata.generation <= status.observed_generation:
        return None
    rested = (now - status.completion_time).total_seconds() if status.completion_time else 0.0
    changes: StatusChanges = {
        "completion_time": None,
        "retry_after": None,
        "failures": 0,
        "disruptions": 0,
        "last_failure": None,
        "suspended_seconds": status.suspended_seconds + max(0.0, rested),
    }
    if Reason(summary.reason) in _FIXABLE and status.current is not None:
        spec = _with_label_prior(evolution.spec, status)
        pinned = _pinned(
            spec, policy=status.current.policy_uri, judge=status.current.judge_uri
        ).model_copy(update={"results": status.current.results})
        changes |= {"current": pinned, "attempt": status.attempt + 1}
        return status.model_copy(update=changes)
    if status.best is None or _end_of(evolution.spec, status) is not None:
        return None
    return _next_generation(evolution.spec, status.model_copy(update=changes))


def _with_suspension(status: EvolutionStatus, suspend: bool, now: datetime) -> EvolutionStatus:
    """Return the status with the time spent suspended, which does not count for deadlines."""
    suspended_since = status.suspended_time
    changes: StatusChanges = {}
    if suspend and suspended_since is None:
        changes = {"suspended_time": now}
    if not suspend and suspended_since is not None:
        # A clock that was set back must not shorten the time that was counted before.
        seconds = max(0.0, (now - suspended_since).total_seconds())
        total = status.suspended_seconds + seconds
        changes = {"suspended_time": None, "suspended_seconds": total}
    return status.model_copy(update=changes) if changes else status


def _current_job(status: EvolutionStatus, observed: Observed) -> StageJob | None:
    """Return the Job of the current stage and attempt, if it exists."""
    key = (status.generation, status.stage, status.attempt)
    return next((job for job in observed.jobs if job.key == key), None)


def _after_backoff(status: EvolutionStatus, now: datetime) -> EvolutionStatus:
    """Return the status without the time of the next attempt, once that has come.

    If the clock was set back, the time means nothing and is dropped, too.
    """
    after = status.retry_after
    if after is None or now < after <= now + timedelta(seconds=MAX_BACKOFF_SECONDS):
        return status
    changes: StatusChanges = {"retry_after": None}
    return status.model_copy(update=changes)


def record_result(
    evolution: EmotionEvolution, status: EvolutionStatus, spec: EvolutionSpec, result: StageResult
) -> Progress:
    """Return the evolution after a stage's result.

    Recording and advancing are one step, so that one status write carries both.

    Parameters
    ----------
    evolution
        The resource. Its own stopping rules count, edits included.
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    result
        A valid result of the current stage.
    """
    current = status.current
    if current is None:
        raise ValueError("no generation is in progress")
    gpu_seconds = {r.stage: r.seconds * gpus_of(spec, r.stage) for r in (*current.results, result)}
    outcome = AttemptOutcome(result.stage, result, gpu_seconds[result.stage])
    changes: StatusChanges = {
        "current": current.model_copy(update={"results": [*current.results, result]}),
        "failures": 0,
        "disruptions": 0,
        "last_failure": None,
    }
    if result.stage is Stage.SCORE:
        changes["reward"] = result.metrics.get(ScoreMetric.REWARD_MEAN)
    if result.stage is Stage.CHECK and result.label_prior is not None:
        changes["label_prior"] = result.label_prior
    status = status.model_copy(update=changes)
    status, spec = _after_check(status, spec) if result.stage is Stage.CHECK else (status, spec)
    collapse = crossed_bound(result, status.baseline, spec.stopping.collapse)
    if collapse and status.generation > 0:
        status = _collapsed(status, spec, result, collapse, gpu_seconds)
        return Progress(status, spec, end=End(Reason.COLLAPSED, collapse), outcome=outcome)
    following = next_stage(status.generation, result.stage, warm_start=spec.has_warm_start)
    if following is not None:
        to_stage: StatusChanges = {"stage": following, "attempt": 1}
        return Progress(status.model_copy(update=to_stage), spec, outcome=outcome)
    status = _close_generation(status, spec, result, gpu_seconds)
    end = _end_of(evolution.spec, status)
    if end is not None:
        return Progress(status, spec, end=end, outcome=outcome)
    status = _next_generation(evolution.spec, status)
    return Progress(status, evolution.spec, outcome=outcome)


def _after_check(
    status: EvolutionStatus, spec: EvolutionSpec
) -> tuple[EvolutionStatus, EvolutionSpec]:
    """Return the status and the pinned spec with the label prior that the check counted."""
    spec = _with_label_prior(spec, status)
    if status.current is None:
        raise ValueError("no generation is in progress")
    current = status.current.model_copy(update={"spec": spec.to_json()})
    changes: StatusChanges = {"current": current}
    return status.model_copy(update=changes), spec


def _close_generation(
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
    gpu_seconds: dict[Stage, float],
) -> EvolutionStatus:
    """Promote the generation or roll it back, and write it into the history.

    Parameters
    ----------
    status
        The status, with all results of the generation.
    spec
        The spec pinned for the generation.
    result
        The result of its evaluation.
    gpu_seconds
        GPU seconds of each stage of the generation.
    """
    score = next(s for s in result.scores if s.source == spec.selection_dataset)
    f1 = score.weighted_f1
    best = status.best
    if best is None:
        outcome, message = Outcome.BASELINE, "the baseline model"
    elif f1 > best.f1 + spec.promotion.min_delta:
        outcome = Outcome.PROMOTED
        message = f"F1 {f1:.4f} is above generation {best.generation}'s {best.f1:.4f}"
    else:
        rolled_back = spec.promotion.on_regression is not OnRegression.CONTINUE
        outcome = Outcome.ROLLED_BACK if rolled_back else Outcome.CONTINUED
        message = f"F1 {f1:.4f} is not above generation {best.generation}'s {best.f1:.4f}"
    is_better = outcome in (Outcome.BASELINE, Outcome.PROMOTED)
    if is_better:
        best = Best(generation=status.generation, f1=f1, model_uri=_model_of(status))
    record = _generation_record(status, outcome, message, f1, gpu_seconds)
    changes: StatusChanges = {
        "best": best,
        "f1": f1,
        "baseline": status.baseline or score,
        "baseline_uri": status.baseline_uri or _model_of(status),
        "without_improvement": 0 if is_better else status.without_improvement + 1,
        "history": [*status.history, record][-HISTORY_LIMIT:],
    }
    return status.model_copy(update=changes)


def _collapsed(
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
    message: str,
    gpu_seconds: dict[Stage, float],
) -> EvolutionStatus:
    """Write a collapsed generation into the history; the best generation stays what it was."""
    scores = {s.source: s.weighted_f1 for s in result.scores}
    f1 = scores.get(spec.selection_dataset)
    record = _generation_record(status, Outcome.COLLAPSED, message, f1, gpu_seconds)
    changes: StatusChanges = {"history": [*status.history, record][-HISTORY_LIMIT:]}
    if f1 is not None:
        changes["f1"] = f1
    return status.model_copy(update=changes)


def _generation_record(
    status: EvolutionStatus,
    outcome: Outcome,
    message: str,
    f1: float | None,
    gpu_seconds: dict[Stage, float],
) -> GenerationRecord:
    results = {r.stage: r for r in status.current.results} if status.current else {}
    scored, kept = results.get(Stage.SCORE), results.get(Stage.FLYWHEEL)
    evaluated = results.get(Stage.EVALUATE)
    return GenerationRecord(
        generation=status.generation,
        outcome=outcome,
        message=message,
        f1=f1,
        scores=evaluated.scores if evaluated else [],
        reward=scored.metrics.get(ScoreMetric.REWARD_MEAN) if scored else None,
        consistency=scored.metrics.get(ScoreMetric.CONSISTENCY_MEAN) if scored else None,
        kept=kept.rows if kept else None,
        model_uri=_model_of(status),
        stage_seconds={stage.value: r.seconds for stage, r in results.items()},
        gpu_seconds=sum(gpu_seconds.values()),
    )


def _model_of(status: EvolutionStatus) -> str:
    """Return the URI of the model that the current generation is about."""
    if status.current is None:
        return ""
    trained = next((r for r in status.current.results if r.model_uri), None)
    return (trained and trained.model_uri) or status.current.policy_uri


def _end_of(spec: EvolutionSpec, status: EvolutionStatus) -> End | None:
    """Return why the evolution ends with this generation, or None.

    Parameters
    ----------
    spec
        The spec as it is now: edits of the stopping rules count at once.
    status
        The status, with a generation that is closed.
    """
    stopping, best = spec.stopping, status.best
    if best is None:
        raise ValueError("a closed generation has a best one")
    if stopping.goal is not None and best.f1 >= stopping.goal:
        return End(Reason.GOAL_REACHED, f"F1 {best.f1:.4f} reached the goal {stopping.goal:g}")
    if status.generation >= stopping.max_generations:
        message = f"generation {status.generation} was the last; best is {best.generation}"
        return End(Reason.MAX_GENERATIONS_REACHED, f"{message} with F1 {best.f1:.4f}")
    if status.without_improvement >= stopping.patience:
        message = f"{status.without_improvement} generations without a better F1 than"
        return End(Reason.PLATEAUED, f"{message} {best.f1:.4f}")
    if status.without_improvement > 0 and spec.promotion.on_regression is OnRegression.STOP:
        message = f"generation {status.generation} is not better than the best"
        return End(Reason.REGRESSED, message)
    return None


def _next_generation(spec: EvolutionSpec, status: EvolutionStatus) -> EvolutionStatus:
    """Start the next generation: pin the spec as it is now, and choose its models."""
    best, current = status.best, status.current
    if best is None or current is None:
        raise ValueError("a closed generation has a best one")
    collapsed = bool(status.history) and status.history[-1].outcome is Outcome.COLLAPSED
    continues = spec.promotion.on_regression is OnRegression.CONTINUE and not collapsed
    policy = _model_of(status) if continues else best.model_uri
    judges = {
        JudgeModel.BASELINE: status.baseline_uri or spec.baseline_uri,
        JudgeModel.BEST: best.model_uri,
        JudgeModel.POLICY: policy,
    }
    generation = status.generation + 1
    spec = _with_label_prior(spec, status)
    changes: StatusChanges = {
        "generation": generation,
        "stage": stages_of(generation)[0],
        "attempt": 1,
        "current": _pinned(spec, policy=policy, judge=judges[spec.reward.judge.model]),
    }
    return status.model_copy(update=changes)
