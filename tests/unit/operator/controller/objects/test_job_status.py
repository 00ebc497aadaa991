"""The conversion of a Job and its pods for the planner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.controller.kube_objects import (
    NOW,
    condition,
    evolution_of,
    job_of,
    pod_of,
    terminated,
)
from tests.unit.operator.planner.simulated_world import result_of

from selfemo_api.results import FailureMessage, ShardResult, encode_message
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import (
    LOST_POD_AGE,
    MISSING_POD_AGE,
    STATUS_CHANGE_TIME,
    is_stage_job,
    job_state,
    last_status_change,
    pod_query,
    relevant_state,
    stage_job,
)
from selfemo_operator.controller.objects.pod_status import LIVE_PODS
from selfemo_operator.planner.types import JobState

Json = dict[str, Any]
RESULT = result_of(0, Stage.EVALUATE)
MESSAGE = encode_message(RESULT)
STARTED = {"startTime": "2026-01-01T10:00:05Z"}


def failed(*pods: Json, **fields: Any) -> Any:
    job = job_of({"conditions": [condition("Failed", **fields)]})
    return stage_job(job, pods, NOW).failure


# States ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, JobState.PENDING),
        ({"active": 1, "ready": 0}, JobState.PENDING),
        ({"active": 1, "ready": 1}, JobState.RUNNING),
        ({"active": 1, "succeeded": 1}, JobState.RUNNING),
        ({"terminating": 1}, JobState.RUNNING),
        ({"uncountedTerminatedPods": {"succeeded": ["x"]}}, JobState.RUNNING),
        ({"uncountedTerminatedPods": {}}, JobState.PENDING),
        ({"conditions": [condition("Complete")]}, JobState.SUCCEEDED),
        ({"conditions": [condition("Failed")]}, JobState.FAILED),
        ({"conditions": [condition("Failed", "False")]}, JobState.PENDING),
        ({"conditions": [condition("FailureTarget")]}, JobState.RUNNING),
        ({"conditions": [condition("SuccessCriteriaMet")]}, JobState.RUNNING),
    ],
)
def test_state(status: Json, expected: JobState) -> None:
    assert job_state(job_of(status)) is expected


def test_suspended_by_a_queue_or_by_the_evolution() -> None:
    assert job_state(job_of(suspend=True)) is JobState.SUSPENDED
    assert job_state(job_of(suspend=True, queue="gpus")) is JobState.QUEUED
    assert stage_job(job_of(queue="gpus")).queued
    assert not stage_job(job_of()).queued


def test_a_finished_job_is_finished_even_if_suspended() -> None:
    status = {"conditions": [condition("Complete")]}
    assert job_state(job_of(status, suspend=True)) is JobState.SUCCEEDED


@pytest.mark.parametrize("decided", ["SuccessCriteriaMet", "FailureTarget"])
def test_a_job_that_was_suspended_while_its_pod_ended_is_resumed(decided: str) -> None:
    """The Job controller completes it only then."""
    status = {"conditions": [condition(decided)], "succeeded": 1}
    assert job_state(job_of(status, suspend=True)) is JobState.SUSPENDED


def test_a_pod_that_ended_before_the_job_counted_it_was_running() -> None:
    job = job_of({**STARTED, "active": 1, "ready": 0})
    converted = stage_job(job, [pod_of("Succeeded", terminated(0, MESSAGE))], NOW)
    assert (converted.state, converted.pending_since, converted.result) == (
        JobState.RUNNING,
        None,
        None,
    )


def test_generation_stage_and_attempt_come_from_the_labels() -> None:
    converted = stage_job(job_of())
    assert converted.key == (0, Stage.EVALUATE, 1)
    assert converted.create_time is not None


@pytest.mark.parametrize(
    "change",
    [
        {names.LABEL_COMPONENT: "operator"},
        {names.LABEL_GENERATION: "x"},
        {names.LABEL_ATTEMPT: ""},
        {names.LABEL_ATTEMPT: "2"},
        {names.LABEL_EVOLUTION: "other"},
    ],
)
def test_labels_that_do_not_match_the_name(change: dict[str, str]) -> None:
    job = job_of()
    assert is_stage_job(job)
    job["metadata"]["labels"] |= change
    assert not is_stage_job(job)


def test_a_users_copy_is_not_a_stage_job() -> None:
    assert not is_stage_job(job_of(name="demo-g000-evaluate-1-debug"))
    assert not is_stage_job({"metadata": {"name": "x"}, "spec": {}})


# Results -----------------------------------------------------------------------------------------


def test_the_result_is_the_message_of_the_last_shard() -> None:
    shard = encode_message(ShardResult(stage=Stage.EVALUATE, generation=0, shard=1))
    job = job_of({"conditions": [condition("Complete")]})
    pods = [
        pod_of("Failed", terminated(137)),
        pod_of("Succeeded", terminated(0, shard)),
        pod_of("Succeeded", terminated(0, MESSAGE)),
    ]
    assert stage_job(job, pods, NOW).result == RESULT


@pytest.mark.parametrize("text", ["", "{", MESSAGE[:100], "null"])
def test_a_missing_or_truncated_message_is_not_a_result(text: str) -> None:
    job = job_of({"conditions": [condition("Complete")]})
    assert stage_job(job, [pod_of("Succeeded", terminated(0, text))], NOW).result is None
    assert stage_job(job, [], NOW).result is None


def test_only_the_message_of_the_stages_container_is_read() -> None:
    job = job_of({"conditions": [condition("Complete")]})
    pod = pod_of("Succeeded", terminated(0, MESSAGE))
    pod["status"]["containerStatuses"][0]["name"] = "istio-proxy"
    assert stage_job(job, [pod], NOW).result is None


# Failures ----------------------------------------------------------------------------------------


def test_a_failure_has_the_stages_message_and_exit_code() -> None:
    text = encode_message(FailureMessage(error="no such column", kind="BadInput"))
    failure = failed(pod_of("Failed", terminated(2, text)))
    assert (failure.message, failure.exit_code, failure.disrupted) == ("no such column", 2, False)


def test_bad_input_comes_before_the_shards_that_were_ended() -> None:
    message = encode_message(FailureMessage(error="ended by SIGTERM", kind="Terminated"))
    bad = encode_message(FailureMessage(error="bad", kind="BadInput"))
    pods = [
        pod_of("Failed", terminated(143, message)),
        pod_of("Failed", conditions=[condition("DisruptionTarget")]),
        pod_of("Failed", terminated(2, bad)),
    ]
    for order in (pods, pods[::-1]):
        assert failed(*order).exit_code == 2


def test_bad_input_comes_before_a_damaged_result() -> None:
    """A recovery cannot help: only a user can fix the input."""
    damaged = FailureMessage(error="no part", kind="DamagedResult", damaged=Stage.TRAIN)
    bad = FailureMessage(error="bad", kind="BadInput")
    pods = [
        pod_of("Failed", terminated(65, encode_message(damaged))),
        pod_of("Failed", terminated(2, encode_message(bad))),
    ]
    for order in (pods, pods[::-1]):
        assert failed(*order).exit_code == 2


def test_a_shards_own_failure_comes_before_those_that_were_ended_with_it() -> None:
    own = pod_of("Failed", terminated(1, encode_message(FailureMessage(error="own", kind="X"))))
    ended = encode_message(FailureMessage(error="ended by SIGTERM", kind="Terminated"))
    away = encode_message(FailureMessage(error="S3 is away", kind="Unavailable"))
    killed = pod_of("Failed", terminated(137, reason="Error"))
    killed["metadata"]["deletionTimestamp"] = "2026-01-01T11:30:00Z"
    pods = [
        pod_of("Failed", conditions=[condition("DisruptionTarget")]),
        killed,
        pod_of("Failed", terminated(143, ended)),
        pod_of("Failed", terminated(75, away)),
        own,
    ]
    for message in ("own", "S3 is away", "ended by SIGTERM"):
        assert failed(*pods).message == failed(*pods[::-1]).message == message
        pods.pop()
    assert failed(*pods).disrupted
    assert failed(killed).disrupted


# A pod of a training that ran from 11:00 to 12:00.
TIMES = {"startedAt": "2026-01-01T11:00:00Z", "finishedAt": "2026-01-01T12:00:00Z"}
LOST = encode_message(FailureMessage(error="no answer", kind="Internal"))


def training_failed(*pods: Json) -> Any:
    job = job_of({"conditions": [condition("Failed")]}, stage=Stage.TRAIN)
    return stage_job(job, pods, NOW).failure


def removed(at: str) -> Json:
    target = condition("DisruptionTarget", message="drained", lastTransitionTime=at)
    return pod_of("Failed", terminated(137), conditions=[target])


def test_a_training_that_fails_since_a_node_was_removed_is_disrupted() -> None:
    pods = [pod_of("Failed", terminated(1, LOST, **TIMES)), removed("2026-01-01T11:50:00Z")]
    for order in (pods, pods[::-1]):
        failure = training_failed(*order)
        assert failure.disrupted
        assert failure.message.startswith("pod-0: drained")
        assert not failed(*order).disrupted  # shards of other stages do not need each other


@pytest.mark.parametrize(("minutes", "disrupted"), [(50, True), (70, False), (30, False)])
def test_the_removed_pod_may_be_gone_when_the_job_fails(minutes: int, disrupted: bool) -> None:
    """The Job controller waits for it, before it sets the condition."""
    job = job_of({"conditions": [condition("Failed")]}, stage=Stage.TRAIN)
    removals = [datetime(2026, 1, 1, 11, tzinfo=UTC) + timedelta(minutes=minutes)]
    pods = [pod_of("Failed", terminated(1, LOST, **TIMES))]
    failure = stage_job(job, pods, NOW, removals).failure
    assert failure is not None
    assert failure.disrupted == disrupted
    assert ("removed another pod of the training; after it" in failure.message) == disrupted


@pytest.mark.parametrize(
    ("state", "at"),
    [
        (terminated(1, LOST, **TIMES), "2026-01-01T12:00:01Z"),  # it failed first
        (terminated(1, LOST, **TIMES), "2026-01-01T11:30:00Z"),  # it went on without it
        (terminated(1, LOST, **TIMES), "2026-01-01T10:59:59Z"),  # one of before
        (terminated(1, LOST), "2026-01-01T11:50:00Z"),  # nothing says when
        (terminated(137, reason="OOMKilled", **TIMES), "2026-01-01T11:50:00Z"),
        (terminated(2, LOST, **TIMES), "2026-01-01T11:50:00Z"),
    ],
)
def test_a_training_that_fails_by_itself_is_not_disrupted_by_a_removal(
    state: Json, at: str
) -> None:
    failure = training_failed(removed(at), pod_of("Failed", state))
    assert (failure.disrupted, failure.exit_code) == (False, state["terminated"]["exitCode"])


def test_out_of_memory_is_named() -> None:
    failure = failed(pod_of("Failed", terminated(137, reason="OOMKilled")))
    assert "ran out of memory" in failure.message
    assert not failure.disrupted


@pytest.mark.parametrize(
    "pod",
    [
        pod_of(
            "Failed",
            terminated(137),
            conditions=[condition("DisruptionTarget", message="preempted")],
        ),
        pod_of(
            "Failed",
            terminated(137),
            reason="Evicted",
            message="the node was low on disk",
            conditions=[condition("DisruptionTarget")],
        ),
        pod_of("Failed", terminated(137), reason="NodeShutdown"),
        pod_of("Failed", reason="OutOfcpu"),
        pod_of("Failed", terminated(255, reason="Unknown")),  # its node was started again
        pod_of("Failed", terminated(137, reason="ContainerStatusUnknown")),
        pod_of("Failed"),
    ],
)
def test_a_pod_removed_by_the_platform_is_a_disruption(pod: Json) -> None:
    assert failed(pod).disrupted


REJECTED = pod_of(
    "Failed", reason="UnexpectedAdmissionError", message="Pod was rejected: no healthy devices"
)
PREEMPTED = pod_of("Failed", terminated(137), conditions=[condition("DisruptionTarget")])


@pytest.mark.parametrize(
    ("pod", "rejected"),
    [
        (REJECTED, True),
        (pod_of("Failed", {"waiting": {}}, reason="OutOfcpu"), True),
        (PREEMPTED, False),
        (pod_of("Failed", conditions=[condition("DisruptionTarget")]), False),
        (pod_of("Failed", terminated(137), reason="NodeShutdown"), False),
        (pod_of("Failed", terminated(255, reason="Unknown")), False),
    ],
)
def test_a_pod_that_a_kubelet_rejected_has_never_started(pod: Json, rejected: bool) -> None:
    failure = failed(pod)
    assert (failure.disrupted, failure.rejected) == (True, rejected)


def test_a_rejected_pod_explains_more_than_a_preempted_one() -> None:
    """The Job itself replaces the preempted one."""
    for other in (PREEMPTED, pod_of("Failed", terminated(143))):
        for order in ([REJECTED, other], [other, REJECTED]):
            assert failed(*order).message == "pod-0: Pod was rejected: no healthy devices"


def test_a_pod_that_passes_its_own_disk_limit_has_failed() -> None:
    message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
    failure = failed(pod_of("Failed", terminated(137), reason="Evicted", message=message))
    assert not failure.disrupted
    assert "containers 1Gi: raise `ephemeral-storage`" in failure.message


def test_the_own_message_of_a_lost_container_counts() -> None:
    message = encode_message(FailureMessage(error="no such file", kind="BadInput"))
    failure = failed(pod_of("Failed", terminated(2, message, reason="Unknown")))
    assert (failure.message, failure.exit_code) == ("no such file", 2)


def test_a_failure_without_pods_is_a_disruption() -> None:
    assert failed(reason="BackoffLimitExceeded").disrupted


def test_a_passed_deadline_is_reported_as_one() -> None:
    failure = failed(pod_of("Failed", terminated(143)), reason="DeadlineExceeded")
    assert failure.deadline


# Waiting -----------------------------------------------------------------------------------------

UNSCHEDULABLE = condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes")


def waiting(*pods: Json, **status: Any) -> Any:
    return stage_job(job_of({**STARTED, "active": 1, **status}), pods, NOW)


def test_the_reason_why_a_pod_waits() -> None:
    assert waiting(pod_of(conditions=[UNSCHEDULABLE])).waiting == "Unschedulable: 0/3 nodes"
    secret = {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}
    assert waiting(pod_of(state=secret)).waiting == "CreateContainerConfigError: no secret"
    for reason in ("ContainerCreating", "PodInitializing"):
        assert waiting(pod_of(state={"waiting": {"reason": reason}})).waiting == ""


def test_alternating_errors_have_one_reason() -> None:
    reasons = {
        waiting(pod_of(state={"waiting": {"reason": reason, "message": f"{number}"}})).waiting
        for number, reason in enumerate(("ErrImagePull", "ImagePullBackOff", "ErrImagePull"))
    }
    assert len(reasons) == 1


def test_the_reason_of_a_young_pod_is_not_reported() -> None:
    pod = pod_of(conditions=[UNSCHEDULABLE])
    pod["metadata"]["creationTimestamp"] = "2026-01-01T11:59:57Z"
    assert waiting(pod).waiting == ""


def test_pending_since_is_that_of_the_oldest_pod() -> None:
    young, old = pod_of(), pod_of()
    young["metadata"]["creationTimestamp"] = "2026-01-01T11:30:00Z"
    assert waiting(young, old).pending_since == NOW - timedelta(hours=1)
    assert waiting(young).pending_since == NOW - timedelta(minutes=30)


def test_a_pod_that_is_being_deleted_does_not_count() -> None:
    pod = pod_of()
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T11:59:00Z"
    assert waiting(pod, ready=1).pending_since is None


def test_a_shard_that_waits_while_others_run() -> None:
    pods = [pod_of("Running", {"running": {}}), pod_of(conditions=[UNSCHEDULABLE])]
    converted = waiting(*pods, active=2, ready=1)
    assert (converted.state, converted.waiting) == (JobState.RUNNING, "Unschedulable: 0/3 nodes")
    assert converted.pending_since == NOW - timedelta(hours=1)


def test_without_a_pod_pending_since_is_the_last_status_change() -> None:
    entries = [
        {"subresource": "status", "time": "2026-01-01T11:00:00Z"},
        {"subresource": "status", "time": "2026-01-01T11:50:00Z"},
        {"time": "2026-01-01T11:59:00Z"},
    ]
    changed = last_status_change(job_of(managedFields=entries))
    assert changed == "2026-01-01T11:50:00Z"
    job = job_of({**STARTED}, **{STATUS_CHANGE_TIME: changed})
    assert stage_job(job, [], NOW).pending_since == NOW - timedelta(minutes=10)
    assert "no pod has been created" in stage_job(job, [], NOW).waiting
    assert last_status_change(job_of()) is None


def training(**status: Any) -> Json:
    """Return the Job of a training on two nodes whose status last changed at 11:50."""
    job = job_of({**STARTED, **status}, **{STATUS_CHANGE_TIME: "2026-01-01T11:50:00Z"})
    job["metadata"]["labels"] = names.stage_labels(evolution_of(), Stage.TRAIN, 1)
    job["spec"]["parallelism"] = 2
    return job


def test_a_training_waits_for_a_pod_that_a_quota_refuses() -> None:
    partial = stage_job(training(active=1, ready=1), [], NOW)
    assert partial.pending_since == NOW - timedelta(minutes=10)
    assert partial.waiting == "1 of 2 pods exist: see the Job's events (a quota)"
    assert partial.has_running_pods
    young = stage_job(training(active=1, ready=1), [], NOW - timedelta(minutes=9, seconds=50))
    assert young.waiting == ""


@pytest.mark.parametrize(
    "status",
    [
        {"active": 2, "ready": 1},
        {"active": 1, "ready": 1, "succeeded": 1},
        {"active": 1, "ready": 1, "terminating": 1},
        {"active": 1, "ready": 1, "uncountedTerminatedPods": {"succeeded": ["uid"]}},
    ],
)
def test_a_training_with_all_of_its_pods_does_not_wait(status: Json) -> None:
    converted = stage_job(training(**status), [], NOW)
    assert (converted.pending_since, converted.waiting) == (None, "")


def shards(**status: Any) -> Json:
    """Return the Job of a self-play with four shards whose status last changed at 11:50."""
    job = training(**status)
    job["metadata"]["labels"] = names.stage_labels(evolution_of(), Stage.SELF_PLAY, 1)
    job["spec"] |= {"parallelism": 4, "completions": 4}
    return job


def test_shards_wait_once_all_that_exist_have_ended() -> None:
    job = shards(active=0, succeeded=2)
    converted = stage_job(job, [], NOW)
    assert converted.pending_since == converted.idle_since == NOW - timedelta(minutes=10)
    assert converted.waiting == (
        "2 of 4 pods have succeeded; for the others, no pod has been created: see the Job's events "
        "(a quota, or Pod Security)"
    )
    assert (converted.has_running_pods, converted.missing_pods_since) == (False, None)
    young = stage_job(job, [], NOW - timedelta(minutes=9, seconds=50))
    assert young.waiting == ""


@pytest.mark.parametrize(
    "status",
    [
        {"active": 1, "ready": 1},
        {"active": 1, "ready": 1, "succeeded": 2},
        {"succeeded": 2, "terminating": 1},
        {"succeeded": 3, "uncountedTerminatedPods": {"succeeded": ["uid"]}},
        {"succeeded": 4},
        {"succeeded": 2, "failed": 1, "conditions": [condition("FailureTarget")]},
    ],
)
def test_shards_do_not_wait_while_others_run_or_end(status: Json) -> None:
    converted = stage_job(shards(**status), [], NOW)
    assert (converted.pending_since, converted.waiting) == (None, "")


def test_a_sidecar_that_runs_on_is_named() -> None:
    ended = {"exitCode": 0, "finishedAt": "2026-01-01T11:55:00Z"}
    pod = pod_of("Running", {"terminated": ended})
    pod["status"]["containerStatuses"].append({"name": "istio-proxy", "state": {"running": {}}})
    job = job_of({**STARTED, "active": 1, "ready": 0})
    converted = stage_job(job, [pod], NOW)
    assert converted.pending_since == NOW - timedelta(minutes=5)
    assert (
        "istio-proxy is still running. Turn the injection of this sidecar off" in converted.waiting
    )
    assert not converted.has_running_pods
    young = stage_job(job, [pod], NOW - timedelta(minutes=4, seconds=30))
    assert (young.pending_since, young.waiting) == (None, "")


def deleted_pod(grace_end: str, name: str = "pod-0") -> Json:
    """Return a pod that is being deleted, on a node whose kubelet reports nothing."""
    pod = pod_of("Running", {"running": {}})
    pod["metadata"] |= {"name": name, "deletionTimestamp": grace_end}
    return {**pod, "spec": {"nodeName": "gpu-3"}}


def terminating_job(*conditions: Json, **status: Any) -> Json:
    """Return a Job whose pods were all deleted at 11:40."""
    counts = {"active": 0, "ready": 0, "terminating": 1, "conditions": list(conditions), **status}
    return job_of({**STARTED, **counts}, **{STATUS_CHANGE_TIME: "2026-01-01T11:40:00Z"})


@pytest.mark.parametrize(
    "job",
    [
        terminating_job(),
        terminating_job(succeeded=3),
        terminating_job(condition("FailureTarget"), failed=1),  # another pod has failed
    ],
)
def test_a_pod_on_a_lost_node_is_named(job: Json) -> None:
    pods = [deleted_pod("2026-01-01T11:55:00Z", "later"), deleted_pod("2026-01-01T11:50:00Z")]
    converted = stage_job(job, pods, NOW)
    assert (converted.state, converted.has_running_pods) == (JobState.RUNNING, False)
    assert converted.pending_since == NOW - timedelta(minutes=10)
    assert converted.waiting.startswith("the pod pod-0 on the node gpu-3 should have ended")
    assert "`node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`" in converted.waiting


def test_a_pod_that_still_has_time_to_end_is_not_reported() -> None:
    pod, end = deleted_pod("2026-01-01T11:50:00Z"), NOW - timedelta(minutes=10)
    for now in (end - timedelta(minutes=1), end + LOST_POD_AGE - timedelta(seconds=1)):
        converted = stage_job(terminating_job(), [pod], now)
        assert (converted.pending_since, converted.waiting) == (None, "")
    assert stage_job(terminating_job(), [pod], end + LOST_POD_AGE).waiting
    ended = {**pod, "status": {"phase": "Failed"}}
    assert stage_job(terminating_job(), [ended], NOW).waiting == ""


def test_a_pod_that_is_deleted_beside_others_is_not_reported() -> None:
    job = terminating_job(active=1, ready=1)
    assert stage_job(job, [deleted_pod("2026-01-01T11:50:00Z")], NOW).pending_since is None


def test_a_resuming_job_has_no_start_time() -> None:
    converted = stage_job(job_of({**STARTED, "conditions": [condition("Suspended")]}), [], NOW)
    assert (converted.start_time, converted.pending_since) == (None, None)


@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_a_finished_job_waits_for_nothing(kind: str) -> None:
    job = job_of({**STARTED, "conditions": [condition(kind)]})
    converted = stage_job(job, [pod_of(conditions=[UNSCHEDULABLE])], NOW)
    assert (converted.pending_since, converted.waiting) == (None, "")


# Which pods are listed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (job_of(), None),
        (job_of({"startTime": (NOW - MISSING_POD_AGE + timedelta(seconds=1)).isoformat()}), None),
        (job_of({"startTime": (NOW - MISSING_POD_AGE).isoformat()}), {}),
        (job_of({"active": 1}), {}),
        (job_of({"conditions": [condition("Complete")]}), {}),
        (job_of({"conditions": [condition("Failed")]}), {}),
        (job_of({"active": 2, "ready": 2}), None),
        (job_of({"active": 2, "ready": 1}), {"fieldSelector": "status.phase=Pending"}),
        (job_of({**STARTED, "terminating": 1}), LIVE_PODS),
        (job_of({**STARTED, "terminating": 1, "active": 1, "ready": 1}), None),
        (job_of({"terminating": 1, "startTime": NOW.isoformat()}), None),
        (job_of(suspend=True), None),
        (job_of(suspend=True, queue="gpus"), None),
    ],
)
def test_pods_are_listed_only_if_needed(job: Json, expected: Json | None) -> None:
    assert pod_query(job, NOW) == expected


kinds = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet", "Other"]
conditions = st.lists(
    st.builds(condition, st.sampled_from(kinds), st.sampled_from(["True", "False", "Unknown"])),
    max_size=4,
)
counts = st.dictionaries(
    st.sampled_from(["active", "ready", "succeeded", "failed", "terminating"]), st.integers(0, 3)
)
states = st.sampled_from(
    [
        None,
        {},
        {"running": {}},
        {"waiting": {}},
        {"waiting": {"reason": "ErrImagePull"}},
        terminated(0, MESSAGE),
        terminated(1),
        terminated(2, "{}"),
        terminated(143, MESSAGE),
    ]
)
pods = st.lists(
    st.builds(
        pod_of,
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        states,
        conditions=st.lists(st.just(UNSCHEDULABLE) | st.just(condition("DisruptionTarget"))),
        initContainerStatuses=st.lists(
            st.builds(lambda state: {"name": "init", "state": state or {}}, states), max_size=2
        ),
    ),
    max_size=3,
)


@given(counts, conditions, pods, st.booleans(), st.booleans(), st.booleans())
def test_any_job_and_pods_can_be_read(
    numbers: Json,
    conditions: list[Json],
    pods: list[Json],
    suspend: bool,
    queue: bool,
    started: bool,
) -> None:
    status = {**numbers, "conditions": conditions, **(STARTED if started else {})}
    job = job_of(status, suspend=suspend, queue="q" if queue else "")
    converted = stage_job(job, pods, NOW)
    assert (converted.failure is not None) == (converted.state is JobState.FAILED)
    assert converted.result is None or converted.state is JobState.SUCCEEDED
    waits = converted.state in (JobState.PENDING, JobState.RUNNING)
    assert waits or (converted.pending_since is None and not converted.waiting)
    assert converted.queued == queue


# Pods that run, wait or are removed ---------------------------------------------------------------


def test_pods_that_run_beside_those_that_wait() -> None:
    status = {"active": 2, "ready": 1, "startTime": "2026-01-01T10:00:00Z"}
    waiting = pod_of("Pending")
    job = stage_job(job_of(status), [waiting], NOW)
    assert job.has_running_pods
    assert job.idle_since is None
    changed = {STATUS_CHANGE_TIME: "2026-01-01T11:50:00Z"}
    idle = job_of({**status, "ready": 0, "succeeded": 1}, **changed)
    job = stage_job(idle, [waiting], NOW)
    assert not job.has_running_pods
    assert job.idle_since == NOW - timedelta(minutes=10)
    assert relevant_state(idle) != relevant_state(job_of(status)), "it requires a reconcile"


def test_the_end_of_the_last_pods_requires_a_reconcile() -> None:
    """They may be on a lost node, or the Job may not be able to create the others."""
    running = {"active": 2, "ready": 2, "startTime": "2026-01-01T10:00:00Z"}
    ending = {**running, "active": 0, "ready": 0, "terminating": 2}
    assert relevant_state(job_of(ending)) != relevant_state(job_of(running))
    left = job_of({**running, "active": 0, "ready": 0, "succeeded": 2})
    left["spec"]["completions"] = 4
    before = job_of(running)
    before["spec"]["completions"] = 4
    assert relevant_state(left) != relevant_state(before)


def test_a_pod_whose_init_container_runs_is_a_running_one() -> None:
    status = {"active": 2, "ready": 0, "succeeded": 1}
    starting = pod_of("Pending")
    starting["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"running": {}}}]
    assert stage_job(job_of(status), [starting, pod_of("Pending")], NOW).has_running_pods


@pytest.mark.parametrize(
    ("suspended_by", "state", "queued"),
    [
        (None, JobState.SUSPENDED, False),
        ("operator", JobState.SUSPENDED, False),
        ("none", JobState.SUSPENDED, False),
        ("another", JobState.QUEUED, True),
    ],
)
def test_who_suspended_a_job(suspended_by: str | None, state: JobState, queued: bool) -> None:
    more = {"annotations": {names.ANNOTATION_SUSPENDED: suspended_by}} if suspended_by else {}
    job = stage_job(job_of(suspend=True, **more))
    assert (job.state, job.queued) == (state, queued)


def test_a_damaged_result_explains_more_than_an_ended_shard() -> None:
    damaged = FailureMessage(error="broken", kind="DamagedResult", damaged=Stage.SELF_PLAY)
    pods = [
        pod_of("Failed", terminated(143, encode_message(FailureMessage(error="x", kind="T")))),
        pod_of("Failed", terminated(65, encode_message(damaged))),
    ]
    failure = failed(*pods)
    assert failure is not None
    assert (failure.message, failure.exit_code, failure.damaged) == (
        *("broken", 65),
        Stage.SELF_PLAY,
    )
