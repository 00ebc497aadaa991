"""Converts a Job and its pods, as the API server returns them, for the planner. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from selfemo_api.results import StageResult, decode_message
from selfemo_api.stages import Stage, job_name
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_failure import failure_of
from selfemo_operator.controller.objects.pod_status import (
    LIVE_PODS,
    has_started,
    kept_running,
    outstanding_deletion,
    parse_time,
    terminated_state,
    true_condition,
)
from selfemo_operator.planner.types import JobState, StageJob

Json = dict[str, Any]

#: Reasons of a waiting container that need no attention.
_NORMAL_WAITING_REASONS = ("ContainerCreating", "PodInitializing", "")
#: The age from which the reason why a pod waits is reported. A younger pod is often unschedulable
#: for a moment, while a node is being added: that is not worth a status write.
WAITING_REPORT_AGE = timedelta(seconds=5)
#: The time after which a Job without a pod is reported. The Job controller creates a pod within
#: seconds, and after failures within tens of seconds.
MISSING_POD_AGE = timedelta(seconds=30)
#: The time after the end of a stage from which a container that still runs is reported. A sidecar
#: of Kubernetes itself, which ends after the stage, has 30 seconds by default.
SIDECAR_AGE = timedelta(seconds=60)
#: The time after the grace period of a pod from which the pod is reported if it is still there. A
#: kubelet kills the containers at the end of that period, and then has seconds of work left.
LOST_POD_AGE = timedelta(seconds=60)
_MISSING_POD = "no pod has been created: see the Job's events (a quota, or Pod Security)"
#: The metadata field of a cached Job that holds :func:`last_status_change`.
STATUS_CHANGE_TIME = "statusChangeTime"
#: The taint of a node that is off. Kubernetes then ends the pods that are being deleted there.
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
_STAGE_BY_SLUG = {stage.slug: stage for stage in Stage}


def is_stage_job(job: Json) -> bool:
    """Return whether a Job has a stage Job's labels and the name that follows from them.

    The labels alone are not enough: a user's copy of a stage Job (to debug a failure) has them all,
    and the operator must not count or delete it.
    """
    labels = job["metadata"].get("labels", {})
    stage = _STAGE_BY_SLUG.get(labels.get(names.LABEL_COMPONENT, ""))
    generation, attempt = (
        labels.get(names.LABEL_GENERATION, ""),
        labels.get(names.LABEL_ATTEMPT, ""),
    )
    if stage is None or not generation.isdigit() or not attempt.isdigit():
        return False
    evolution = labels.get(names.LABEL_EVOLUTION, "")
    name: str = job["metadata"]["name"]
    return name == job_name(evolution, int(generation), stage, int(attempt))


def is_purge_job(job: Json) -> bool:
    """Return whether a Job has a purge Job's labels and the name that follows from them."""
    labels = job["metadata"].get("labels", {})
    evolution, uid = labels.get(names.LABEL_EVOLUTION, ""), labels.get(names.LABEL_UID, "")
    name: str = job["metadata"]["name"]
    is_purge = labels.get(names.LABEL_COMPONENT) == names.PURGE
    return is_purge and bool(uid) and name == names.purge_job_name(evolution, uid)


def job_state(job: Json) -> JobState:
    """Return the state of a Job, from its conditions and counts.

    >>> job_state({"spec": {}, "status": {"active": 1, "ready": 1}}).value
    'Running'
    """
    status, spec = job.get("status", {}), job["spec"]
    # Failed and Complete are set when the pods are gone. FailureTarget and SuccessCriteriaMet are
    # set before.
    if true_condition(status, "Complete"):
        return JobState.SUCCEEDED
    if true_condition(status, "Failed"):
        return JobState.FAILED
    # before what is decided: a Job that is suspended while its last pod succeeds is not completed
    # until it is resumed
    if spec.get("suspend"):
        return JobState.QUEUED if _in_queue(job) else JobState.SUSPENDED
    if _is_decided(status):
        return JobState.RUNNING
    uncounted = status.get("uncountedTerminatedPods") or {}
    counts = ("ready", "succeeded", "failed", "terminating")
    if any(status.get(name, 0) for name in counts) or any(uncounted.values()):
        return JobState.RUNNING
    return JobState.PENDING


