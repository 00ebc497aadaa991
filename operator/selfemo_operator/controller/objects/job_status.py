"""Reads a Job and its pods, as the API server gives them, into what the planner sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.stages import Stage, job_name
from selfemo_operator.controller.objects import names
from selfemo_operator.planner.types import Failure, JobState, StageJob

Json = dict[str, Any]

#: What a waiting container says while all is well.
_NORMAL_WAITS = ("ContainerCreating", "PodInitializing", "")
#: Reasons of a pod that the platform took away.
_TAKEN = ("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting")
#: A pod may well be unschedulable for a moment (a node is being added): not worth a status write.
SETTLE = timedelta(seconds=5)
#: The Job controller makes a pod anew within seconds, after failures within tens of them.
LACKING = timedelta(seconds=30)
#: Where the picture keeps :func:`last_change` of a Job.
CHANGED = "statusChangeTime"
_STAGES = {stage.slug: stage for stage in Stage}


def is_stage_job(job: Json) -> bool:
    """Return whether a Job has the labels of a stage Job and the name that follows from them.

    Labels may have been tampered with, and a person's copy of a stage Job (to look into a failure)
    has them all: it is not the operator's to count or to delete.
    """
    labels = job["metadata"].get("labels", {})
    stage = _STAGES.get(labels.get(names.LABEL_COMPONENT, ""))
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
    """Return whether a Job has the labels of one that removes data, and the name that follows."""
    labels = job["metadata"].get("labels", {})
    evolution, uid = labels.get(names.LABEL_EVOLUTION, ""), labels.get(names.LABEL_UID, "")
    said: str = job["metadata"]["name"]
    is_purge = labels.get(names.LABEL_COMPONENT) == names.PURGE
    return is_purge and bool(uid) and said == names.purge_name(evolution, uid)


def job_state(job: Json) -> JobState:
    """Return how a Job stands, by its conditions and counts."""
    status, spec = job.get("status", {}), job["spec"]
    # Failed and Complete come when the pods are gone; before, FailureTarget and SuccessCriteriaMet.
    if _condition(status, "Complete"):
        return JobState.SUCCEEDED
    if _condition(status, "Failed"):
        return JobState.FAILED
    if _decided(status):
        return JobState.RUNNING
    if spec.get("suspend"):
        return JobState.QUEUED if _in_queue(job) else JobState.SUSPENDED
    ended = status.get("uncountedTerminatedPods") or {}
    counts = ("ready", "succeeded", "failed", "terminating")
    if any(status.get(name, 0) for name in counts) or any(ended.values()):
        return JobState.RUNNING
    return JobState.PENDING


def needs_pods(job: Json, now: datetime) -> dict[str, str] | None:
    """Return the pods that tell what the planner must know of a Job, as a query; None: it does.

    A stage may have a thousand pods: of one that runs only those matter that have not started. One
    of which the Job controller has not counted any is believed to have none, until it should.
    """
    state = job_state(job)
    if state in (JobState.SUCCEEDED, JobState.FAILED):
        return {}
    if state is JobState.PENDING:
        counted = job.get("status", {}).get("active", 0) > 0
        return {} if counted or _overdue(_pending_since(job, state, ()), now) else None
    return {"fieldSelector": "status.phase=Pending"} if _partly(job, state) else None


def _partly(job: Json, state: JobState) -> bool:
    """Return whether a Job runs and not all of its pods do."""
    status = job.get("status", {})
    return state is JobState.RUNNING and status.get("active", 0) > status.get("ready", 0)


def _overdue(since: datetime | None, now: datetime | None) -> bool:
    """Return whether a Job that has waited since then should have its pods by now."""
    return since is not None and now is not None and now - since >= LACKING


def is_ending(job: Json) -> bool:
    """Return whether a Job is decided and only its controller has yet to say so (within moments).

    Nothing is decided by it: the result is read once, at Complete or Failed.
    """
    return _decided(job.get("status", {})) and job_state(job) is JobState.RUNNING


def gist(job: Json) -> tuple[object, ...]:
    """Return what of a Job asks for a pass when it changes.

    The Job controller writes a Job's status about five times; the counts between its start and its
    end change no decision. What follows from time alone has its own time to be looked at.
    """
    state = job_state(job)
    template = job["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
    going = bool(job["metadata"].get("deletionTimestamp"))
    return state, _partly(job, state), _resuming(job), template, going


def stage_job(job: Json, pods: Sequence[Json] = (), now: datetime | None = None) -> StageJob:
    """Return a Job as the planner sees it.

    Parameters
    ----------
    job
        A Job for which :func:`is_stage_job` holds.
    pods
        Its pods, where :func:`needs_pods` asks for them.
    now
        The time; why pods wait is not said of those younger than :data:`SETTLE`.
    """
    metadata = job["metadata"]
    labels, state = metadata["labels"], job_state(job)
    if state is JobState.PENDING and any(_started(pod) for pod in pods):
        state = JobState.RUNNING  # it has ended, and is not counted yet
    unfinished = state in (JobState.PENDING, JobState.RUNNING)
    waiting = [pod for pod in pods if _waits(pod)] if unfinished else []
    since = _pending_since(job, state, waiting)
    return StageJob(
        name=metadata["name"],
        generation=int(labels[names.LABEL_GENERATION]),
        stage=_STAGES[labels[names.LABEL_COMPONENT]],
        attempt=int(labels[names.LABEL_ATTEMPT]),
        state=state,
        result=_result(pods) if state is JobState.SUCCEEDED else None,
        failure=_failure(job, pods) if state is JobState.FAILED else None,
        create_time=_time(metadata.get("creationTimestamp")),
        start_time=None if _resuming(job) else _time(job.get("status", {}).get("startTime")),
        pending_since=since,
        waiting=_waiting(_settled(waiting, now)) or _lacking(pods, state, since, now),
        queued=_in_queue(job),
    )


def _pending_since(job: Json, state: JobState, waiting: Sequence[Json]) -> datetime | None:
    """Return since when a pod has waited to start.

    The Job's own clock will not do: a pod that was preempted after hours is made again, and waits
    from then on. While there is no pod at all (the Job controller backs off, or a quota forbids
    one), the Job has waited since its status last changed.
    """
    if _resuming(job):
        return None
    times = [at for pod in waiting if (at := _time(pod["metadata"].get("creationTimestamp")))]
    if times:
        return min(times)
    started = _time(job.get("status", {}).get("startTime"))
    if state is not JobState.PENDING or started is None:
        return None
    return max(started, _time(job["metadata"].get(CHANGED)) or started)


def _lacking(
    pods: Sequence[Json], state: JobState, since: datetime | None, now: datetime | None
) -> str:
    """Return that a Job has no pod, where it should have one by now."""
    if state is not JobState.PENDING or pods or not _overdue(since, now):
        return ""
    return "no pod has been created: see the Job's events (a quota, or Pod Security)"


def last_change(job: Json) -> str | None:
    """Return when a Job's status last changed, by the API server's record of who wrote what."""
    entries = job["metadata"].get("managedFields") or []
    times = (e.get("time") for e in entries if e.get("subresource") == "status")
    return max(filter(None, times), default=None)


def _in_queue(job: Json) -> bool:
    return names.LABEL_QUEUE in job["metadata"].get("labels", {})


def _result(pods: Iterable[Json]) -> StageResult | None:
    """Return the stage's result: the one of the pod that completed it."""
    for ended in filter(None, (_ended(pod) for pod in pods)):
        said = decode_message(ended.get("message", ""))
        if isinstance(said, StageResult):
            return said
    return None


