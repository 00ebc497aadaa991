"""The planner: decides what to do next from the resource and its Jobs alone.

:func:`plan` is pure (no I/O, no clock, no kopf) and level-based: it does not rely on having seen an
event, and calling it twice is harmless. The operator and the local runner both call it, so a run on
one machine takes the same decisions as a run on a cluster.

It returns the whole new status and at most one action. The caller writes the status first and acts
only if that write succeeded. After a crash between the two, the next pass returns the same action
again. So a result is always in the status before its Job may be deleted.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import EvolutionStatus, Phase, Reason
from selfemo_operator.planner.accounting import with_attempts_counted
from selfemo_operator.planner.attempts import replacements_end
from selfemo_operator.planner.conditions import with_conditions
from selfemo_operator.planner.lifecycle import advance
from selfemo_operator.planner.recovery import is_superseded
from selfemo_operator.planner.replacement import NO_POD_LIMIT
from selfemo_operator.planner.stage_config import create_job
from selfemo_operator.planner.types import (
    Action,
    Decision,
    DeleteEvolution,
    DeleteJob,
    End,
    JobState,
    Observed,
    Progress,
    ResumeJob,
    SetDeadline,
    StageJob,
    StatusChanges,
    SuspendJob,
)

#: Time until the next pass when the status that was read is older than the Jobs.
STALE_WAIT = timedelta(seconds=2)
#: A watch lags by seconds. A status that is behind its Jobs for a minute is not stale: it was
#: restored from a backup, and no newer one will arrive.
STALE_LIMIT = timedelta(minutes=1)
#: Time until the next look at a pod of an earlier attempt that has not ended. No watch reports its
#: end, and most pods end within the two minutes that they have.
LIVE_POD_WAIT = timedelta(seconds=10)


def plan(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Decision:
    """Return the next status and at most one action.

    `spec.managedBy` changes nothing: the operator does not plan an evolution of another controller,
    and the local runner runs each file that it is given.

    Parameters
    ----------
    evolution
        The resource: its spec and the last status that was written.
    observed
        The evolution's Jobs as they are now.
    now
        The current time, with a time zone. The planner reads no other clock.

    Returns
    -------
    Decision
        The status to write, the action to take after that, and when to plan again.
    """
    if _is_stale(evolution.status, observed, now):
        return Decision(evolution.status, requeue_at=now + STALE_WAIT)
    progress = advance(evolution, observed, now)
    status, job, at_rest = progress.status, progress.job, progress.status.finished
    end: End | None = None
    if not at_rest:
        end = progress.end or _end_now(evolution, progress, observed, now)
        status = with_attempts_counted(status, progress.outcome, end)
        status = _with_times(evolution.status, status, end, now)
    status = with_conditions(
        status,
        now=now,
        observed_generation=evolution.metadata.generation,
        suspended=evolution.spec.suspend,
        job=job,
        trouble=_trouble(observed) if job is None else "",
        end=end,
    )
    if status.phase is Phase.RUNNING and evolution.status.phase is not Phase.RUNNING:
        # the time in a queue, or of a suspension, is not time without progress
        status = status.model_copy(update={"last_progress_time": now})
    action = progress.deletion or _action(evolution, status, progress.spec, observed, job)
    if at_rest and _is_expired(evolution, status, now):
        return Decision(status, action or DeleteEvolution())
    return Decision(status, action, _requeue(evolution, status, observed, job, now))


def _trouble(observed: Observed) -> str:
    """Return why the next Job is not created, or an empty text."""
    if not observed.live_pod:
        return observed.trouble
    return (
        f"the pod {observed.live_pod} of an earlier attempt has not ended, and two attempts must "
        "not write at the same time"
    )


def _is_stale(status: EvolutionStatus, observed: Observed, now: datetime) -> bool:
    """Return whether a Job is ahead of the status that was just read: then nothing is certain.

    A status that stays behind was restored from a backup, and the run continues from it. Jobs ahead
    of it that are still active are deleted first. Stages that were done answer from their
    manifests.
    """
    return any(
        (job.generation, STAGE_ORDER.index(job.stage), job.attempt) > _position(status)
        and not is_superseded(status, job)
        and job.create_time is not None
        and abs(now - job.create_time) < STALE_LIMIT
        for job in observed.jobs
    )


def _position(status: EvolutionStatus) -> tuple[int, int, int]:
    """Return generation, index of the stage, and attempt: positions compare in time."""
    if status.current is None or status.stage is None:
        return 0, STAGE_ORDER.index(Stage.CHECK), 1
    return status.generation, STAGE_ORDER.index(status.stage), status.attempt


def _with_times(
    before: EvolutionStatus, status: EvolutionStatus, end: End | None, now: datetime
) -> EvolutionStatus:
    """Return the status with the times that follow from this pass."""
    changes: StatusChanges = {}
    if end is not None:
        changes = {"completion_time": now, "retry_after": None}
    if end is not None or _position(status) != _position(before):
        changes["last_progress_time"] = now
    return status.model_copy(update=changes)


def _end_now(
    evolution: EmotionEvolution, progress: Progress, observed: Observed, now: datetime
) -> End | None:
    """Return the end that a deadline or a rejected Job causes, or None."""
    if evolution.spec.suspend:
        return None
    status, job = progress.status, progress.job
    for at, end in _deadlines(evolution, status, observed, job):
        if now >= at:
            return end
    if job is None and observed.refusal:
        return End(Reason.BAD_INPUT, observed.refusal)
    return replacements_end(evolution, progress)


def _deadlines(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    observed: Observed,
    job: StageJob | None,
) -> list[tuple[datetime, End]]:
    """Return all deadlines that apply now, each with the end that it causes."""
    bounds = evolution.spec.deadlines
    deadlines = []
    if bounds.run_active_seconds is not None and status.start_time is not None:
        seconds = bounds.run_active_seconds + status.suspended_seconds
        at = status.start_time + timedelta(seconds=seconds)
        message = f"the run exceeded `deadlines.runActiveSeconds` ({bounds.run_active_seconds})"
        deadlines.append((at, End(Reason.DEADLINE_EXCEEDED, message)))
    if job is None:
        if observed.live_pod_since is not None:
            at = observed.live_pod_since + timedelta(seconds=bounds.stage_pending_seconds)
            message = (
                f"{_trouble(observed)}: check whether its node is lost; if no process of the "
                "pod is running, delete it with `kubectl delete pod --force`, then edit the spec"
            )
            deadlines.append((at, End(Reason.PENDING_TOO_LONG, message)))
        return deadlines
    if job.state is JobState.RUNNING and job.start_time and bounds.stage_active_seconds:
        at = job.start_time + timedelta(seconds=bounds.stage_active_seconds)
        message = (
            f"{job.name} exceeded `deadlines.stageActiveSeconds` ({bounds.stage_active_seconds})"
        )
        deadlines.append((at, End(Reason.DEADLINE_EXCEEDED, message)))
    waiting_since = _waiting_since(job)
    if job.state in (JobState.PENDING, JobState.RUNNING) and waiting_since is not None:
        at = waiting_since + timedelta(seconds=bounds.stage_pending_seconds)
        message = f"{job.name}: {job.waiting or 'no pod has started'}"
        deadlines.append((at, End(Reason.PENDING_TOO_LONG, message)))
    return deadlines


def _waiting_since(job: StageJob) -> datetime | None:
    """Return the time since which the stage makes no progress because pods wait to start.

    Pods of a training meet before they begin, so one that never starts blocks the others. Shards
    do not need each other: with less capacity than shards, they run one after another. So their
    wait counts only while none runs, from the end of the last one.
    """
    since = job.pending_since
    if since is None or job.stage is Stage.TRAIN:
        return since
    if job.has_running_pods:
        return None
    return max(since, job.idle_since or since)


def _action(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    observed: Observed,
    job: StageJob | None,
) -> Action | None:
    """Return the one action for this status.

    Parameters
    ----------
    evolution
        The resource. Its own spec decides about suspension.
    status
        The status of this pass.
    spec
        The spec pinned for the current generation.
    observed
        The evolution's Jobs.
    job
        The Job of the current stage and attempt, if it exists.
    """
    for other in observed.jobs:
        is_current = not status.finished and job is not None and other.name == job.name
        if not other.state.is_final and not is_current:
            return DeleteJob(other.name, "it is not the Job of the current stage")
    if status.finished or status.stage is None:
        return None
    if evolution.spec.suspend:
        return _stop_job(job)
    if job is None:
        must_wait = status.retry_after is not None or observed.live_pod
        return None if must_wait else create_job(evolution, status, spec)
    return _job_action(evolution, job)


def _job_action(evolution: EmotionEvolution, job: StageJob) -> Action | None:
    """Return the action for the Job of the current stage and attempt, or None."""
    if job.state is JobState.SUSPENDED:
        return ResumeJob(job.name)
    if job.deadline_outdated and not job.state.is_final:
        return SetDeadline(job.name, evolution.spec.deadlines.stage_active_seconds)
    return None


def _stop_job(job: StageJob | None) -> Action | None:
    """Return the action that stops the current stage while the evolution is suspended.

    A Job of a queue is deleted instead: its attempt has been replaced.
    """
    if job is None or job.state.is_final or job.state is JobState.SUSPENDED:
        return None
    return SuspendJob(job.name)


def _requeue(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    observed: Observed,
    job: StageJob | None,
    now: datetime,
) -> datetime | None:
    """Return the next time at which the decision changes even if nothing happens."""
    if status.finished:
        return _expiry(evolution, status)
    if evolution.spec.suspend:
        return None
    times = [at for at, _ in _deadlines(evolution, status, observed, job)]
    if job is None and observed.live_pod:
        times.append(now + LIVE_POD_WAIT)
    if status.retry_after is not None:
        times.append(status.retry_after)
    if job is not None and job.missing_pods_since is not None:
        at = job.missing_pods_since + NO_POD_LIMIT
        times += [at] if at > now else []  # later, nothing changes
    return min(times, default=None)


def _expiry(evolution: EmotionEvolution, status: EvolutionStatus) -> datetime | None:
    """Return when a finished evolution is deleted, or None where it is kept."""
    ttl = evolution.spec.ttl_seconds_after_finished
    if ttl is None or status.completion_time is None:
        return None
    return status.completion_time + timedelta(seconds=ttl)


def _is_expired(evolution: EmotionEvolution, status: EvolutionStatus, now: datetime) -> bool:
    """Return whether a finished evolution is to be deleted now."""
    expiry = _expiry(evolution, status)
    return expiry is not None and now >= expiry
