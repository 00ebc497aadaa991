"""Namespaces are served on their own: one without rights holds up no other."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import KEY, NAMESPACE, FakeApiServer, FakeClient
from tests.unit.operator.controller.fake_operator import SETTINGS, FakeOperator, server_time

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.controller import HEAVY_BYTES, Controller
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.reconcile.status_writer import FIRST_RETRY, REJECTED_RETRY

Json = dict[str, Any]


class Forbidding(FakeClient):
    """A client without rights in the namespace `dark`."""

    def _request(self, method: str, path: str, *more: Any, **others: Any) -> Json:
        if "/namespaces/dark/" in path:
            raise ApiError(403, "Forbidden", "no")
        return super()._request(method, path, *more, **others)


def controller_of(server: FakeApiServer, *namespaces: str) -> Controller:
    return Controller(Forbidding(server), Cache(), replace(SETTINGS, namespaces=namespaces))


def test_a_key_waits_for_the_jobs_of_its_own_namespace() -> None:
    controller = controller_of(FakeApiServer(), "dark", NAMESPACE)
    dark, light = (controller._served[n] for n in ("dark", NAMESPACE))
    light.jobs._list()
    assert not light.hold(KEY)
    assert dark.hold(("dark", "demo"))
    assert len(controller.queue) == 0
    dark.jobs.relist = lambda: "1"  # type: ignore[method-assign]
    dark.jobs._list()
    assert controller.queue.get() == ("dark", "demo"), "it is reconciled once they are listed"


def test_a_resync_of_one_namespace_does_not_depend_on_another() -> None:
    server = FakeApiServer()
    server.add_evolution()
    controller = controller_of(server, "dark", NAMESPACE)
    with pytest.raises(ApiError):
        controller._resync(controller._served["dark"])
    assert controller.resync_age() is None
    assert controller.answer_age() is not None, "the API server answers: the process is not stuck"
    controller._resync(controller._served[NAMESPACE])
    assert controller.queue.get() == KEY
    assert controller.resync_age() is not None
    assert controller.problems() == {"dark": "resync: 403 Forbidden: no", NAMESPACE: ""}


def test_an_evolution_that_turns_out_to_be_heavy_is_enqueued_as_a_heavy_one() -> None:
    server = FakeApiServer()
    server.add_evolution()
    server.evolution["spec"]["overrides"] = {"x": "y" * HEAVY_BYTES}
    controller = controller_of(server, NAMESPACE)
    controller.resync()
    assert controller.queue.get() == KEY
    controller._process(KEY)
    assert server.status == {}, "it is not reconciled yet"
    controller.queue.done(KEY)
    assert controller.queue.get() == KEY
    assert controller.queue.is_heavy(KEY)
    controller._process(KEY)
    assert server.status


def test_data_that_was_restored_from_a_backup_is_read_again() -> None:
    """Resource versions go back; the cached objects are newer than all that follow."""
    server = FakeApiServer()
    server.add_evolution()
    backup = copy.deepcopy(server)
    controller = controller_of(server, NAMESPACE)
    served = controller._served[NAMESPACE]
    controller.resync()
    assert controller.queue.get() == KEY
    with server_time(server):
        controller._process(KEY)
    controller.queue.done(KEY)
    created = server.jobs()
    assert created
    assert not served.evolutions._reset.is_set()

    vars(server).update(vars(backup))
    controller.resync()
    assert served.evolutions._reset.is_set()
    assert served.jobs._reset.is_set()
    assert not served.jobs.synced.is_set(), "its Jobs must be listed first"
    assert controller.queue.get() == KEY
    with server_time(server):
        controller._process(KEY)
    assert server.status["phase"] == "Running"
    assert [j["metadata"]["name"] for j in server.jobs()] == [
        j["metadata"]["name"] for j in created
    ]


class Rejecting(FakeApiServer):
    """A server that rejects each status but those of unreadable evolutions."""

    def __init__(self, *, everything: bool) -> None:
        super().__init__()
        self.everything = everything
        self.rejected = 0

    def _replace(self, path: str, body: Json) -> Json:
        unreadable = body.get("status", {}).get("phase") == "Failed"
        if path.endswith("/status") and (self.everything or not unreadable):
            self.rejected += 1
            raise ApiError(422, "Invalid", "status.history: Too many: 11: must have at most 10")
        return super()._replace(path, body)


@pytest.mark.parametrize("everything", [False, True], ids=["this status", "any status"])
def test_a_rejected_status_is_told_and_not_written_again_and_again(everything: bool) -> None:
    server = Rejecting(everything=everything)
    server.add_evolution()
    operator = FakeOperator(server)
    for _ in range(20):
        operator.reconcile()
        operator.receive_events()
    assert server.rejected == 1 + everything
    assert operator.reconciler.rejected_statuses == 1
    (event,) = server.of("events")
    assert (event["type"], event["reason"]) == ("Warning", "StatusRejected")
    assert "status.history: Too many" in event["message"]
    if not everything:
        message = server.condition("Stalled")["message"]
        assert message.startswith("the API server rejects the status: status.history: Too many")
    assert server.jobs() == [], "no action without its status"

    server.now += FIRST_RETRY  # a policy that is being rolled out may have been it
    operator.reconcile()
    operator.reconcile()
    assert server.rejected == 2 * (1 + everything)
    server.now += FIRST_RETRY
    operator.reconcile()
    assert server.rejected == 2 * (1 + everything), "the wait has doubled"
    server.edit(suspend=True)
    operator.receive_events()
    operator.reconcile()
    assert server.rejected == 3 * (1 + everything), "an edit is tried at once"

    server.everything = False
    server._replace = super(Rejecting, server)._replace  # type: ignore[method-assign]
    server.now += REJECTED_RETRY
    operator.reconcile()
    assert server.status["phase"] == "Suspended"
    assert operator.reconciler.rejected_statuses == 0


def test_a_lasting_rejection_costs_few_writes() -> None:
    server = Rejecting(everything=True)
    server.add_evolution()
    operator = FakeOperator(server)
    for _ in range(3 * 60):
        operator.reconcile()
        server.now += timedelta(minutes=1)
    assert server.rejected <= 2 * (3 * 6 + 8), "at most one attempt in ten minutes"


def test_a_rejection_ends_with_its_evolution() -> None:
    server = Rejecting(everything=True)
    server.add_evolution()
    operator = FakeOperator(server)
    operator.reconcile()
    server.remove(names.evolution_path(KEY))
    operator.receive_events()
    operator.reconcile()
    assert operator.reconciler.rejected_statuses == 0