def _failure(job: Json, pods: Sequence[Json]) -> Failure:
    """Return why a Job failed: in its pods' words, or else in its own."""
    condition = _condition(job.get("status", {}), "Failed") or {}
    if condition.get("reason") == "DeadlineExceeded":
        return Failure("it passed its deadline", deadline=True)
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not failed:
        # Deleted with its node, or by hand: nothing says that the stage itself was at fault.
        text = condition.get("message") or condition.get("reason") or "its pods are gone"
        return Failure(text, disrupted=True)
    said = [_pod_failure(pod) for pod in failed]
    # With several shards the others are ended because of the first: bad input says most, then a
    # failure with words, then what was taken away.
    return min(said, key=lambda f: (f.exit_code != ExitCode.BAD_INPUT, f.disrupted, not f.message))


def _pod_failure(pod: Json) -> Failure:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    ended = _ended(pod)
    target = _condition(status, "DisruptionTarget")
    if ended is None or target or status.get("reason") in _TAKEN:
        text = (target or {}).get("message") or status.get("message") or "its pod was taken away"
        return Failure(f"{name}: {text}", disrupted=True)
    code = int(ended.get("exitCode", 1))
    said = decode_message(ended.get("message", ""))
    if isinstance(said, FailureMessage):
        return Failure(said.error, exit_code=code)
    reason = ended.get("reason", "Error")
    if reason == "OOMKilled":
        text = f"{name} ran out of memory: raise `podTemplate` resources, or lower the batch sizes"
        return Failure(text, exit_code=code)
    text = f"{name} ended with code {code} ({reason})"
    return Failure(text, exit_code=code)


