"""Conditions and phase: derived from the progress, never read back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from selfemo_api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    EvolutionStatus,
    Phase,
    Reason,
)
from selfemo_operator.planner.types import JobState, StageJob

#: Ends that count as success: the evolution did what its spec asked for.
GOOD_ENDS = (
    Reason.GOAL_REACHED,
    Reason.MAX_GENERATIONS_REACHED,
    Reason.PLATEAUED,
    Reason.REGRESSED,
)

#: Longest message of a condition, a bound of the API.
MESSAGE_MAX = 2048

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_Wanted = tuple[ConditionType, ConditionStatus, Reason, str]


def with_conditions(
    status: EvolutionStatus,
    *,
    now: datetime,
    observed_generation: int,
    suspended: bool,
    job: StageJob | None,
    end: tuple[Reason, str] | None,
    trouble: str = "",
) -> EvolutionStatus:
    """Return the status with all conditions and the phase set for what is going on.

    Parameters
    ----------
    suspended
        Whether `spec.suspend` holds the evolution.
    job
        The Job of the stage under way, if there is one.
    end
        Why the evolution has ended, or None while it goes on.
    trouble
        Why the next Job could not be created; empty where it could.
    """
    wanted = _ended(*end) if end else _going_on(status, suspended, job, trouble)
    conditions = [_set(status, item, observed_generation, now) for item in wanted]
    return status.model_copy(
        update={
            "conditions": conditions,
            "phase": _phase(end, suspended, job),
            "observed_generation": observed_generation,
        }
    )


def with_observed_generation(status: EvolutionStatus, observed_generation: int) -> EvolutionStatus:
    """Return the status of a finished evolution after an edit that changes nothing in it."""
    update = {"observed_generation": observed_generation}
    conditions = [c.model_copy(update=update) for c in status.conditions]
    return status.model_copy(update={**update, "conditions": conditions})


def with_unreadable_spec(raw: dict[str, Any], message: str, now: datetime) -> dict[str, Any]:
    """Return the status (as JSON) of a resource that is not valid; its other fields stay.

    Parameters
    ----------
    raw
        The resource as the API server gave it.
    message
        What is wrong with it.
    """
    before: dict[str, Any] = raw.get("status") or {}
    generation = raw["metadata"].get("generation", 0)
    wanted: tuple[_Wanted, ...] = (
        (ConditionType.SUCCEEDED, _FALSE, Reason.BAD_INPUT, message),
        (ConditionType.RECONCILING, _FALSE, Reason.BAD_INPUT, message),
        (ConditionType.STALLED, _TRUE, Reason.BAD_INPUT, message),
    )
    old = {c.get("type"): c for c in before.get("conditions", [])}
    conditions = []
    for kind, value, reason, text in wanted:
        same = old.get(kind.value, {}).get("status") == value.value
        conditions.append(
            {
                "type": kind.value,
                "status": value.value,
                "observedGeneration": generation,
                "lastTransitionTime": old[kind.value]["lastTransitionTime"]
                if same
                else now.isoformat().replace("+00:00", "Z"),
                "reason": reason.value,
                "message": text[:MESSAGE_MAX],
            }
        )
    return {
        **before,
        "observedGeneration": generation,
        "phase": Phase.FAILED.value,
        "conditions": conditions,
    }


def _ended(reason: Reason, message: str) -> list[_Wanted]:
    good = reason in GOOD_ENDS
    stalled = (ConditionType.STALLED, _FALSE, Reason.HEALTHY, "")
    if not good:
        stalled = (ConditionType.STALLED, _TRUE, reason, message)
    return [
        (ConditionType.SUCCEEDED, _TRUE if good else _FALSE, reason, message),
        (ConditionType.RECONCILING, _FALSE, Reason.FINISHED, ""),
        stalled,
        (ConditionType.SUSPENDED, _FALSE, Reason.NOT_SUSPENDED, ""),
        (ConditionType.PROGRESSING, _FALSE, Reason.FINISHED, ""),
    ]


def _going_on(
    status: EvolutionStatus, suspended: bool, job: StageJob | None, trouble: str
) -> list[_Wanted]:
    stage = status.stage.value if status.stage else "the first stage"
    where = f"generation {status.generation}, {stage}, attempt {status.attempt}"
    progressing: _Wanted = (ConditionType.PROGRESSING, _TRUE, Reason.RUNNING, where)
    if suspended:
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.SUSPENDED, where)
    elif job is not None and job.state is JobState.QUEUED:
        message = f"{where}: waits in the queue"
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.QUEUED, message)
    elif trouble or (job is not None and job.waiting):
        message = f"{where}: {trouble or (job.waiting if job else '')}"
        progressing = (ConditionType.PROGRESSING, _FALSE, Reason.WAITING, message)
    elif status.retry_after is not None:
        message = f"{where}: tried again after: {status.last_failure}"
        progressing = (ConditionType.PROGRESSING, _TRUE, Reason.RETRYING, message)
    return [
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


def _set(
    status: EvolutionStatus, wanted: _Wanted, observed_generation: int, now: datetime
) -> Condition:
    """Return a condition; its transition time moves only when its status does."""
    kind, value, reason, message = wanted
    before = status.condition(kind)
    unchanged = before is not None and before.status == value
    return Condition(
        type=kind,
        status=value,
        observed_generation=observed_generation,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        reason=reason.value,
        message=message[:MESSAGE_MAX],
    )


def _phase(end: tuple[Reason, str] | None, suspended: bool, job: StageJob | None) -> Phase:
    if end is not None:
        if end[0] is Reason.COLLAPSED:
            return Phase.COLLAPSED
        return Phase.SUCCEEDED if end[0] in GOOD_ENDS else Phase.FAILED
    if suspended:
        return Phase.SUSPENDED
    if job is not None and job.state is JobState.QUEUED:
        return Phase.QUEUED
    return Phase.RUNNING
