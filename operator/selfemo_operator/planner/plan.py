"""The planner: what to do next, from the resource and its Jobs alone.

``plan`` is pure (no I/O, no clock, no kopf) and level-based: it never relies on having seen an
event, and calling it twice is harmless. The operator and the local runner both call it, so a run on
one machine takes the same decisions as a cluster does.

It answers with the whole new status and at most one action. Whoever carries the answer out writes
the status first and acts only if that write succeeded; a crash between the two is mended by the
next pass, which asks for the same action again. So a result is always in the status before its Job
may be deleted.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import STAGE_ORDER, Stage, job_name
from selfemo_api.status import FAILURE_MAX, ConditionType, EvolutionStatus, Reason, StageFailure
from selfemo_operator.planner.accounting import with_end_counted, with_failure_counted
from selfemo_operator.planner.conditions import with_conditions, with_observed_generation
from selfemo_operator.planner.lifecycle import begin, record, reopen, validate_result
from selfemo_operator.planner.stage_config import stage_config
from selfemo_operator.planner.types import (
    Action,
    CreateJob,
    Decision,
    DeleteEvolution,
    DeleteJob,
    Failure,
    JobState,
    Observed,
    ResumeJob,
    StageJob,
    SuspendJob,
)

#: The name by which `spec.managedBy` means this operator.
MANAGER = "selfemo.dev/operator"
#: A second look where the status read is older than the Jobs.
STALE_WAIT = timedelta(seconds=2)
#: A watch lags by seconds. A status that is still behind a Job after a minute is not stale: it was
#: restored from a backup, and will not catch up by itself.
STALE_LIMIT = timedelta(minutes=1)
#: Longest wait between two tries of a stage: S3 or a node may be back within ten minutes.
MAX_BACKOFF_SECONDS = 600
#: Exit codes that say "the outside took it away", besides the platform's own word.
_DISRUPTED_EXITS = (ExitCode.UNAVAILABLE, ExitCode.TERMINATED)

_End = tuple[Reason, str] | None


def plan(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Decision:
    """Return the next status and at most one action.

    Parameters
    ----------
    evolution
        Spec and last status.
    observed
        The evolution's Jobs.
    now
        Aware time; decisions never look at another clock.
    """
    spec, status = evolution.spec, evolution.status
    if spec.managed_by not in (None, MANAGER):
        return Decision(status)
    if _is_stale(status, observed, now):
        return Decision(status, requeue_at=now + STALE_WAIT)
    if status.finished:
        reopened = _reopened(evolution, now)
        if reopened is None:
            return _at_rest(evolution, observed, now)
        status = reopened
    if status.current is None:
        status = begin(evolution, now)
    status = _account_suspension(status, spec.suspend, now)
    end: _End = None
    job = _current_job(status, observed)
    if not spec.suspend:
        status, end = _advance(evolution, status, job, now)
        job = _current_job(status, observed)
        end = end or _past_deadline(evolution, status, job, now)
        if end is None and job is None and observed.refusal:
            end = (Reason.BAD_INPUT, observed.refusal)
    if end is not None:
        status = with_end_counted(status, end[0])
        status = status.model_copy(update={"completion_time": now, "retry_after": None})
    if end is not None or _position(status) != _position(evolution.status):
        status = status.model_copy(update={"last_progress_time": now})
    status = with_conditions(
        status,
        now=now,
        observed_generation=evolution.metadata.generation,
        suspended=spec.suspend,
        job=job,
        trouble=observed.trouble if job is None else "",
        end=end,
    )
    action = _action(evolution, status, observed, job)
    return Decision(status, action, _requeue(evolution, status, job))


def _is_stale(status: EvolutionStatus, observed: Observed, now: datetime) -> bool:
    """Whether a Job is ahead of the status that was just read: then nothing is certain.

    A status that stays behind was restored: the run goes on from it. Jobs ahead that are still at
    work are deleted first, and stages that were done answer from their manifests.
    """
    return any(
        _order(job) > _position(status)
        and job.create_time is not None
        and abs(now - job.create_time) < STALE_LIMIT
        for job in observed.jobs
    )


def _order(job: StageJob) -> tuple[int, int, int]:
    return job.generation, STAGE_ORDER.index(job.stage), job.attempt


def _position(status: EvolutionStatus) -> tuple[int, int, int]:
    if status.current is None or status.stage is None:
        return 0, STAGE_ORDER.index(Stage.EVALUATE), 1
    return status.generation, STAGE_ORDER.index(status.stage), status.attempt


def _current_job(status: EvolutionStatus, observed: Observed) -> StageJob | None:
    if status.stage is None:
        return None
    return observed.find(status.generation, status.stage, status.attempt)


def _account_suspension(status: EvolutionStatus, suspend: bool, now: datetime) -> EvolutionStatus:
    """Keep the time spent suspended, which no deadline counts."""
    began = status.suspended_time
    if suspend and began is None:
        return status.model_copy(update={"suspended_time": now})
    if not suspend and began is not None:
        # A clock that was put back must not shorten what was counted before.
        total = status.suspended_seconds + max(0.0, (now - began).total_seconds())
        return status.model_copy(update={"suspended_time": None, "suspended_seconds": total})
    return status


def _advance(
    evolution: EmotionEvolution, status: EvolutionStatus, job: StageJob | None, now: datetime
) -> tuple[EvolutionStatus, _End]:
    """Take in what the current Job has come to."""
    after = status.retry_after
    if after is not None and not now < after <= now + timedelta(seconds=MAX_BACKOFF_SECONDS):
        # The time has come, or the clock was put back and the time means nothing.
        status = status.model_copy(update={"retry_after": None})
    if job is None or not job.state.is_final:
        return status, None
    if job.state is JobState.SUCCEEDED and job.result is not None:
        flaw = validate_result(status, job.result)
        if flaw is not None:
            return _retry(evolution, status, Failure(flaw), now)
        status, reason, message = record(evolution, status, job.result)
        return status, (reason, message) if reason else None
    if job.state is JobState.SUCCEEDED:
        # The message was lost with its pod: the next attempt answers from the manifest.
        failure = Failure("its result was lost; it is read again from the manifest", disrupted=True)
    else:
        failure = job.failure or Failure("it failed without a word")
    if failure.deadline:
        return status, (Reason.DEADLINE_EXCEEDED, f"{job.name}: {failure.message}")
    return _retry(evolution, status, failure, now)


def _retry(
    evolution: EmotionEvolution, status: EvolutionStatus, failure: Failure, now: datetime
) -> tuple[EvolutionStatus, _End]:
    """Count a failed attempt, and try again or give up."""
    stage = status.stage.value if status.stage else ""
    where = f"generation {status.generation}, {stage}: {failure.message}"
    if failure.exit_code == ExitCode.BAD_INPUT:
        return status, (Reason.BAD_INPUT, where)
    policy = evolution.spec.failure_policy
    disrupted = failure.disrupted or failure.exit_code in _DISRUPTED_EXITS
    status = with_failure_counted(
        status, StageFailure.DISRUPTED if disrupted else StageFailure.FAILED
    )
    failures = status.failures + (not disrupted)
    disruptions = status.disruptions + disrupted
    status = status.model_copy(
        update={
            "failures": failures,
            "disruptions": disruptions,
            "last_failure": failure.message[:FAILURE_MAX],
        }
    )
    if failures >= policy.max_attempts or disruptions > policy.max_disruptions:
        return status, (Reason.STAGE_FAILED, where)
    tries = failures + disruptions
    wait = min(policy.backoff_seconds * 2 ** min(tries - 1, 16), MAX_BACKOFF_SECONDS)
    if failure.disrupted:
        wait = 0  # the platform queues and backs off by itself
    return (
        status.model_copy(
            update={"attempt": status.attempt + 1, "retry_after": now + timedelta(seconds=wait)}
        ),
        None,
    )


def _past_deadline(
    evolution: EmotionEvolution, status: EvolutionStatus, job: StageJob | None, now: datetime
) -> _End:
    """Return the deadline that has passed, if one has."""
    for at, reason, message in _deadlines(evolution, status, job):
        if now >= at:
            return reason, message
    return None


def _deadlines(
    evolution: EmotionEvolution, status: EvolutionStatus, job: StageJob | None
) -> list[tuple[datetime, Reason, str]]:
    """Return all deadlines that run now."""
    bounds = evolution.spec.deadlines
    found = []
    if bounds.run_active_seconds is not None and status.start_time is not None:
        seconds = bounds.run_active_seconds + status.suspended_seconds
        at = status.start_time + timedelta(seconds=seconds)
        message = f"the run passed `deadlines.runActiveSeconds` ({bounds.run_active_seconds})"
        found.append((at, Reason.DEADLINE_EXCEEDED, message))
    if job is None:
        return found
    if job.state is JobState.RUNNING and job.start_time and bounds.stage_active_seconds:
        at = job.start_time + timedelta(seconds=bounds.stage_active_seconds)
        message = (
            f"{job.name} passed `deadlines.stageActiveSeconds` ({bounds.stage_active_seconds})"
        )
        found.append((at, Reason.DEADLINE_EXCEEDED, message))
    if job.state in (JobState.PENDING, JobState.RUNNING) and job.pending_since is not None:
        # One pod that never starts holds up those that run: the stage cannot end without it.
        at = job.pending_since + timedelta(seconds=bounds.stage_pending_seconds)
        why = job.waiting or "no pod has started"
        found.append((at, Reason.PENDING_TOO_LONG, f"{job.name}: {why}"))
    return found


def _action(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    observed: Observed,
    job: StageJob | None,
) -> Action | None:
    """Return the one thing to do for this status."""
    for other in observed.jobs:
        wanted = not status.finished and job is not None and other.name == job.name
        if not other.state.is_final and not wanted:
            return DeleteJob(other.name, "it is not the stage under way")
    if status.finished or status.stage is None:
        return None
    if evolution.spec.suspend:
        return _stop_job(job)
    if job is None:
        return _create(evolution, status, status.stage)
    if job.outdated and job.state in (JobState.PENDING, JobState.QUEUED, JobState.SUSPENDED):
        return DeleteJob(job.name, "it has not started, and its pod template was edited")
    return ResumeJob(job.name) if job.state is JobState.SUSPENDED else None


def _create(evolution: EmotionEvolution, status: EvolutionStatus, stage: Stage) -> Action | None:
    if status.retry_after is not None:
        return None
    name = job_name(evolution.metadata.name, status.generation, stage, status.attempt)
    return CreateJob(name, status.attempt, stage_config(evolution, status, stage))


def _stop_job(job: StageJob | None) -> Action | None:
    """Return what stops the stage under way while the evolution is suspended."""
    if job is None or job.state.is_final:
        return None
    if job.queued:
        # A queue starts what it has admitted, whoever suspended it: the same attempt is made again
        # when the evolution goes on.
        return DeleteJob(job.name, "the evolution is suspended")
    return SuspendJob(job.name) if job.state is not JobState.SUSPENDED else None


def _requeue(
    evolution: EmotionEvolution, status: EvolutionStatus, job: StageJob | None
) -> datetime | None:
    """Return the next moment at which time alone changes the answer."""
    if status.finished:
        return _expiry(evolution, status)
    if evolution.spec.suspend:
        return None
    times = [at for at, _, _ in _deadlines(evolution, status, job)]
    if status.retry_after is not None:
        times.append(status.retry_after)
    return min(times, default=None)


def _expiry(evolution: EmotionEvolution, status: EvolutionStatus) -> datetime | None:
    ttl = evolution.spec.ttl_seconds_after_finished
    if ttl is None or status.completion_time is None:
        return None
    return status.completion_time + timedelta(seconds=ttl)


def _at_rest(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Decision:
    """A finished evolution: no Job may go on, and it is deleted when its time has passed."""
    status = with_observed_generation(evolution.status, evolution.metadata.generation)
    expiry = _expiry(evolution, status)
    action = _action(evolution, status, observed, None)
    if expiry is None or now < expiry:
        return Decision(status, action, expiry)
    return Decision(status, action or DeleteEvolution())


def _reopened(evolution: EmotionEvolution, now: datetime) -> EvolutionStatus | None:
    """Return the status of a finished evolution that an edit lets go on, or None."""
    status = evolution.status
    summary = status.condition(ConditionType.SUCCEEDED)
    if summary is None or evolution.metadata.generation <= status.observed_generation:
        return None
    return reopen(evolution, status, Reason(summary.reason), now)
