"""A look for live pods is left out only where no Job can have been created before."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.controller.fake_api import (
    NAMESPACE,
    FakeApiServer,
    advance_clock,
    format_time,
)
from tests.unit.operator.controller.fake_operator import (
    FakeOperator,
    run_until_idle,
)

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.pod_status import is_live_stage_pod

Json = dict[str, Any]
PODS = names.core_path(NAMESPACE, "pods")


class Looking(FakeOperator):
    """An operator that counts its lists of live pods."""

    def __init__(self, server: FakeApiServer) -> None:
        super().__init__(server)
        self.looks, request = 0, self.kube._request

        def counted(method: str, path: str, query: Any, *rest: Any) -> Json:
            self.looks += "phase!=Succeeded" in (query or {}).get("fieldSelector", "")
            return request(method, path, query, *rest)

        self.kube._request = counted  # type: ignore[method-assign]


def started(**spec: Any) -> tuple[FakeApiServer, Looking]:
    server = FakeApiServer()
    server.add_evolution(**spec)
    return server, Looking(server)


def run_to(server: FakeApiServer, operator: FakeOperator, stage: str) -> None:
    """Run until a stage has its Job."""
    while server.status.get("stage") != stage or not server.created[-1].endswith(
        f"-{stage.lower()}-1"
    ):
        operator.reconcile()
        if server.status.get("stage") != stage:
            server.advance_jobs()
        operator.receive_events()


def test_an_evolution_that_is_watched_from_its_start_needs_no_look() -> None:
    server, operator = started()
    run_until_idle(server, lambda: operator)
    assert server.status["phase"] == "Succeeded"
    assert operator.looks == 0


def test_a_new_process_looks_once() -> None:
    server, first = started()
    run_to(server, first, "Score")
    second = Looking(server)
    run_until_idle(server, lambda: second)
    assert server.status["phase"] == "Succeeded"
    assert second.looks == 1


def set_back(server: FakeApiServer, stage: str) -> None:
    """Set a status back, as a restore of the resource alone does."""
    evolution = server.evolution
    status = {**evolution["status"], "stage": stage}
    results = status["current"]["results"]
    kept = [r for r in results if r["stage"] == "SelfPlay" and stage != "SelfPlay"]
    status["current"] = {**status["current"], "results": kept}
    path = names.evolution_path((NAMESPACE, "demo"))
    server._store(path, {**evolution, "status": status}, "MODIFIED")


@pytest.mark.parametrize("restart", [False, True])
def test_a_stage_that_had_a_job_before_is_looked_at(restart: bool) -> None:
    """Its Job was deleted meanwhile; its pod is still alive."""
    server, operator = started()
    run_to(server, operator, "Flywheel")
    server.advance_jobs()
    (pod,) = server.pods_of(server.job("demo-g001-flywheel-1"))
    server.remove(names.job_path((NAMESPACE, "demo-g001-flywheel-1")))
    pod["spec"] = {"nodeName": "node-1"}
    server._store(f"{PODS}/{pod['metadata']['name']}", pod, "ADDED")
    server.remove(names.job_path((NAMESPACE, "demo-g001-score-1")))
    set_back(server, "Score")
    server.manifests.clear()
    if restart:
        operator = Looking(server)
    operator.receive_events()
    for _ in range(40):
        operator.reconcile()
        advance_clock(server, 30)
        server.advance_jobs()
        operator.receive_events()
        if server.status["stage"] == "Flywheel":
            break
    assert server.status["stage"] == "Flywheel"
    operator.reconcile()
    assert server.created.count("demo-g001-flywheel-1") == 1
    assert "has not ended" in server.condition("Progressing")["message"]


def test_a_later_attempt_is_looked_at() -> None:
    server, operator = started()
    run_until_idle(server, lambda: operator, lambda name: int(name.endswith("-score-1")))
    assert server.status["phase"] == "Succeeded"
    assert operator.looks == len([name for name in server.created if name.endswith("-2")]) == 4


# Any order of faults -----------------------------------------------------------------------------

LABELS = (names.LABEL_UID, names.LABEL_GENERATION, names.LABEL_COMPONENT)
GRACE = timedelta(seconds=40)


class Lingering(FakeApiServer):
    """A server whose pods outlive their Jobs, and that refuses two live pods of one stage."""

    def remove(self, path: str) -> None:
        """Delete an object; a pod that runs ends later."""
        item = self.objects[path]
        if not path.startswith(PODS) or not is_live_stage_pod(item):
            super().remove(path)
        elif "deletionTimestamp" not in item["metadata"]:
            metadata = {**item["metadata"], "deletionTimestamp": format_time(self.now)}
            self._store(path, {**item, "metadata": metadata, "spec": {"nodeName": "node-1"}})

    def end_pods(self) -> None:
        """Let the pods end whose time has passed."""
        for path, item in list(self.objects.items()):
            deleted = item["metadata"].get("deletionTimestamp", "")
            if deleted and self.now >= datetime.fromisoformat(deleted) + GRACE:
                super().remove(path)

    def _create(self, path: str, body: Json) -> Json:
        labels = [body["metadata"].get("labels", {}).get(label) for label in LABELS]
        if path.endswith("/jobs"):
            for pod in filter(is_live_stage_pod, self.of("pods")):
                others = [pod["metadata"]["labels"].get(label) for label in LABELS]
                assert others != labels, f"{body['metadata']['name']} beside a live pod"
        return super()._create(path, body)


STEPS = ("reconcile", "receive", "advance", "restart", "delete", "lose", "wait", "set back")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(STEPS), max_size=50))
def test_two_pods_of_one_stage_are_never_alive(steps: list[str]) -> None:
    server = Lingering()
    server.add_evolution(
        stopping={"maxGenerations": 1, "patience": 9},
        failurePolicy={"maxAttempts": 100, "maxDisruptions": 1000, "backoffSeconds": 0},
    )
    operator = FakeOperator(server)
    for step in steps:
        server.end_pods()
        if step == "restart":
            operator = FakeOperator(server)
        elif step == "receive":
            operator.receive_events()
        elif step == "advance":
            server.advance_jobs()
        elif step == "delete":
            for job in server.jobs()[-1:]:
                server.remove(names.job_path((NAMESPACE, job["metadata"]["name"])))
        elif step == "wait":
            advance_clock(server, 30)
        elif step == "set back":
            _set_back_by_a_stage(server)
        else:
            operator.kube.fault = _lost_once() if step == "lose" else lambda _moment, _number: None
            operator.reconcile()
            operator.receive_events()
    operator.kube.fault = lambda _moment, _number: None


def _lost_once() -> Any:
    """Return a fault that loses the response to the last write of a reconcile."""
    writes = []

    def fault(moment: str, number: int) -> None:
        if moment == "after":
            writes.append(number)
            if len(writes) == 2:
                raise ApiError(0, "Unreachable", "lost")

    return fault


def _set_back_by_a_stage(server: FakeApiServer) -> None:
    """Restore the status of the stage before, as a backup of the resource alone does."""
    evolution = server.evolution
    status = evolution.get("status") or {}
    results = (status.get("current") or {}).get("results", [])
    if not results or status.get("completionTime") or status["stage"] == results[-1]["stage"]:
        return
    current = {**status["current"], "results": results[:-1]}
    status = {**status, "stage": results[-1]["stage"], "current": current}
    path = names.evolution_path((NAMESPACE, "demo"))
    server._store(path, {**evolution, "status": status}, "MODIFIED")
