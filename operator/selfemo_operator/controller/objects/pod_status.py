"""What a pod's status means: whether it has started, has ended, or was removed. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from selfemo_api.stages import Stage, job_name
from selfemo_operator.controller.objects import names

Json = dict[str, Any]

#: A query for pods that have not ended.
LIVE_PODS = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
_ENDED_PHASES = ("Succeeded", "Failed")
_STAGE_BY_SLUG = {stage.slug: stage for stage in Stage}


def has_started(pod: Json) -> bool:
    """Return whether the containers of a pod have run, or its init containers are running.

    A sidecar does not count: it runs on while the stage's image is pulled.
    """
    status = pod.get("status", {})
    if any(_state_of(c) & {"running", "terminated"} for c in status.get("containerStatuses", [])):
        return True
    sidecars = {
        container["name"]
        for container in pod.get("spec", {}).get("initContainers", [])
        if container.get("restartPolicy") == "Always"
    }
    before = status.get("initContainerStatuses", [])
    return any("running" in _state_of(c) for c in before if c["name"] not in sidecars)


def kept_running(pod: Json) -> tuple[str, list[str]] | None:
    """Return when the stage of a running pod ended, and the containers that still run.

    A sidecar that a service mesh or a vault has injected as an ordinary container does not end with
    the stage, so neither does the pod. None: the stage runs, or the pod has ended.

    Examples
    --------
    >>> ended = {"name": "stage", "state": {"terminated": {"finishedAt": "2026-01-01"}}}
    >>> proxy = {"name": "istio-proxy", "state": {"running": {}}}
    >>> kept_running({"status": {"phase": "Running", "containerStatuses": [ended, proxy]}})
    ('2026-01-01', ['istio-proxy'])
    """
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ended = terminated_state(pod)
    others = [c["name"] for c in containers if "running" in _state_of(c)]
    if status.get("phase") != "Running" or ended is None or not others:
        return None
    return ended.get("finishedAt", ""), others


def _state_of(container: Json) -> set[str]:
    return set(container.get("state", {}))


def outstanding_deletion(pod: Json) -> str | None:
    """Return when the grace period of a pod ends that is being deleted, or None.

    Examples
    --------
    >>> pod = {"metadata": {"deletionTimestamp": "2026-01-01"}, "status": {"phase": "Running"}}
    >>> outstanding_deletion(pod)
    '2026-01-01'
    >>> outstanding_deletion(pod | {"status": {"phase": "Failed"}})
    """
    if pod.get("status", {}).get("phase") in _ENDED_PHASES:
        return None
    time: str | None = pod["metadata"].get("deletionTimestamp")
    return time


def removal_time(pod: Json) -> str | None:
    """Return when the platform removed a pod that its Job creates again, or None if it did not.

    The Job's `podFailurePolicy` ignores such a pod: the Job's counts do not have it.

    Examples
    --------
    >>> target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01"}
    >>> removal_time({"status": {"phase": "Failed", "conditions": [target]}})
    '2026-01-01'
    >>> removal_time({"status": {"phase": "Failed"}})
    """
    status = pod.get("status", {})
    target = true_condition(status, "DisruptionTarget")
    if status.get("phase") != "Failed" or target is None:
        return None
    time: str | None = target.get("lastTransitionTime")
    return time


def is_live_stage_pod(pod: Json) -> bool:
    """Return whether a pod belongs to a stage Job, and may still write results.

    The Job may be gone: a pod outlives a Job that was deleted by hand by its grace period, and it
    stays if its node cannot be reached.

    Parameters
    ----------
    pod
        The pod, as the API server returns it.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    if status.get("phase") in _ENDED_PHASES:
        return False
    if "deletionTimestamp" in metadata and not pod.get("spec", {}).get("nodeName"):
        return False  # it never starts
    labels = metadata.get("labels", {})
    stage = _STAGE_BY_SLUG.get(labels.get(names.LABEL_COMPONENT, ""))
    generation = labels.get(names.LABEL_GENERATION, "")
    attempt = labels.get(names.LABEL_ATTEMPT, "")
    if stage is None or not generation.isdigit() or not attempt.isdigit():
        return False
    evolution = labels.get(names.LABEL_EVOLUTION, "")
    return _job_of(pod) == job_name(evolution, int(generation), stage, int(attempt))


def _job_of(pod: Json) -> str | None:
    """Return the name of a pod's Job: of its owner, or that in its label if it has no owner."""
    owners = pod["metadata"].get("ownerReferences", [])
    for owner in owners:
        if owner.get("kind") == "Job" and owner.get("controller"):
            name: str | None = owner.get("name")
            return name
    return None if owners else pod["metadata"].get("labels", {}).get(names.LABEL_JOB_NAME)


def terminated_state(pod: Json) -> Json | None:
    """Return the terminated state of the stage's container, or None."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["name"] == names.CONTAINER:
            terminated: Json | None = container.get("state", {}).get("terminated")
            return terminated
    return None


def true_condition(status: Json, kind: str) -> Json | None:
    """Return the condition of a type if its status is True, otherwise None."""
    for condition in status.get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            match: Json = condition
            return match
    return None


def parse_time(text: str | None) -> datetime | None:
    """Return a time of the API server, or None if there is none.

    Examples
    --------
    >>> parse_time("2026-01-01T12:00:00Z")
    datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
