"""Attempts of a stage: whether a Job's result is usable, and what follows a failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta

from selfemo_api.comparison import changed_dataset
from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stage_resources import pods_of
from selfemo_api.stages import Stage
from selfemo_api.status import (
    FAILURE_MAX,
    EvolutionStatus,
    Reason,
    Replacement,
    StageFailure,
)
from selfemo_operator.planner.recovery import after_damage, next_attempt
from selfemo_operator.planner.types import (
    DISRUPTED_EXITS,
    AttemptOutcome,
    End,
    Failure,
    JobState,
    Progress,
    StageJob,
    StatusChanges,
)

#: Maximum wait between two attempts of a stage: S3 or a node may be back within ten minutes.
MAX_BACKOFF_SECONDS = 600
#: The time for which removals are kept with their pods: the maximum usual grace period of pods.
#: Within it, an earlier removal may become known after a later one.
REMOVAL_WINDOW = timedelta(minutes=10)
#: The maximum number of removals that are kept like this, except those of the last second: the
#: maximum number of pods of a stage. They take 11 KiB of the status.
REMOVALS_MAX = 1024
#: The maximum number of their times, a limit of the API: each takes 50 bytes.
TIMES_MAX = 64
#: The characters of a uid by which a pod is kept: 32 bits tell the pods of one second apart.
_UID_LENGTH = 8


def after_attempt(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    job: StageJob,
    jobs: Sequence[StageJob],
    now: datetime,
) -> StageResult | Progress:
    """Return the result of a Job that has ended, or the evolution after its failure.

    Parameters
    ----------
    evolution
        The resource. Its current failure policy applies, including edits.
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    job
        The Job of the current stage and attempt, in a final state.
    jobs
        All Jobs of the evolution.
    now
        The current time, with a time zone.
    """
    outcome = _outcome_of(job, status, spec)
    if isinstance(outcome, StageResult):
        problem = _other_dataset(status, spec, outcome)
        return Progress(status, spec, end=End(Reason.BAD_INPUT, problem)) if problem else outcome
    if outcome.deadline:
        end = End(Reason.DEADLINE_EXCEEDED, f"{job.name}: {outcome.message}")
        return Progress(status, spec, end=end)
    if outcome.stopped:
        # Nothing has failed: it counts toward no limit, and nothing waits.
        changes: StatusChanges = {"attempt": next_attempt(status, job.stage, jobs)}
        replaced = AttemptOutcome(job.stage)
        return Progress(status.model_copy(update=changes), spec, outcome=replaced)
    if outcome.exit_code == ExitCode.DAMAGED_RESULT and outcome.damaged is not None:
        return after_damage(status, spec, outcome, jobs)
    return after_failure(evolution, status, spec, outcome, jobs, now)


def _other_dataset(status: EvolutionStatus, spec: EvolutionSpec, result: StageResult) -> str | None:
    """Return why scores cannot be compared, or None: a file has changed since the baseline's.

    The stage checks this before it starts. A result of an older image may come without that.
    """
    score = next((s for s in result.scores if s.source == spec.selection_dataset), None)
    if score is None or status.baseline is None:
        return None
    return changed_dataset(score.source, status.baseline.sha256, score.sha256)


def _outcome_of(
    job: StageJob, status: EvolutionStatus, spec: EvolutionSpec
) -> StageResult | Failure:
    """Return the result of a Job that has ended, or why there is no usable one."""
    if job.state is not JobState.SUCCEEDED:
        return job.failure or Failure("it failed without reporting an error")
    if job.result is None:
        # The message was lost with its pod. The next attempt answers from the manifest.
        return Failure("its result was lost; it will be reread from the manifest", disrupted=True)
    problem = validate_result(status, spec, job.result)
    return Failure(problem) if problem else job.result


def validate_result(
    status: EvolutionStatus, spec: EvolutionSpec, result: StageResult
) -> str | None:
    """Return why a result cannot be that of the current stage, or None if it can.

    Parameters
    ----------
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    result
        The content of the termination message.
    """
    if (result.generation, result.stage) != (status.generation, status.stage):
        return f"it returned a result for generation {result.generation}, {result.stage.value}"
    if result.stage in (Stage.WARM_START, Stage.TRAIN) and not result.model_uri:
        return "its result names no model"
    labels, shares = len(spec.dataset.labels), len(result.label_shares)
    if shares not in (0, labels):
        return f"its result contains {shares} label frequencies for {labels} labels"
    selection = spec.selection_dataset
    if result.stage is Stage.EVALUATE and selection not in {s.source for s in result.scores}:
        return f"its result contains no score for {selection}"
    return None


def after_failure(
    evolution: EmotionEvolution,
    status: EvolutionStatus,
    spec: EvolutionSpec,
    failure: Failure,
    jobs: Sequence[StageJob],
    now: datetime,
) -> Progress:
    """Return the evolution after a failed attempt: it is counted, and the next one is scheduled.

    Parameters
    ----------
    evolution
        The resource. Its current failure policy applies, including edits.
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    failure
        Why the attempt failed. It does not name a damaged result.
    jobs
        All Jobs of the evolution. The number of a new attempt must not be that of one of them.
    now
        The current time, with a time zone.

    Returns
    -------
    Progress
        The status with the next attempt, or the end of the evolution: no attempt is left, or the
        input is bad.
    """
    stage = status.stage
    if stage is None:
        raise ValueError("no stage is in progress")
    message = f"generation {status.generation}, {stage.value}: {failure.message}"
    if failure.exit_code == ExitCode.BAD_INPUT:
        return Progress(status, spec, end=End(Reason.BAD_INPUT, message))
    policy = evolution.spec.failure_policy
    disrupted = failure.disrupted or failure.exit_code in DISRUPTED_EXITS
    kind = StageFailure.DISRUPTED if disrupted else StageFailure.FAILED
    outcome = AttemptOutcome(stage, failure=kind)
    failures = status.failures + (not disrupted)
    disruptions = status.disruptions + disrupted
    all_disruptions = disruptions + _replaced_rounds(status, spec, stage)
    changes: StatusChanges = {
        "failures": failures,
        "disruptions": disruptions,
        "last_failure": failure.message[:FAILURE_MAX],
    }
    if failures >= policy.max_attempts or all_disruptions > policy.max_disruptions:
        end = End(Reason.STAGE_FAILED, message)
        return Progress(status.model_copy(update=changes), spec, end=end, outcome=outcome)
    attempts = failures + disruptions
    wait = min(policy.backoff_seconds * 2 ** min(attempts - 1, 16), MAX_BACKOFF_SECONDS)
    if failure.disrupted and not failure.rejected:
        # The platform queues and backs off automatically. It does not after a pod was rejected:
        # the next pod may be scheduled to the same node, and be rejected within seconds.
        wait = 0
    changes["attempt"] = next_attempt(status, stage, jobs)
    changes["retry_after"] = now + timedelta(seconds=wait)
    return Progress(status.model_copy(update=changes), spec, outcome=outcome)


def with_replaced_pods(status: EvolutionStatus, job: StageJob) -> EvolutionStatus:
    """Return the status with the pods counted that the platform removed from a Job.

    The Job recreates such a pod automatically. Each removal counts once, by its time and its pod.
    It becomes known when the pod has ended, so an earlier one may become known after a later one.

    Parameters
    ----------
    status
        The status, with the current stage.
    job
        The Job of the current stage and attempt.
    """
    pods = {item.time: set(item.pods) for item in status.recent_replacements or ()}
    known, last = sum(map(len, pods.values())), status.last_replacement_time
    for removal in job.removals:
        if last is None or removal.time > last:
            pods.setdefault(removal.time, set()).add(removal.pod[:_UID_LENGTH])
    new = sum(map(len, pods.values())) - known
    if not new:
        return status
    while len(pods) > 1 and _is_settled(pods):
        last = min(pods)
        del pods[last]
    changes: StatusChanges = {
        "replaced_pods": status.replaced_pods + new,
        "last_replacement_time": last,
        "recent_replacements": [Replacement(time=at, pods=sorted(pods[at])) for at in sorted(pods)],
    }
    return status.model_copy(update=changes)


def _is_settled(pods: Mapping[datetime, Set[str]]) -> bool:
    """Return whether the oldest of several removals need not be kept by their pods any more."""
    is_old = max(pods) - min(pods) > REMOVAL_WINDOW
    return is_old or len(pods) > TIMES_MAX or sum(map(len, pods.values())) > REMOVALS_MAX


def replacements_end(evolution: EmotionEvolution, progress: Progress) -> End | None:
    """Return the end of a stage whose pods are removed again and again, or None.

    One disruption of all pods of a stage is one disruption of its attempt.

    Parameters
    ----------
    evolution
        The resource. Its current failure policy applies, including edits.
    progress
        The evolution in this pass.
    """
    status, job = progress.status, progress.job
    if job is None or job.state.is_final:
        return None
    rounds = _replaced_rounds(status, progress.spec, job.stage)
    if status.disruptions + rounds <= evolution.spec.failure_policy.max_disruptions:
        return None
    message = (
        f"generation {status.generation}, {job.stage.value}: the platform removed "
        f"{status.replaced_pods} of its pods, more than "
        "`overrides.failurePolicy.maxDisruptions` allows: "
        "use nodes that are not preempted, or a higher `priorityClassName`"
    )
    return End(Reason.STAGE_FAILED, message)


def _replaced_rounds(status: EvolutionStatus, spec: EvolutionSpec, stage: Stage) -> int:
    """Return how often all pods of the stage, by number, were removed and recreated."""
    return status.replaced_pods // pods_of(spec, stage)
