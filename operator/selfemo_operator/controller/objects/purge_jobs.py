"""What a purge Job is, and what its pods may still do. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from selfemo_api.spec import WhenDeleted
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import job_state
from selfemo_operator.controller.objects.jobs import permitted_config
from selfemo_operator.controller.objects.ownership import is_sealed
from selfemo_operator.planner.types import JobState

Json = dict[str, Any]

#: The states of a purge Job that has not been started. Kueue gives a Job without a queue the one
#: that is the default of its namespace.
HELD = (JobState.SUSPENDED, JobState.QUEUED)


def creation(job: Json) -> str:
    """Return the random text by which a process knows a Job that it has created, or none."""
    text: str = job["metadata"]["annotations"].get(names.ANNOTATION_CREATION, "")
    return text


def seen_version(job: Json) -> str:
    """Return the version of the evolution with which a Job was last synchronized, or none."""
    version: str = job["metadata"]["annotations"].get(names.ANNOTATION_SEEN, "")
    return version


def may_write(pod: Json) -> bool:
    """Return whether a container of a pod may still run.

    The phase of a pod on a lost node becomes `Failed` while its containers may still run.
    """
    status = pod.get("status", {})
    if status.get("phase") not in ("Succeeded", "Failed"):
        return True
    return any("running" in c.get("state", {}) for c in status.get("containerStatuses", []))


def is_purged(last: Json) -> bool:
    """Return whether the last spec of an evolution lets its data be removed."""
    return bool(last["spec"].get("storage", {}).get("whenDeleted") == WhenDeleted.DELETE)


def is_required(job: Json, required: Json) -> bool:
    """Return whether a purge Job has the content of the required one."""
    template = required["metadata"]["annotations"][names.ANNOTATION_TEMPLATE]
    return bool(job["metadata"]["annotations"].get(names.ANNOTATION_TEMPLATE) == template)


def is_current(job: Json, required: Json) -> bool:
    """Return whether a purge Job is the required one, complete, and has never been started.

    A Job that somebody has started by hand has failed, and could not be started again.
    """
    return is_required(job, required) and is_sealed(job) and job_state(job) in HELD


def is_permitted(job: Json) -> bool:
    """Return whether the operator has started a purge Job.

    Parameters
    ----------
    job
        The Job with its pod template, as the API server returns it.
    """
    annotations = job["spec"]["template"]["metadata"].get("annotations", {})
    try:
        return bool(annotations.get(names.ANNOTATION_CONFIG) == permitted_config(job))
    except (KeyError, ValidationError):
        return False