def pod_query(job: Json, now: datetime) -> dict[str, str] | None:
    """Return the query for the pods that the planner needs, or None if it needs no pods.

    A stage may have a thousand pods, so of a running Job only the pods that have not started are
    listed, or those that have not ended if all of them are being deleted. A Job whose controller
    has not counted a pod has none, until one is overdue.

    Parameters
    ----------
    job
        The Job, of which the pods are to be listed.
    now
        The current time, with a time zone.
    """
    state = job_state(job)
    if state in (JobState.SUCCEEDED, JobState.FAILED):
        return {}
    if state is JobState.PENDING:
        counted = job.get("status", {}).get("active", 0) > 0
        return {} if counted or _is_overdue(_pending_since(job, state, ()), now) else None
    if _is_only_terminating(job, state):
        return LIVE_PODS if _is_overdue(_status_change(job), now) else None
    return {"fieldSelector": "status.phase=Pending"} if _has_unready_pods(job, state) else None


def _has_unready_pods(job: Json, state: JobState) -> bool:
    """Return whether a Job is running while some of its pods are not."""
    status = job.get("status", {})
    return state is JobState.RUNNING and status.get("active", 0) > status.get("ready", 0)


def _is_only_terminating(job: Json, state: JobState) -> bool:
    """Return whether all pods that a running Job has left are being deleted.

    The Job creates no other ones before they have ended, and has not ended itself before that.
    """
    status = job.get("status", {})
    is_terminating = status.get("terminating", 0) > 0 and not status.get("active")
    return state is JobState.RUNNING and is_terminating


def _is_overdue(since: datetime | None, now: datetime | None) -> bool:
    """Return whether a Job that has waited since a time should have its pods."""
    return since is not None and now is not None and now - since >= MISSING_POD_AGE


def is_finishing(job: Json) -> bool:
    """Return whether a Job's outcome is decided, and the final condition follows within moments.

    No decision depends on this state: the result is read once, at `Complete` or `Failed`. It is the
    same before the outcome is decided, while all pods have ended and are not yet counted.
    """
    if job_state(job) is not JobState.RUNNING:
        return False
    status = job.get("status", {})
    uncounted = status.get("uncountedTerminatedPods") or {}
    return _is_decided(status) or (not status.get("active") and any(uncounted.values()))


