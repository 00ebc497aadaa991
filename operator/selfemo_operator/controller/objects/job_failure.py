"""Why a Job has failed, from its pods and conditions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage, decode_message
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.pod_status import (
    has_started,
    parse_time,
    removal_time,
    terminated_state,
    true_condition,
)
from selfemo_operator.planner.types import DISRUPTED_EXITS, Failure

Json = dict[str, Any]

#: Reasons of a pod that the platform has ended.
_DISRUPTION_REASONS = (
    "NodeLost",
    "NodeShutdown",
    "Shutdown",
    "Terminated",
    "Preempting",
)
#: Reasons of a container whose end nothing has seen, as after a reboot of its node: containerd
#: reports `Unknown`, and the kubelet the other one.
_LOST_REASONS = ("Unknown", "ContainerStatusUnknown")
#: The longest time in which the other nodes of a training notice that one is gone: NCCL waits ten
#: minutes for a peer that does not close its connections.
_PEER_WAIT = timedelta(minutes=15)
#: The exit code of a container that was killed.
_KILLED = 137


def failure_of(job: Json, pods: Sequence[Json], removals: Sequence[datetime] = ()) -> Failure:
    """Return why a Job failed: from its pods if there are any, otherwise from its condition.

    Parameters
    ----------
    job
        The Job, which has failed.
    pods
        All of its pods that still exist.
    removals
        When the platform removed pods of the Job. By the end of the Job, such pods are usually
        gone.
    """
    condition = true_condition(job.get("status", {}), "Failed") or {}
    if condition.get("reason") == "DeadlineExceeded":
        return Failure("the deadline has passed", deadline=True)
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    if not failed:
        # Deleted with its node, or by hand: nothing indicates that the stage caused the failure.
        text = condition.get("message") or condition.get("reason") or "its pods are gone"
        return Failure(text, disrupted=True)
    failures = [_pod_failure(pod) for pod in failed]
    if job["metadata"]["labels"][names.LABEL_COMPONENT] == Stage.TRAIN.slug:
        times = [parse_time(removal_time(pod)) for pod in failed]
        removed = [(at, f.message) for at, f in zip(times, failures, strict=True) if at]
        removed += [(at, "the platform removed another pod of the training") for at in removals]
        failures = [
            _after_removal(failure, pod, removed)
            for failure, pod in zip(failures, failed, strict=True)
        ]
    return min(failures, key=_rank)


def _rank(failure: Failure) -> tuple[bool, ...]:
    """Return the place of a pod's failure among those of its Job: the one that explains the most.

    If one of several shards fails, the Job controller ends the others. So those that something
    outside has ended, by their exit code too, come after a failure of the stage itself. A pod that
    was rejected comes first among the disruptions: the Job replaces the others itself.
    """
    return (
        failure.exit_code != ExitCode.BAD_INPUT,
        failure.damaged is None,
        failure.disrupted or failure.exit_code in DISRUPTED_EXITS,
        not failure.rejected,
        failure.disrupted,
        failure.exit_code == ExitCode.TERMINATED,
        not failure.message,
    )


def _after_removal(failure: Failure, pod: Json, removed: Sequence[tuple[datetime, str]]) -> Failure:
    """Return the failure of a training's pod, as a disruption if the removal of another caused it.

    The nodes of a training end together. If one is removed, the failure of another is about the
    connection, or has no message. A pod that failed before the removal, or long after it, had its
    own reason. So did one that ran out of memory, has bad input, or names a damaged result.

    Parameters
    ----------
    failure
        The failure of the pod, taken by itself.
    pod
        The pod.
    removed
        When other pods of the Job were removed, and what is known of it.
    """
    terminated = terminated_state(pod) or {}
    began, ended = (parse_time(terminated.get(name)) for name in ("startedAt", "finishedAt"))
    has_own_reason = (
        failure.exit_code in (ExitCode.BAD_INPUT, *DISRUPTED_EXITS)
        or failure.damaged is not None
        or terminated.get("reason") == "OOMKilled"
    )
    if failure.disrupted or has_own_reason or began is None or ended is None:
        return failure
    # a pod that is removed has this time to end
    grace = timedelta(seconds=pod.get("spec", {}).get("terminationGracePeriodSeconds") or 0)
    for at, text in removed:
        if began <= at <= ended <= at + grace + _PEER_WAIT:
            message = f"{text}; after it, {failure.message}"
            return Failure(message, exit_code=failure.exit_code, disrupted=True)
    return failure


def _pod_failure(pod: Json) -> Failure:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    terminated = terminated_state(pod)
    target = true_condition(status, "DisruptionTarget")
    disrupted = bool(target) or status.get("reason") in _DISRUPTION_REASONS
    if status.get("reason") == "Evicted" and not target:
        return Failure(f"{name}: {_own_eviction(status)}")
    if terminated is None and not disrupted and (text := _init_failure(pod)):
        return Failure(f"{name}: {text}")
    if terminated is None or disrupted:
        text = (target or {}).get("message") or status.get("message") or "the pod was removed"
        rejected = target is None and not has_started(pod)
        return Failure(f"{name}: {text}", disrupted=True, rejected=rejected)
    if "deletionTimestamp" in pod["metadata"] and _was_killed(terminated):
        return Failure(f"{name} was deleted, and did not terminate in time", disrupted=True)
    return _container_failure(name, terminated)


def _was_killed(terminated: Json) -> bool:
    """Return whether the kubelet killed a container, and not for its memory."""
    is_silent = not terminated.get("message") and terminated.get("reason") != "OOMKilled"
    return is_silent and terminated.get("exitCode") == _KILLED


def _container_failure(name: str, terminated: Json) -> Failure:
    """Return why a pod failed, from the terminated state of the stage's container."""
    code = int(terminated.get("exitCode", 1))
    message = decode_message(terminated.get("message", ""))
    if isinstance(message, FailureMessage):
        return Failure(message.error, exit_code=code, damaged=message.damaged)
    reason = terminated.get("reason", "Error")
    if reason in _LOST_REASONS:
        return Failure(f"{name}: its node has lost the container ({reason})", disrupted=True)
    if reason == "OOMKilled":
        text = (
            f"{name} ran out of memory: raise the memory in `podTemplate` resources, or lower the "
            "batch sizes"
        )
        return Failure(text, exit_code=code)
    text = f"{name} ended with exit code {code} ({reason})"
    return Failure(text, exit_code=code)


def _own_eviction(status: Json) -> str:
    """Return why the kubelet has evicted a pod for what the pod itself did.

    With the pressure of its node, an evicted pod has the condition `DisruptionTarget` too.
    """
    message = str(status.get("message", "")).strip().rstrip(".") or "the pod was evicted"
    return (
        f"{message}: raise `ephemeral-storage` in the resources of `podTemplate`, or the "
        "`sizeLimit` of its volume"
    )


def _init_failure(pod: Json) -> str:
    """Return which init container of a pod failed and how, or an empty text if none did."""
    for container in pod.get("status", {}).get("initContainerStatuses", []):
        terminated = container.get("state", {}).get("terminated") or {}
        if terminated.get("exitCode", 0) != 0:
            code, reason = terminated["exitCode"], terminated.get("reason", "Error")
            text = f"the init container {container['name']} ended with exit code {code} ({reason})"
            return f"{text}: {terminated.get('message', '').strip()}"[:500].rstrip(": ")
    return ""
