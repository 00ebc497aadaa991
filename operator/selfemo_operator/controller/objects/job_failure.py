"""Why a Job has failed, from its pods and conditions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage, decode_message
from selfemo_operator.controller.objects.pod_status import (
    has_started,
    terminated_state,
    true_condition,
)
from selfemo_operator.planner.types import Failure

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


def failure_of(job: Json, pods: Sequence[Json]) -> Failure:
    """Return why a Job failed: from its pods if there are any, otherwise from its condition.

    Parameters
    ----------
    job
        The Job, which has failed.
    pods
        All of its pods that still exist.
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
    # If one of several shards fails, the others are ended. Bad input explains the most, then a
    # damaged result, then a failure with a message, then a disruption. A pod that was rejected
    # comes first among these: the Job replaces the others itself.
    return min(
        failures,
        key=lambda f: (
            f.exit_code != ExitCode.BAD_INPUT,
            f.damaged is None,
            f.disrupted,
            not f.rejected,
            not f.message,
        ),
    )


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
    return _container_failure(name, terminated)


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