def relevant_state(job: Json) -> tuple[object, ...]:
    """Return the part of a Job whose change requires a reconcile.

    The Job controller writes a Job's status about five times; the counts between its start and its
    end change no decision. What depends on time alone is requeued for that time.
    """
    state, is_running = job_state(job), job.get("status", {}).get("ready", 0) > 0
    template = job["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
    deleting = bool(job["metadata"].get("deletionTimestamp"))
    waits, ends = _has_unready_pods(job, state), _is_only_terminating(job, state)
    ends = ends or _partial_pods(job, state) is not None
    return state, waits, waits and is_running, ends, _is_resuming(job), template, deleting


def stage_job(
    job: Json,
    pods: Sequence[Json] = (),
    now: datetime | None = None,
    removals: Sequence[datetime] = (),
) -> StageJob:
    """Return a Job as the planner reads it.

    Parameters
    ----------
    job
        A Job for which :func:`is_stage_job` holds.
    pods
        The Job's pods, if :func:`pod_query` asks for them.
    now
        The current time. The reason why a pod waits is left out for pods that are younger than
        :data:`WAITING_REPORT_AGE`.
    removals
        When the platform removed pods of the Job.
    """
    metadata = job["metadata"]
    labels, state = metadata["labels"], job_state(job)
    if state is JobState.PENDING and any(has_started(pod) for pod in pods):
        state = JobState.RUNNING  # the pod has ended, and the Job's counts do not include it yet
    unfinished = state in (JobState.PENDING, JobState.RUNNING)
    waiting = [pod for pod in pods if _is_waiting(pod)] if unfinished else []
    since = _pending_since(job, state, waiting)
    missing = state is JobState.PENDING and not pods and _is_overdue(since, now)
    reason = _MISSING_POD if missing else _waiting_reason(_reportable(waiting, now))
    lost = _lost_pod(pods, now) if _is_only_terminating(job, state) else None
    if held := lost or (_runs_on(pods, now) if unfinished else None):
        since, reason = held
    elif since is None and (partial := _partial_pods(job, state)):
        since, text = partial
        reason = text if _is_overdue(since, now) else ""
    started = not lost and any(has_started(pod) and not kept_running(pod) for pod in pods)
    is_running = job.get("status", {}).get("ready", 0) > 0 or started
    is_idle = state is JobState.RUNNING and not is_running
    return StageJob(
        name=metadata["name"],
        generation=int(labels[names.LABEL_GENERATION]),
        stage=_STAGE_BY_SLUG[labels[names.LABEL_COMPONENT]],
        attempt=int(labels[names.LABEL_ATTEMPT]),
        state=state,
        result=_result(pods) if state is JobState.SUCCEEDED else None,
        failure=failure_of(job, pods, removals) if state is JobState.FAILED else None,
        create_time=parse_time(metadata.get("creationTimestamp")),
        start_time=None
        if _is_resuming(job)
        else parse_time(job.get("status", {}).get("startTime")),
        pending_since=since,
        waiting=reason,
        queued=_in_queue(job),
        has_running_pods=unfinished and is_running,
        idle_since=parse_time(metadata.get(STATUS_CHANGE_TIME)) if is_idle else None,
        missing_pods_since=since if missing else None,
    )


def _pending_since(job: Json, state: JobState, waiting: Sequence[Json]) -> datetime | None:
    """Return since when a pod has waited to start.

    The Job's start time is not enough: a pod that was preempted after hours is created again, and
    waits from then on. While there is no pod at all (the Job controller backs off, or a quota
    forbids one), the Job has waited since its status last changed.
    """
    if _is_resuming(job):
        return None
    times = [at for pod in waiting if (at := _waiting_since(pod)) is not None]
    if times:
        return min(times)
    started = parse_time(job.get("status", {}).get("startTime"))
    if state is not JobState.PENDING or started is None:
        return None
    return max(started, parse_time(job["metadata"].get(STATUS_CHANGE_TIME)) or started)


def _runs_on(pods: Sequence[Json], now: datetime | None) -> tuple[datetime, str] | None:
    """Return since when a sidecar keeps a pod of an ended stage, and what to do about it."""
    for pod in pods:
        ended, others = kept_running(pod) or ("", [])
        since = parse_time(ended or None)
        if since is not None and now is not None and now - since >= SIDECAR_AGE:
            return since, (
                f"the stage has ended, but its pod {pod['metadata']['name']} has not: "
                f"{', '.join(others)} is still running. Turn the injection of this sidecar off "
                "with a label or an annotation in `podTemplate`, or make it a native sidecar"
            )
    return None


def _lost_pod(pods: Sequence[Json], now: datetime | None) -> tuple[datetime, str] | None:
    """Return since when a pod should have ended that is still there, and what to do about it.

    Its node is lost: no kubelet confirms that the containers have ended.
    """
    found = [(at, pod) for pod in pods if (at := parse_time(outstanding_deletion(pod)))]
    found = [(at, pod) for at, pod in found if now is not None and now - at >= LOST_POD_AGE]
    if not found:
        return None
    since, pod = min(found, key=lambda item: (item[0], item[1]["metadata"]["name"]))
    return since, (
        f"the pod {pod['metadata']['name']} on the node {pod.get('spec', {}).get('nodeName', '?')} "
        "should have ended, and is still there: if the node is lost, make sure that it is off, and "
        f"then give it the taint `{OUT_OF_SERVICE}`, or delete the node"
    )


def _partial_pods(job: Json, state: JobState) -> tuple[datetime, str] | None:
    """Return since when a Job has run without pods that it needs, and what to say of it.

    The pods of a training meet before they begin, so those that exist wait for the others. Shards
    do not: with a quota for fewer, they run one after another. So they wait only once all that
    exist have ended.
    """
    if state is not JobState.RUNNING or _is_resuming(job):
        return None
    status, spec, since = job.get("status", {}), job["spec"], _status_change(job)
    if since is None or _is_decided(status):
        return None
    uncounted = sum(map(len, (status.get("uncountedTerminatedPods") or {}).values()))
    unended = uncounted + sum(status.get(name) or 0 for name in ("active", "terminating"))
    succeeded = status.get("succeeded") or 0
    if job["metadata"]["labels"][names.LABEL_COMPONENT] == Stage.TRAIN.slug:
        existing = unended + succeeded + (status.get("failed") or 0)
        required = spec.get("parallelism", 1)
        text = f"{existing} of {required} pods exist: see the Job's events (a quota)"
        return (since, text) if existing < required else None
    required = spec.get("completions", 1)
    text = f"{succeeded} of {required} pods have succeeded; for the others, {_MISSING_POD}"
    return (since, text) if not unended and 0 < succeeded < required else None


def _status_change(job: Json) -> datetime | None:
    """Return when a cached Job's status last changed, or when it started if that is not known."""
    start = job.get("status", {}).get("startTime")
    return parse_time(job["metadata"].get(STATUS_CHANGE_TIME) or start)


def last_status_change(job: Json) -> str | None:
    """Return when a Job's status last changed, from the managed fields of the API server."""
    entries = job["metadata"].get("managedFields") or []
    times = (e.get("time") for e in entries if e.get("subresource") == "status")
    return max(filter(None, times), default=None)


def _in_queue(job: Json) -> bool:
    """Return whether another controller decides when a Job runs.

    Kueue may manage Jobs without its label (`manageJobsWithoutQueueName`). Such a Job was suspended
    when it was created, or again after it was resumed.
    """
    metadata = job["metadata"]
    suspended_by = (metadata.get("annotations") or {}).get(names.ANNOTATION_SUSPENDED)
    return names.LABEL_QUEUE in metadata.get("labels", {}) or suspended_by == names.BY_ANOTHER


def _result(pods: Iterable[Json]) -> StageResult | None:
    """Return the stage's result: the termination message of the pod that completed the stage."""
    for terminated in filter(None, (terminated_state(pod) for pod in pods)):
        message = decode_message(terminated.get("message", ""))
        if isinstance(message, StageResult):
            return message
    return None


def _waiting_since(pod: Json) -> datetime | None:
    """Return since when a waiting pod has waited: its creation, or the end of an init container."""
    containers = pod.get("status", {}).get("initContainerStatuses", [])
    ends = [c.get("state", {}).get("terminated", {}).get("finishedAt") for c in containers]
    times = [parse_time(text) for text in (pod["metadata"].get("creationTimestamp"), *ends)]
    return max((at for at in times if at is not None), default=None)


def _is_waiting(pod: Json) -> bool:
    """Return whether a pod will still start; a pod that is being deleted never will."""
    phase = pod.get("status", {}).get("phase", "Pending")
    deleting = "deletionTimestamp" in pod["metadata"]
    return phase == "Pending" and not deleting and not has_started(pod)


def _is_resuming(job: Json) -> bool:
    """Return whether a Job was resumed and its controller has not yet reset its start time."""
    suspended = true_condition(job.get("status", {}), "Suspended") is not None
    return suspended and not job["spec"].get("suspend")


def _reportable(pods: Iterable[Json], now: datetime | None) -> list[Json]:
    return [pod for pod in pods if now is None or _age(pod, now) >= WAITING_REPORT_AGE]


def _age(pod: Json, now: datetime) -> timedelta:
    created = parse_time(pod["metadata"].get("creationTimestamp"))
    return now - created if created else WAITING_REPORT_AGE


def _waiting_reason(pods: Iterable[Json]) -> str:
    """Return why pods do not start, or an empty text if they are about to."""
    for pod in pods:
        status = pod.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return _format_reason(condition)
        kinds = ("initContainerStatuses", "containerStatuses")
        for container in (c for kind in kinds for c in status.get(kind, [])):
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason", "") not in _NORMAL_WAITING_REASONS:
                return _format_reason(waiting, container.get("image", ""))
    return ""


def _format_reason(state: Json, image: str = "") -> str:
    """Return a reason and its message as a text that stays the same while the cause does.

    ImagePullBackOff and ErrImagePull alternate, and their messages change each time: both become
    one text, so that not every reconcile writes the status.
    """
    reason = state.get("reason", "")
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        return (
            f"ImagePullBackOff: the image {image} cannot be pulled: check the image and the pull "
            "secrets in `podTemplate`, and the pod's events"
        )
    return f"{reason}: {state.get('message', '')}".rstrip(": ")[:500]


def _is_decided(status: Json) -> bool:
    return any(true_condition(status, kind) for kind in ("SuccessCriteriaMet", "FailureTarget"))