def _started(pod: Json) -> bool:
    """Return whether a pod's container has ever run."""
    containers = pod.get("status", {}).get("containerStatuses", [])
    return any(c.get("state", {}).keys() & {"running", "terminated"} for c in containers)


def _waits(pod: Json) -> bool:
    """Return whether a pod is yet to start; one that is being deleted never will."""
    phase = pod.get("status", {}).get("phase", "Pending")
    return phase == "Pending" and "deletionTimestamp" not in pod["metadata"] and not _started(pod)


def _ended(pod: Json) -> Json | None:
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["name"] == names.CONTAINER:
            ended: Json | None = container.get("state", {}).get("terminated")
            return ended
    return None


def _resuming(job: Json) -> bool:
    """Whether a Job may run again and its controller has not seen that: its clock is old."""
    suspended = _condition(job.get("status", {}), "Suspended") is not None
    return suspended and not job["spec"].get("suspend")


def _settled(pods: Iterable[Json], now: datetime | None) -> list[Json]:
    return [pod for pod in pods if now is None or _age(pod, now) >= SETTLE]


def _age(pod: Json, now: datetime) -> timedelta:
    created = _time(pod["metadata"].get("creationTimestamp"))
    return now - created if created else SETTLE


def _waiting(pods: Iterable[Json]) -> str:
    """Return why pods do not start; empty where all is well."""
    for pod in pods:
        status = pod.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return _words(condition)
        for container in status.get("containerStatuses", []):
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason", "") not in _NORMAL_WAITS:
                return _words(waiting, container.get("image", ""))
    return ""


def _words(said: Json, image: str = "") -> str:
    """Return a reason and its message; what changes with every look would make a write each time.

    ImagePullBackOff and ErrImagePull take turns, and so do their messages: one word for both.
    """
    reason = said.get("reason", "")
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        return (
            f"ImagePullBackOff: the image {image} cannot be pulled: see `podTemplate` image, its "
            "pull secrets, and the pod's events"
        )
    return f"{reason}: {said.get('message', '')}".rstrip(": ")[:500]


def _decided(status: Json) -> bool:
    return any(_condition(status, kind) for kind in ("SuccessCriteriaMet", "FailureTarget"))


def _condition(status: Json, kind: str) -> Json | None:
    for condition in status.get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            found: Json = condition
            return found
    return None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
