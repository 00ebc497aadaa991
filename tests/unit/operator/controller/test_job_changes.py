"""Changes of Jobs that exist: suspension, deadlines, queues; and pods that an earlier Job left."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import (
    KEY,
    NAMESPACE,
    FakeApiServer,
    advance_clock,
    format_time,
)
from tests.unit.operator.controller.fake_operator import (
    FakeOperator,
    reconcile_times,
    run_until_idle,
    server_time,
)

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.reconcile.status_writer import Conflict

CHECK_1, CHECK_2 = "demo-g000-check-1", "demo-g000-check-2"
Json = dict[str, Any]


def started(**spec: Any) -> tuple[FakeApiServer, FakeOperator]:
    """Return a server and an operator, with the Job of the first stage running."""
    server = FakeApiServer()
    server.add_evolution(**spec)
    operator = FakeOperator(server)
    reconcile_times(operator, 2)
    assert server.job(CHECK_1)["status"]["ready"] == 1
    return server, operator


def message(server: FakeApiServer) -> str:
    return str(server.condition("Progressing")["message"])


# Deadlines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(100, 5000, 5060), (5000, 100, 160), (None, 9, 69)]
)
def test_a_running_job_gets_an_edited_deadline(
    before: int | None, after: int, expected: int
) -> None:
    deadlines = {"stageActiveSeconds": before} if before else {}
    server, operator = started(deadlines=deadlines)
    server.edit(deadlines={"stageActiveSeconds": after})
    operator.receive_events()
    operator.reconcile()
    operator.reconcile()
    assert server.job(CHECK_1)["spec"]["activeDeadlineSeconds"] == expected
    writes = len(operator.kube.writes)
    operator.receive_events()
    operator.reconcile()
    assert len(operator.kube.writes) == writes, "it is patched once"


def test_a_deadline_that_is_removed_from_the_spec_is_removed_from_the_job() -> None:
    server, operator = started(deadlines={"stageActiveSeconds": 100})
    server.edit(deadlines={})
    operator.receive_events()
    operator.reconcile()
    operator.reconcile()
    assert "activeDeadlineSeconds" not in server.job(CHECK_1)["spec"]


# Suspension --------------------------------------------------------------------------------------


def test_a_job_is_suspended_and_resumed_by_its_uid() -> None:
    """Its name may belong to another Job since it was read."""
    server, operator = started()
    server.edit(suspend=True)
    path = names.job_path((NAMESPACE, CHECK_1))
    server.objects[path]["metadata"]["uid"] = "another"
    operator.resync = lambda: None  # type: ignore[method-assign]
    for kind, item in server.log:
        if item.get("kind") == "EmotionEvolution" and kind != "DELETED":
            metadata = item["metadata"]
            version = int(metadata["resourceVersion"])
            operator.cache.announce_evolution(KEY, version, metadata["uid"])
    with pytest.raises(Conflict, match="Precondition failed: uid"), server_time(server):
        operator.reconciler.reconcile(KEY)
    assert not server.job(CHECK_1)["spec"].get("suspend")


@pytest.mark.parametrize("status", [409, 422])
def test_a_change_of_a_job_with_another_uid_is_a_conflict(status: int) -> None:
    server, operator = started()
    server.edit(suspend=True)
    operator.receive_events()
    error = ApiError(status, "", "metadata.uid: field is immutable")
    server.failing["PATCH", CHECK_1] = error
    with pytest.raises(Conflict, match=r"was not changed: metadata\.uid"), server_time(server):
        operator.reconciler.reconcile(KEY)


def test_suspension_can_be_repeated() -> None:
    server, operator = started()
    for suspend in (True, False, True, False, True, False):
        server.edit(suspend=suspend)
        operator.receive_events()
        operator.reconcile()
        operator.reconcile()
        operator.receive_events()
        assert server.job(CHECK_1)["spec"]["suspend"] is suspend
        assert server.status["phase"] == ("Suspended" if suspend else "Running")
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def suspend_by_another(server: FakeApiServer, name: str) -> None:
    """Suspend a Job as another controller or a person does."""
    item = copy.deepcopy(server.job(name))
    item["spec"]["suspend"] = True
    server._store(names.job_path((NAMESPACE, name)), item)


def test_a_job_that_another_controller_suspends_again_is_left_to_it() -> None:
    """Otherwise the two would undo each other for ever, and start pods beyond the quota."""
    server, operator = started()
    resumed = []
    for _ in range(6):
        suspend_by_another(server, CHECK_1)
        operator.receive_events()
        operator.reconcile()
        operator.reconcile()
        operator.receive_events()
        resumed.append(not server.job(CHECK_1)["spec"]["suspend"])
    assert resumed == [True, *[False] * 5]
    assert server.status["phase"] == "Queued"
    assert server.condition("Progressing")["reason"] == "Queued"


def test_jobs_that_a_webhook_suspends_wait_for_their_queue() -> None:
    """Kueue manages Jobs without a queue's name with `manageJobsWithoutQueueName`."""
    server = FakeApiServer(queue_suspends=True)
    server.add_evolution()
    operator = FakeOperator(server)
    for _ in range(5):
        reconcile_times(operator, 1)
        advance_clock(server, 4000)  # no deadline counts in a queue
    assert server.job(CHECK_1)["spec"]["suspend"] is True
    assert server.status["phase"] == "Queued"
    assert server.created == [CHECK_1]
    # the queue admits it
    item = copy.deepcopy(server.job(CHECK_1))
    item["spec"]["suspend"] = False
    server._store(names.job_path((NAMESPACE, CHECK_1)), item)
    operator.receive_events()
    server.queue_suspends = False
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_suspending_a_failed_evolution_does_not_start_it_again() -> None:
    server = FakeApiServer()
    server.add_evolution(failurePolicy={"maxAttempts": 1})
    run_until_idle(server, ending=lambda _: 1)
    assert server.status["phase"] == "Failed"
    completed = server.status["completionTime"]
    server.edit(suspend=True)
    operator = run_until_idle(server)
    assert server.status["phase"] == "Failed"
    assert server.status["completionTime"] == completed
    assert server.status["observedGeneration"] == 2
    assert server.created == [CHECK_1]
    server.edit(suspend=False)
    operator.receive_events()
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


