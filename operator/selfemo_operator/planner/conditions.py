"""Conditions and phase: they are derived from the progress and are never read back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from selfemo_api.stages import Stage
from selfemo_api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    EvolutionStatus,
    Phase,
    Reason,
    Recovery,
)
from selfemo_operator.planner.types import End, JobState, StageJob, StatusChanges

#: Ends that are a success: the evolution did what its spec requested.
GOOD_ENDS = (
    Reason.GOAL_REACHED,
    Reason.MAX_GENERATIONS_REACHED,
    Reason.PLATEAUED,
    Reason.REGRESSED,
)

#: Maximum length of a condition's message, a limit of the API.
MESSAGE_MAX = 2048

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
#: Type, status, reason and message of a condition.
_Values = tuple[ConditionType, ConditionStatus, str, str]


def with_conditions(
    status: EvolutionStatus,
    *,
    now: datetime,
    observed_generation: int,
    suspended: bool,
    job: StageJob | None,
    end: End | None,
    trouble: str = "",
) -> EvolutionStatus:
    """Return the status with its conditions and phase.

    Parameters
    ----------
    status
        The status of this pass. If it was finished before, its outcome stays.
    now
        The current time, for conditions that change.
    observed_generation
        ``metadata.generation`` of the resource.
    suspended
        Whether `spec.suspend` holds the evolution.
    job
        The Job of the current stage and attempt, if it exists.
    end
        Why the evolution ends in this pass, or None.
    trouble
        Why the next Job could not be created; empty if it could.
    """
    changes: StatusChanges = {"observed_generation": observed_generation}
    if status.finished and end is None:
        changes["conditions"] = _at_rest(status, observed_generation, now)
        return status.model_copy(update=changes)
    values = _after_end(end) if end else _while_active(status, suspended, job, trouble)
    before = {condition.type: condition for condition in status.conditions}
    changes["conditions"] = [
        _condition(before.get(item[0]), item, observed_generation, now) for item in values
    ]
    changes["phase"] = _phase(end, suspended, job)
    return status.model_copy(update=changes)


def with_unreadable_spec(raw: dict[str, Any], message: str, now: datetime) -> dict[str, Any]:
    """Return the status of a resource that is not valid, as JSON. Its other fields stay.

    If the evolution has ended, its outcome stays too, and only `Stalled` contains the message.

    Parameters
    ----------
    raw
        The resource as the API server returned it.
    message
        What is wrong with it.
    now
        The current time, for conditions that change.
    """
    before: dict[str, Any] = raw.get("status") or {}
    old = {c.get("type"): c for c in before.get("conditions", [])}
    generation = raw["metadata"].get("generation", 0)
    changed = {ConditionType.STALLED: _TRUE}
    conditions: dict[str, Any] = {}
    if before.get("completionTime"):
        phase = before.get("phase")
        conditions = {kind: {**c, "observedGeneration": generation} for kind, c in old.items()}
    else:
        phase = Phase.FAILED.value
        changed = {ConditionType.SUCCEEDED: _FALSE, ConditionType.RECONCILING: _FALSE, **changed}
    for kind, value in changed.items():
        unchanged = old.get(kind.value, {}).get("status") == value.value
        conditions[kind.value] = {
            "type": kind.value,
            "status": value.value,
            "observedGeneration": generation,
            "lastTransitionTime": old[kind.value]["lastTransitionTime"]
            if unchanged
            else now.isoformat().replace("+00:00", "Z"),
            "reason": Reason.BAD_INPUT.value,
            "message": message[:MESSAGE_MAX],
        }
    return {
        **before,
        "observedGeneration": generation,
        "phase": phase,
        "conditions": [*conditions.values()],
    }


def _at_rest(status: EvolutionStatus, observed_generation: int, now: datetime) -> list[Condition]:
    """Return the conditions of an evolution that has ended in an earlier pass.

    `Stalled` is derived from the outcome again: the resource may have been unreadable in between.
    """
    outcome = status.condition(ConditionType.SUCCEEDED)
    conditions = []
    for before in status.conditions:
        after = before.model_copy(update={"observed_generation": observed_generation})
        if outcome is not None and before.type is ConditionType.STALLED:
            values = _stalled(outcome.status is _TRUE, outcome.reason, outcome.message)
            after = _condition(before, values, observed_generation, now)
        conditions.append(after)
    return conditions


def _stalled(is_good: bool, reason: str, message: str) -> _Values:
    """Return the `Stalled` condition of an evolution that has ended, from its outcome."""
    if is_good:
        return ConditionType.STALLED, _FALSE, Reason.HEALTHY, ""
    return ConditionType.STALLED, _TRUE, reason, message


def _after_end(end: End) -> list[_Values]:
    is_good = end.reason in GOOD_ENDS
    return [
        (ConditionType.SUCCEEDED, _TRUE if is_good else _FALSE, end.reason, end.message),
        (ConditionType.RECONCILING, _FALSE, Reason.FINISHED, ""),
        _stalled(is_good, end.reason, end.message),
        (ConditionType.SUSPENDED, _FALSE, Reason.NOT_SUSPENDED, ""),
        (ConditionType.PROGRESSING, _FALSE, Reason.FINISHED, ""),
    ]


def _while_active(
    status: EvolutionStatus, suspended: bool, job: StageJob | None, trouble: str
) -> list[_Values]:
    stage = status.stage.value if status.stage else "the first stage"
    position = f"generation {status.generation}, {stage}, attempt {status.attempt}"
    progressing: _Values = (ConditionType.PROGRESSING, _TRUE, Reason.RUNNING, position)
    if suspended:
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.SUSPENDED, position)
    elif job is not None and job.state is JobState.QUEUED:
        message = f"{position}: waiting in the queue"
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.QUEUED, message)
    elif trouble or (job is not None and job.waiting):
        message = f"{position}: {trouble or (job.waiting if job else '')}"
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.WAITING, message)
        if job is not None and job.has_running_pods and job.stage is not Stage.TRAIN:
            message = f"{position}: some pods are running, others are waiting: {job.waiting}"
            progressing = (ConditionType.PROGRESSING, _TRUE, Reason.RUNNING, message)
    elif status.retry_after is not None:
        message = f"{position}: retrying after: {status.last_failure}"
        progressing = (ConditionType.PROGRESSING, _TRUE, Reason.RETRYING, message)
    values: list[_Values] = [
        (ConditionType.SUCCEEDED, _UNKNOWN, Reason.RUNNING, ""),
        (
            ConditionType.RECONCILING,
            _FALSE if suspended else _TRUE,
            Reason.SUSPENDED if suspended else Reason.RUNNING,
            "",
        ),
        (ConditionType.STALLED, _FALSE, Reason.HEALTHY, ""),
        (
            ConditionType.SUSPENDED,
            _TRUE if suspended else _FALSE,
            Reason.SUSPENDED if suspended else Reason.NOT_SUSPENDED,
            "",
        ),
        progressing,
    ]
    if status.recovery is not None:
        values.append(_recovering(status, status.recovery))
    return values


def _recovering(status: EvolutionStatus, recovery: Recovery) -> _Values:
    """Return the condition of a recovery. Only a damaged result counts in `recoveries`."""
    first, until = recovery.damaged.value, recovery.until.value
    again = f"the stages from {first} to {until} run again"
    if status.recoveries == 0:
        message = f"generation {status.generation}: the spec was edited; {again}"
        return ConditionType.RECOVERING, _TRUE, Reason.SPEC_EDITED, message
    message = (
        f"generation {status.generation}: the result of {first} was missing or damaged; {again} "
        f"(recovery {status.recoveries})"
    )
    return ConditionType.RECOVERING, _TRUE, Reason.RESULT_DAMAGED, message


def _condition(
    before: Condition | None, values: _Values, observed_generation: int, now: datetime
) -> Condition:
    """Return a condition; its transition time moves only when its status does."""
    kind, value, reason, message = values
    unchanged = before is not None and before.status == value
    return Condition(
        type=kind,
        status=value,
        observed_generation=observed_generation,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        reason=str(reason),
        message=message[:MESSAGE_MAX],
    )


def _phase(end: End | None, suspended: bool, job: StageJob | None) -> Phase:
    if end is not None:
        if end.reason is Reason.COLLAPSED:
            return Phase.COLLAPSED
        return Phase.SUCCEEDED if end.reason in GOOD_ENDS else Phase.FAILED
    if suspended:
        return Phase.SUSPENDED
    if job is not None and job.state is JobState.QUEUED:
        return Phase.QUEUED
    return Phase.RUNNING
