"""The life of an evolution: it starts, records results, promotes or rolls back, and ends. Pure.

:func:`advance` takes the status from the last pass to this one, as far as the outcome of the
current Job allows. Failed attempts are in :mod:`selfemo_operator.planner.attempts`, deadlines in
:mod:`selfemo_operator.planner.plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from selfemo_api.collapse import crossed_indicator
from selfemo_api.comparison import with_label_prior
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import ScoreMetric
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, OnRegression
from selfemo_api.stage_resources import gpus_of
from selfemo_api.stages import Stage, next_stage, stages_of
from selfemo_api.status import (
    ConditionType,
    EvolutionStatus,
    Outcome,
    Reason,
)
from selfemo_operator.planner.attempts import (
    MAX_BACKOFF_SECONDS,
    after_attempt,
    with_replaced_pods,
)
from selfemo_operator.planner.edits import reopened, restarted, retried
from selfemo_operator.planner.pinning import (
    judge_of,
    pinned,
    pinned_json,
    pinned_spec,
    refusal,
)
from selfemo_operator.planner.promotion import (
    close_collapsed,
    close_generation,
    is_improved,
    next_policy,
)
from selfemo_operator.planner.recovery import attempts_of, fresh_attempt, with_result
from selfemo_operator.planner.replacement import after_lost_job
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
    started = _started(evolution, observed, now)
    status, spec = started.status, started.spec
    if status.finished or started.end is not None:
        return started
    status = _with_suspension(status, evolution.spec.suspend, now)
    job = _current_job(status, observed)
    if job is not None and not evolution.spec.suspend:
        status = with_replaced_pods(status, job)
    next_attempt = after_lost_job(evolution, status, spec, job, observed, now)
    if next_attempt is not None:
        return next_attempt
    if evolution.spec.suspend:
        return Progress(status, spec, job)
    edited = restarted(evolution.spec, status, observed.jobs)
    if edited is not None and status.stage is not None:
        replaced = AttemptOutcome(status.stage)
        return Progress(edited, pinned_spec(edited), outcome=replaced)
    status = _after_backoff(status, now)
    if job is None or not job.state.is_final:
        return Progress(status, spec, job)
    progress = after_attempt(evolution, status, spec, job, observed.jobs, now)
    if isinstance(progress, StageResult):
        progress = record_result(evolution, status, spec, progress, observed.jobs)
    return replace(progress, job=_current_job(progress.status, observed))


def _started(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Progress:
    """Return an evolution that has started, and that an edit of its spec may have reopened.

    A spec that breaks a rule is never pinned: the evolution then ends, and the next edit opens it
    again.
    """
    status = evolution.status
    if status.finished and not _is_reopened(evolution):
        return Progress(status, evolution.spec)
    if status.finished:
        status = reopened(status, now)
    elif status.current is not None:
        return Progress(status, pinned_spec(status))
    is_complete = status.result(Stage.PUBLISH) is not None
    end = _end_of(evolution.spec, status) if is_complete else None
    spec = with_label_prior(evolution.spec, status.label_prior)
    end = end or refusal(spec, status)
    if end is not None:
        return Progress(status, evolution.spec, end=end)
    if status.current is None:
        status = begin(evolution.model_copy(update={"status": status}), now)
    elif is_complete:
        status = _next_generation(evolution.spec, status)
    else:
        status = retried(evolution.spec, status, observed.jobs)
    return Progress(status, pinned_spec(status))


def begin(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus:
    """Return the status with which an evolution starts: the check of its input."""
    model = evolution.spec.baseline_uri
    changes: StatusChanges = {
        "generation": 0,
        "uri": f"{evolution.spec.storage.uri.rstrip('/')}/{evolution.run}",
        "stage": stages_of(0)[0],
        "attempt": 1,
        "start_time": now,
        "current": pinned(evolution.spec, policy=model, judge=model),
    }
    return evolution.status.model_copy(update=changes)


def _is_reopened(evolution: EmotionEvolution) -> bool:
    """Return whether an edit of the spec lets a finished evolution continue.

    An edit of a failed evolution means that the cause was fixed. An edit of one that came to its
    end continues if the new spec allows it: more generations, a higher goal, more patience. A
    collapsed one continues from its best generation. While `suspend` is true, none continues.
    """
    status = evolution.status
    if evolution.spec.suspend:
        return False
    summary = status.condition(ConditionType.SUCCEEDED)
    if summary is None or evolution.metadata.generation <= status.observed_generation:
        return False
    if Reason(summary.reason) in _FIXABLE:
        return True
    return status.best is not None and _end_of(evolution.spec, status) is None


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
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
    jobs: Sequence[StageJob] = (),
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
    jobs
        All Jobs of the evolution. In a recovery, later stages may have some.
    """
    status, results = _with_stage_result(status, spec, result)
    if result.stage is Stage.CHECK:
        status = _with_pinned_label_prior(status, spec)
        spec = pinned_spec(status)
    gpu_seconds = {r.stage: r.seconds * gpus_of(spec, r.stage) for r in results}
    outcome = AttemptOutcome(result.stage, result, result.seconds * gpus_of(spec, result.stage))
    improved = is_improved(status.best, result, spec)
    imitation = spec.training.imitation > 0.0
    bounds = spec.stopping.collapse
    collapse = crossed_indicator(
        result, status.baseline, bounds, improved=improved, imitation=imitation
    )
    following = next_stage(status.generation, result.stage, warm_start=spec.has_warm_start)
    if collapse and status.generation > 0:
        status = close_collapsed(status, spec, result, collapse, gpu_seconds)
        following = Stage.PUBLISH
    elif result.stage is Stage.EVALUATE:
        status = close_generation(status, spec, result, gpu_seconds)
    if following is not None:
        to_stage: StatusChanges = {
            "stage": following,
            "attempt": _first_attempt(status, following, jobs),
        }
        return Progress(status.model_copy(update=to_stage), spec, outcome=outcome)
    end = _collapse_of(status) or _end_of(evolution.spec, status)
    end = end or refusal(with_label_prior(evolution.spec, status.label_prior), status)
    if end is not None:
        return Progress(status, spec, end=end, outcome=outcome)
    status = _next_generation(evolution.spec, status)
    return Progress(status, pinned_spec(status), outcome=outcome)


