"""Jobs that are deleted, or get no pod: the stage goes on with a Job of another name.

The Job controller keeps under a Job's name which pods it expects. If a Job is deleted while its pod
is being created, the next Job of that name gets no pod. The fake Job controller does the same here.
"""

from __future__ import annotations

from collections.abc import Callable
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
    ProcessKilled,
    run_until_idle,
)
from tests.unit.operator.controller.test_reconciler import fail_once

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import MISSING_POD_AGE
from selfemo_operator.planner.replacement import NO_POD_LIMIT

CHECK_1, CHECK_2, CHECK_3 = (f"demo-g000-check-{attempt}" for attempt in (1, 2, 3))
TEMPLATE = [{"template": {"nodeSelector": {"disk": "ssd"}}}]
ALL_AGES = MISSING_POD_AGE + NO_POD_LIMIT + timedelta(seconds=5)


def pending(**spec: Any) -> tuple[FakeApiServer, FakeOperator]:
    """Return a server and an operator, with the Job of the first stage, which has not started."""
    server = FakeApiServer()
    server.add_evolution(**spec)
    operator = FakeOperator(server)
    operator.reconcile()
    operator.receive_events()
    assert server.created == [CHECK_1]
    return server, operator


def delete(server: FakeApiServer, name: str) -> None:
    server.remove(names.job_path((NAMESPACE, name)))


def reconcile(operator: FakeOperator, times: int = 3) -> None:
    """Reconcile several times, with all events."""
    for _ in range(times):
        operator.receive_events()
        operator.reconcile()


def checks(server: FakeApiServer) -> list[str]:
    """Return the names of the Jobs of the first stage that were created."""
    return [name for name in server.created if "-check-" in name]


def start_without_pod(server: FakeApiServer, name: str) -> None:
    """Let the Job controller start a Job, and create no pod."""
    server.set_job_status(server.job(name), startTime=format_time(server.now), active=0, ready=0)


def wait_for_pod(server: FakeApiServer, operator: FakeOperator) -> None:
    """Let more time pass than a Job may have no pod, and reconcile as the work queue does."""
    end = server.now + ALL_AGES
    while server.now < end:
        operator.receive_events()
        operator.reconcile()
        advance_clock(server, 5)
    reconcile(operator)


# Deleted by the operator --------------------------------------------------------------------------


def test_an_edit_of_the_pod_template_replaces_a_job_under_another_name() -> None:
    server, operator = pending()
    attempts = []
    server.on_status = lambda _, after: attempts.append(
        (after["status"]["attempt"], [job["metadata"]["name"] for job in server.jobs()])
    )
    server.edit(podTemplate=TEMPLATE)
    reconcile(operator)
    assert server.created == [CHECK_1, CHECK_2]
    assert (2, [CHECK_1]) in attempts, "the status has the attempt before the Job is deleted"
    status = server.status
    assert (status["attempt"], status["failures"], status["disruptions"]) == (2, 0, 0)
    assert status["stages"][0]["replaced"] == 1
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_a_queued_job_of_a_suspended_evolution_comes_back_under_another_name() -> None:
    server, operator = pending(queue={"name": "gpus"})
    server.edit(suspend=True)
    reconcile(operator)
    assert server.jobs() == []
    assert server.status["attempt"] == 2
    server.edit(suspend=False)
    reconcile(operator)
    assert server.created == [CHECK_1, CHECK_2]
    assert (server.status["failures"], server.status["disruptions"]) == (0, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(5))
def test_no_name_is_used_again_if_the_operator_is_killed(number: int, moment: str) -> None:
    server, _ = pending()
    server.edit(podTemplate=TEMPLATE)
    fault = fail_once(number, moment, ProcessKilled())
    run_until_idle(server, lambda: FakeOperator(server, fault))
    assert checks(server) == [CHECK_1, CHECK_2]
    assert server.status["phase"] == "Succeeded"


# Deleted by hand ----------------------------------------------------------------------------------


def test_a_job_that_was_deleted_by_hand_is_a_disruption() -> None:
    server, operator = pending()
    delete(server, CHECK_1)
    reconcile(operator)
    assert server.created == [CHECK_1, CHECK_2]
    assert (server.status["failures"], server.status["disruptions"]) == (0, 1)
    (event,) = [e for e in server.of("events") if e["reason"] == "StageDisrupted"]
    assert event["message"] == (
        "generation 0, Check, attempt 1: its Job was deleted before its result was recorded"
    )
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_a_deletion_that_only_a_list_shows_is_a_disruption() -> None:
    """The watch has lost the event."""
    server, operator = pending()
    delete(server, CHECK_1)
    operator.resync()
    reconcile(operator)
    assert server.created == [CHECK_1, CHECK_2]
    assert server.status["disruptions"] == 1


