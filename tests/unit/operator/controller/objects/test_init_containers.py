"""How a pod's init containers are seen: waiting, running, and failed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.controller.kube_objects import (
    NOW,
    condition,
    job_of,
    pod_of,
    terminated,
)

from selfemo_operator.controller.objects.job_status import stage_job
from selfemo_operator.planner.types import JobState, StageJob

Json = dict[str, Any]
#: The stage's container while init containers run.
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
RUNNING: Json = {"running": {}}


def pod(
    *states: Json, main: Json = INITIALIZING, sidecars: tuple[int, ...] = (), **more: Any
) -> Json:
    """Return a pod, created an hour ago, whose init containers are in some states."""
    statuses = [{"name": f"init-{i}", "image": "i", "state": s} for i, s in enumerate(states)]
    created = pod_of(state=main, initContainerStatuses=statuses, **more)
    always = {i: {"restartPolicy": "Always"} for i in sidecars}
    inits = [{"name": f"init-{i}", **always.get(i, {})} for i in range(len(states))]
    return {**created, "spec": {"initContainers": inits}}


def converted(pod: Json) -> StageJob:
    return stage_job(job_of({"active": 1, "ready": 0}), [pod], NOW)


def ended(at: str = "2026-01-01T11:50:00Z") -> Json:
    return terminated(0, finishedAt=at)


def test_a_pod_whose_init_container_runs_has_started() -> None:
    """A download may take longer than `deadlines.stagePendingSeconds`."""
    job = converted(pod(ended(), RUNNING))
    assert (job.state, job.pending_since, job.waiting) == (JobState.RUNNING, None, "")


@pytest.mark.parametrize(
    "unfinished",
    [
        pod({"waiting": {"reason": "ErrImagePull"}}),
        pod(RUNNING, {"waiting": {"reason": "ImagePullBackOff"}}, sidecars=(0,)),
    ],
    ids=["the first", "beside a sidecar"],
)
def test_an_init_container_without_its_image_is_reported(unfinished: Json) -> None:
    job = converted(unfinished)
    assert (job.state, job.pending_since) == (JobState.PENDING, NOW - timedelta(hours=1))
    assert job.waiting.startswith("ImagePullBackOff: the image i cannot be pulled")


def test_the_stages_image_is_waited_for_from_the_end_of_the_init_containers() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull"}}
    for sidecars, states in (((), [ended()]), ((0,), [RUNNING, ended()])):
        job = converted(pod(*states, main=waiting, sidecars=sidecars))
        assert job.state is JobState.PENDING
        assert job.pending_since == NOW - timedelta(minutes=10)
        assert "ImagePullBackOff" in job.waiting


def failed(pod: Json) -> Any:
    return stage_job(job_of({"conditions": [condition("Failed")]}), [pod], NOW).failure


def test_a_failed_init_container_is_a_failure_of_the_stage() -> None:
    """Its exit codes are not those of a stage: 2 is not bad input, and the stage is retried."""
    state = terminated(2, "no such bucket\n", reason="Error")
    failure = failed(pod(ended(), state, phase="Failed"))
    assert failure.message == (
        "pod-0: the init container init-1 ended with exit code 2 (Error): no such bucket"
    )
    assert (failure.disrupted, failure.exit_code) == (False, None)
    long = failed(pod(terminated(1, "x" * 4096), phase="Failed"))
    assert len(long.message) < 600


def test_a_disruption_during_an_init_container_is_one() -> None:
    target = condition("DisruptionTarget", message="preempted")
    failure = failed(pod(terminated(137), phase="Failed", conditions=[target]))
    assert (failure.message, failure.disrupted) == ("pod-0: preempted", True)


def test_a_sidecar_that_was_ended_with_the_stage_did_not_fail() -> None:
    main = terminated(1, reason="Error")
    failure = failed(pod(terminated(143), main=main, sidecars=(0,), phase="Failed"))
    assert (failure.message, failure.exit_code) == ("pod-0 ended with exit code 1 (Error)", 1)
