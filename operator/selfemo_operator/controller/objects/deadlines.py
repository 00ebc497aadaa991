"""The deadline of a Job: what the operator asks for, and whether a Job has been given it. Pure."""

from __future__ import annotations

from typing import Any

from selfemo_operator.controller.objects import names

Json = dict[str, Any]

#: Seconds by which a Job's own deadline is later than the planner's. The Job's deadline applies
#: while no operator runs.
DEADLINE_SLACK = 60
#: Seconds from the start of a purge Job after which it fails. A day: the removal takes minutes, and
#: a storage or a node that is away is usually back by then. Without a limit, a pod whose Secret or
#: claim was deleted with the evolution would wait forever.
PURGE_SECONDS = 86_400


def active_deadline(seconds: int | None) -> int | None:
    """Return the deadline of a Job for a limit of the spec, in seconds from the Job's start.

    >>> active_deadline(100), active_deadline(None)
    (160, None)
    """
    return None if seconds is None else seconds + DEADLINE_SLACK


def has_deadline(job: Json, seconds: int | None) -> bool:
    """Return whether a Job has been given the deadline for a limit of the spec.

    Parameters
    ----------
    job
        The Job. One of an older operator has no annotation, and its own deadline counts.
    seconds
        The limit of the spec. None: there is none.
    """
    active = active_deadline(seconds)
    given = (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_DEADLINE)
    if given is None:
        return bool(job["spec"].get("activeDeadlineSeconds") == active)
    return bool(given == deadline_text(active))


def deadline_change(seconds: int | None) -> tuple[Json, dict[str, str]]:
    """Return the changes of a Job's spec and annotations with which it gets a deadline."""
    active = active_deadline(seconds)
    return {"activeDeadlineSeconds": active}, {names.ANNOTATION_DEADLINE: deadline_text(active)}


def deadline_text(seconds: int | None) -> str:
    """Return the value of the annotation for a Job's own deadline."""
    return names.NO_DEADLINE if seconds is None else str(seconds)
