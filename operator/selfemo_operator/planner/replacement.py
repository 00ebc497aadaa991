"""Attempts that end without the end of their Job: it is deleted, or it never gets a pod. Pure.

The stage always goes on with a Job of another name. The Job controller keeps under a Job's name
which pods it expects to see. If a Job is deleted at a bad moment, the next Job of its name inherits
that: it gets no pod, and nothing makes the controller look at it again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import job_name
from selfemo_api.status import EvolutionStatus, Reason
from selfemo_operator.planner.attempts import after_failure
from selfemo_operator.planner.recovery import next_attempt
from selfemo_operator.planner.types import (
    AttemptOutcome,
    DeleteJob,
    End,
    Failure,
    JobState,
    Observed,
    Progress,
    StageJob,
    StatusChanges,
)

#: Time for which a Job is known to have no pod before the stage goes on with another Job. It begins
#: when the missing pod is noticed, half a minute after the start of the Job. After an error, the
#: Job controller tries again after a second, and each time after twice as long: it has tried seven
#: times by then. What it expects of an earlier Job expires only after five minutes.
NO_POD_LIMIT = timedelta(seconds=45)
_JOB_DELETED = "its Job was deleted before its result was recorded"
_NO_POD = "no pod was created for its Job"


def after_lost_job(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    job: StageJob | None,
    observed: Observed,
    now: datetime,
) -> Progress | None:
    """Return the evolution with its next attempt if the current one is given up, or None.

    Parameters
    ----------
    evolution
        The resource. Its own spec decides about suspension, and its failure policy counts.
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    job
        The Job of the current stage and attempt, if it exists.
    observed
        The evolution's Jobs.
    now
        The current time, with a time zone.

    Returns
    -------
    Progress or None
        If the operator deletes the Job, the status has the next attempt before. None: the attempt
        goes on, or its Job has ended, or the Job is still to be created.
    """
    if job is not None and (reason := _deletion_reason(evolution, job)) is not None:
        return _replaced(evolution, status, spec, job, observed, reason)
    if evolution.spec.suspend:
        return None
    if job is None and _is_deleted(evolution, status, observed):
        failure = Failure(_JOB_DELETED, disrupted=True)
        return after_failure(evolution, status, spec, failure, observed.jobs, now)
    if job is None or not is_without_pod(status, job, now):
        return None
    failure = Failure(_NO_POD, disrupted=True)
    progress = after_failure(evolution, status, spec, failure, observed.jobs, now)
    if progress.end is not None:
        return None  # no further disruption is allowed, and the Job may still get a pod
    return replace(progress, deletion=DeleteJob(job.name, "it has no pod"))


def is_without_pod(status: EvolutionStatus, job: StageJob, now: datetime) -> bool:
    """Return whether a Job has had no pod for so long that another Job may help.

    If the Job before it had none either, the cause is another one, such as a quota. The stage then
    waits until the deadline for pending stages.

    Parameters
    ----------
    status
        The status, with the current stage.
    job
        The Job of the current stage and attempt.
    now
        The current time, with a time zone.
    """
    since = job.missing_pods_since
    if since is None or job.state is not JobState.PENDING or status.last_failure == _NO_POD:
        return False
    return now - since >= NO_POD_LIMIT


def _replaced(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    job: StageJob,
    observed: Observed,
    reason: str,
) -> Progress:
    """Return the evolution with another attempt. Nothing has failed: no failure is counted."""
    if observed.refusal and not evolution.spec.suspend:
        # The next Job would be refused. The evolution ends, and its active Job is deleted.
        return Progress(status, spec, job, end=End(Reason.BAD_INPUT, observed.refusal))
    changes: StatusChanges = {"attempt": next_attempt(status, job.stage, observed.jobs)}
    return Progress(
        status.model_copy(update=changes),
        spec,
        outcome=AttemptOutcome(job.stage),
        deletion=DeleteJob(job.name, reason),
    )


def _deletion_reason(evolution: EmotionEvolution, job: StageJob) -> str | None:
    """Return why the operator deletes the Job of the current attempt, or None if it does not."""
    if evolution.spec.suspend:
        # A queue starts the Jobs that it has admitted, whoever suspended them.
        is_admitted = job.queued and not job.state.is_final
        return "the evolution is suspended" if is_admitted else None
    has_started = job.state not in (JobState.PENDING, JobState.QUEUED, JobState.SUSPENDED)
    if job.outdated and not has_started:
        return "it has not started, and its pod template was edited"
    return None


def _is_deleted(evolution: EmotionEvolution, status: EvolutionStatus, observed: Observed) -> bool:
    """Return whether the Job of the current attempt has existed and is gone."""
    if status.stage is None:
        return False
    name = job_name(evolution.metadata.name, status.generation, status.stage, status.attempt)
    return observed.deleted_job == name