# Pods of earlier attempts ------------------------------------------------------------------------


def delete_job_by_hand(server: FakeApiServer, name: str, **metadata: Any) -> str:
    """Delete a Job; its pod lives on. Return the path of the pod."""
    (pod,) = server.pods_of(server.job(name))
    path = f"{names.core_path(NAMESPACE, 'pods')}/{pod['metadata']['name']}"
    server.remove(names.job_path((NAMESPACE, name)))
    pod["metadata"] |= metadata
    pod["spec"] = {"nodeName": "node-1"}
    server._store(path, pod, "ADDED")
    return path


@pytest.mark.parametrize("orphan", [False, True])
def test_no_job_is_created_while_a_pod_of_an_earlier_one_is_alive(orphan: bool) -> None:
    server, operator = started()
    metadata: Json = {"deletionTimestamp": format_time(server.now)}
    path = delete_job_by_hand(server, CHECK_1, **({"ownerReferences": []} if orphan else metadata))
    operator.receive_events()
    server.stale_cache = True  # the pod is young, as its Job was
    for _ in range(4):
        operator.reconcile()
        advance_clock(server, 30)
    assert server.created == [CHECK_1]
    pod = path.rsplit("/", 1)[1]
    assert message(server) == (
        f"generation 0, Check, attempt 2: the pod {pod} of an earlier attempt has not ended, and "
        "two attempts must not write at the same time"
    )
    assert server.condition("Progressing")["reason"] == "Waiting"
    server.remove(path)
    operator.reconcile()
    assert server.created == [CHECK_1, CHECK_2]
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_an_earlier_look_for_pods_does_not_hold_for_a_later_attempt() -> None:
    """The Job controller may create a pod of a Job just after it was deleted."""
    server, operator = started()
    delete_job_by_hand(server, CHECK_1)
    operator.receive_events()
    operator.reconcile()
    uid = server.evolution["metadata"]["uid"]
    operator.reconciler._jobs._free[uid] = CHECK_2, server.now
    operator.reconcile()
    assert server.created == [CHECK_1]


def test_the_wait_for_a_pod_is_bounded() -> None:
    """The pod of a node that cannot be reached stays until somebody deletes it."""
    server, operator = started(deadlines={"stagePendingSeconds": 600})
    path = delete_job_by_hand(server, CHECK_1)
    operator.receive_events()
    operator.reconcile()
    advance_clock(server, 10_000)  # the wait counts from its start, not from that of the stage
    operator.reconcile()
    assert server.status["phase"] == "Running"
    advance_clock(server, 601)
    operator.reconcile()
    assert server.condition("Succeeded")["reason"] == "PendingTooLong"
    assert "kubectl delete pod --force" in server.condition("Succeeded")["message"]
    server.remove(path)
    server.edit(failurePolicy={"backoffSeconds": 1})
    operator.receive_events()
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_the_wait_for_a_lost_node_is_reported_and_bounded() -> None:
    """Its pod is being deleted, and the Job creates another one only after the end of this one."""
    server, operator = started(deadlines={"stagePendingSeconds": 600})
    (pod,) = server.pods_of(server.job(CHECK_1))
    metadata = {**pod["metadata"], "deletionTimestamp": format_time(server.now)}
    path = f"{names.core_path(NAMESPACE, 'pods')}/{metadata['name']}"
    server._store(path, {**pod, "metadata": metadata, "spec": {"nodeName": "gpu-3"}})
    server.set_job_status(server.job(CHECK_1), active=0, ready=0, terminating=1)
    operator.receive_events()
    advance_clock(server, 120)
    operator.reconcile()
    assert server.condition("Progressing")["reason"] == "Waiting"
    assert f"the pod {metadata['name']} on the node gpu-3 should have ended" in message(server)
    operator.reconcile()
    assert operator.requeue == server.now + timedelta(seconds=480)
    advance_clock(server, 480)
    operator.reconcile()
    assert server.condition("Succeeded")["reason"] == "PendingTooLong"
    assert "on the node gpu-3" in server.condition("Succeeded")["message"]