def _with_stage_result(
    status: EvolutionStatus, spec: EvolutionSpec, result: StageResult
) -> tuple[EvolutionStatus, Sequence[StageResult]]:
    """Return the status with a result of the current stage, and all results of the generation."""
    current, recovery = status.current, status.recovery
    if current is None:
        raise ValueError("no generation is in progress")
    results = with_result(current.results, result)
    changes: StatusChanges = {
        "current": current.model_copy(update={"results": results}),
        "failures": 0,
        "disruptions": 0,
        "replaced_pods": 0,
        "recent_replacements": None,
        "last_failure": None,
        "recovery": None if recovery and recovery.until is result.stage else recovery,
    }
    if result.stage is Stage.SCORE:
        changes["reward"] = result.metrics.get(ScoreMetric.REWARD_MEAN)
    if result.stage is Stage.CHECK and result.label_shares:
        labels = spec.dataset.labels
        changes["label_prior"] = dict(zip(labels, result.label_shares, strict=True))
    return status.model_copy(update=changes), results


def _first_attempt(status: EvolutionStatus, stage: Stage, jobs: Sequence[StageJob]) -> int:
    """Return the number of the attempt with which a stage begins."""
    if status.recovery is not None:
        return fresh_attempt(status, stage, jobs)
    if status.generation == 0:
        # An edit of the warm start may have led back to an earlier stage.
        return attempts_of(status, stage) + 1
    return 1


def _collapse_of(status: EvolutionStatus) -> End | None:
    """Return the end that the collapse of the generation in progress brings, or None."""
    record = status.history[-1]
    if record.generation != status.generation or record.outcome is not Outcome.COLLAPSED:
        return None
    return End(Reason.COLLAPSED, record.message)


def _with_pinned_label_prior(status: EvolutionStatus, spec: EvolutionSpec) -> EvolutionStatus:
    """Return the status with the label prior that the check counted in the pinned spec."""
    if status.current is None:
        raise ValueError("no generation is in progress")
    update = {"spec": pinned_json(with_label_prior(spec, status.label_prior))}
    changes: StatusChanges = {"current": status.current.model_copy(update=update)}
    return status.model_copy(update=changes)


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
    best = status.best
    if best is None:
        raise ValueError("a closed generation has a best one")
    policy = next_policy(spec, status)
    generation = status.generation + 1
    spec = with_label_prior(spec, status.label_prior)
    judge = judge_of(spec, status, policy=policy, best=best)
    changes: StatusChanges = {
        "generation": generation,
        "stage": stages_of(generation)[0],
        "attempt": 1,
        "current": pinned(spec, policy=policy, judge=judge, best=best),
        "recoveries": 0,
        "recovery": None,
    }
    return status.model_copy(update=changes)