def test_deletions_by_hand_are_bounded() -> None:
    server, operator = pending(failurePolicy={"maxDisruptions": 1, "backoffSeconds": 0})
    for name in (CHECK_1, CHECK_2):
        delete(server, name)
        reconcile(operator)
    assert server.condition("Succeeded")["reason"] == "StageFailed"
    assert checks(server) == [CHECK_1, CHECK_2]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_job_whose_creation_was_not_answered_is_not_a_disruption(moment: str) -> None:
    """It is created again under its name: the API server answers with the Job if it exists."""
    server = FakeApiServer()
    server.add_evolution()
    operator = FakeOperator(server)
    lost = []

    def lose(at: str, number: int) -> None:
        method, path = operator.kube.requests[number]
        if not lost and at == moment and method == "POST" and path.endswith("/jobs"):
            lost.append(path)
            raise ApiError(0, "Connection", "reset")

    operator.kube.fault = lose
    for _ in range(3):  # no watch event arrives
        operator.reconcile()
    assert lost
    assert server.created == [CHECK_1]
    assert (server.status["attempt"], server.status["disruptions"]) == (1, 0)


def test_a_job_that_an_operator_has_never_seen_is_created_under_its_name() -> None:
    server, _ = pending()
    delete(server, CHECK_1)
    reconcile(FakeOperator(server))
    assert server.created == [CHECK_1, CHECK_1]
    assert server.status["disruptions"] == 0


def test_the_jobs_of_an_earlier_evolution_of_the_name_are_not_a_disruption() -> None:
    server, operator = pending()
    server.remove(names.evolution_path(KEY))
    server.add_evolution()
    reconcile(operator)
    assert server.created == [CHECK_1, CHECK_1]
    assert server.status["disruptions"] == 0


def test_deletions_are_forgotten_with_the_attempt_and_the_evolution() -> None:
    server, operator = pending()
    uid = server.evolution["metadata"]["uid"]
    delete(server, CHECK_1)
    reconcile(operator)
    assert not operator.cache.has_deleted_job(KEY, uid, CHECK_1), "another attempt was asked for"
    delete(server, CHECK_2)
    operator.receive_events()
    assert operator.cache.has_deleted_job(KEY, uid, CHECK_2)
    server.remove(names.evolution_path(KEY))
    operator.receive_events()
    assert not operator.cache.has_deleted_job(KEY, uid, CHECK_2)


# Without a pod ------------------------------------------------------------------------------------


def test_a_job_that_gets_no_pod_is_replaced_once() -> None:
    server, operator = pending()
    start_without_pod(server, CHECK_1)
    wait_for_pod(server, operator)
    assert server.created == [CHECK_1, CHECK_2]
    assert (server.status["attempt"], server.status["disruptions"]) == (2, 1)
    assert server.status["lastFailure"] == "no pod was created for its Job"
    start_without_pod(server, CHECK_2)
    wait_for_pod(server, operator)
    wait_for_pod(server, operator)
    assert server.created == [CHECK_1, CHECK_2], "the cause is another one"
    assert "no pod has been created" in server.condition("Progressing")["message"]
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_the_operator_looks_at_a_job_without_a_pod_when_its_time_is_over() -> None:
    """No event comes: the passes follow from the times that the reconciler returns."""
    server, operator = pending()
    start_without_pod(server, CHECK_1)
    operator.receive_events()
    for _ in range(8):
        operator.reconcile()
        operator.receive_events()
        if CHECK_2 in server.created:
            break
        assert operator.requeue is not None
        server.now = max(server.now, operator.requeue)
    assert server.created == [CHECK_1, CHECK_2]


def test_a_list_from_the_cache_of_the_api_server_deletes_no_job() -> None:
    server, operator = pending()
    start_without_pod(server, CHECK_1)
    server.add_pod(server.job(CHECK_1))
    server.stale_cache = True
    wait_for_pod(server, operator)
    assert server.created == [CHECK_1]
    assert server.status["disruptions"] == 0


@pytest.mark.parametrize("minutes", [5, -5])
def test_another_clock_of_the_operator_deletes_no_job(minutes: int) -> None:
    """The Job's start time comes from the control plane."""
    server, operator = pending()
    start = format_time(server.now - timedelta(minutes=minutes))
    server.set_job_status(server.job(CHECK_1), startTime=start, active=0, ready=0)
    for _ in range(5):
        reconcile(operator, 1)
        advance_clock(server, 5)
    assert server.created == [CHECK_1]


def suspended(server: FakeApiServer) -> None:
    server.job(CHECK_1)["spec"]["suspend"] = True
    server.set_job_status(server.job(CHECK_1), conditions=[{"type": "Suspended", "status": "True"}])


def with_pod(server: FakeApiServer) -> None:
    server.add_pod(server.job(CHECK_1))


@pytest.mark.parametrize("change", [suspended, with_pod])
def test_a_job_that_waits_for_its_queue_or_has_a_pod_stays(
    change: Callable[[FakeApiServer], None],
) -> None:
    server, operator = pending(queue={"name": "gpus"})
    start_without_pod(server, CHECK_1)
    change(server)
    wait_for_pod(server, operator)
    assert server.created == [CHECK_1]