@pytest.mark.parametrize("edit", [{"suspend": True}, {"recipe": "unknown-v1"}])
def test_the_wait_for_a_pod_counts_only_while_a_job_is_to_be_created(edit: Json) -> None:
    server, operator = started(deadlines={"stagePendingSeconds": 600})
    before = {**server.evolution["spec"], "suspend": False}
    path = delete_job_by_hand(server, CHECK_1)
    operator.receive_events()
    reconcile_times(operator, 2)
    for spec in (edit, {name: before[name] for name in edit}):
        server.edit(**spec)
        operator.receive_events()
        reconcile_times(operator, 2)
        advance_clock(server, 590)
    operator.reconcile()
    assert server.status["phase"] == "Running"
    server.remove(path)
    run_until_idle(server, lambda: operator)
    assert server.status["phase"] == "Succeeded"


def test_after_an_edit_the_wait_for_a_pod_begins_again() -> None:
    server, operator = started(deadlines={"stagePendingSeconds": 600})
    delete_job_by_hand(server, CHECK_1)
    for _ in range(2):
        operator.receive_events()
        operator.reconcile()
        operator.reconcile()
        assert server.status["phase"] == "Running"
        advance_clock(server, 601)
        operator.reconcile()
        assert server.condition("Succeeded")["reason"] == "PendingTooLong"
        server.edit(failurePolicy={"maxAttempts": 9})


@pytest.mark.parametrize("change", ["ended", "copy", "another stage", "never scheduled"])
def test_other_pods_are_not_waited_for(change: str) -> None:
    server, operator = started()
    path = delete_job_by_hand(server, CHECK_1)
    pod = server.objects[path]
    if change == "ended":
        pod["status"]["phase"] = "Failed"
    if change == "copy":
        pod["metadata"]["ownerReferences"][0]["name"] = "a-copy"
    if change == "another stage":
        pod["metadata"]["labels"][names.LABEL_COMPONENT] = "train"
    if change == "never scheduled":
        pod["spec"], pod["metadata"]["deletionTimestamp"] = {}, format_time(server.now)
    operator.receive_events()
    operator.reconcile()
    operator.reconcile()
    assert server.created == [CHECK_1, CHECK_2]


# Pods that the Job creates again -----------------------------------------------------------------


def preempt(server: FakeApiServer, name: str) -> None:
    """Remove a Job's pod as the scheduler does; the Job creates another one, and counts nothing."""
    (pod,) = server.pods_of(server.job(name))
    path = f"{names.core_path(NAMESPACE, 'pods')}/{pod['metadata']['name']}"
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastTransitionTime": format_time(server.now),
    }
    server._store(path, {**pod, "status": {"phase": "Failed", "conditions": [target]}})
    server.set_job_status(server.job(name), ready=0)
    server.remove(path)
    server.add_pod(server.job(name))


def test_pods_that_a_job_creates_again_count_as_disruptions() -> None:
    server, operator = started(failurePolicy={"maxDisruptions": 2})
    for count in (1, 2):
        advance_clock(server, 60)
        preempt(server, CHECK_1)
        operator.receive_events()
        reconcile_times(operator, 1)
        operator.reconcile()
        assert server.status["replacedPods"] == count
        server.set_job_status(server.job(CHECK_1), ready=1)
        operator = FakeOperator(server)  # a restart counts none of them again
        operator.reconcile()
        assert server.status["replacedPods"] == count
    advance_clock(server, 60)
    preempt(server, CHECK_1)
    operator.receive_events()
    operator.reconcile()
    condition = server.condition("Succeeded")
    assert condition["reason"] == "StageFailed"
    assert condition["message"].startswith(
        "generation 0, Check: the platform removed 3 of its pods, more than "
        "`overrides.failurePolicy.maxDisruptions` allows"
    )
    assert [e["reason"] for e in server.of("events")].count("PodsReplaced") == 3


def test_pods_that_were_removed_in_the_same_second_all_count() -> None:
    server, operator = started()
    for count in (1, 2, 3):
        preempt(server, CHECK_1)
        operator.receive_events()
        reconcile_times(operator, 1)
        operator.reconcile()
        assert server.status["replacedPods"] == count
        operator = FakeOperator(server)  # one that has not seen the pods before
