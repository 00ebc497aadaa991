"""The controller's resync: which evolutions it enqueues, and when."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.operator.controller.fake_api import KEY, NAMESPACE, FakeApiServer, FakeClient
from tests.unit.operator.controller.fake_operator import SETTINGS

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.controller import Controller
from selfemo_operator.controller.objects.names import Key


def new_controller(server: FakeApiServer) -> Controller:
    return Controller(FakeClient(server), Cache(), replace(SETTINGS, namespaces=(NAMESPACE,)))


def process_ready(controller: Controller) -> list[Key]:
    """Reconcile all evolutions in the queue; return their keys in order."""
    keys = []
    while len(controller.queue):
        key = controller.queue.get()
        assert key is not None
        keys.append(key)
        controller._process(key)
        controller.queue.done(key)
    return keys


def test_new_evolutions_in_the_list_are_reconciled() -> None:
    server = FakeApiServer()
    server.add_evolution()
    controller = new_controller(server)
    controller.resync()
    assert process_ready(controller) == [KEY]


def test_an_evolution_is_reconciled_once_between_two_resyncs() -> None:
    server = FakeApiServer()
    server.add_evolution()
    controller = new_controller(server)
    controller.resync()
    process_ready(controller)
    controller.resync()
    assert process_ready(controller) == [], "it was reconciled after the last resync started"
    controller.resync()
    assert process_ready(controller) == [KEY]


def test_an_edit_that_no_watch_delivered_is_reconciled_at_once() -> None:
    server = FakeApiServer()
    server.add_evolution()
    controller = new_controller(server)
    controller.resync()
    process_ready(controller)
    server.edit(suspend=True)
    controller.resync()
    assert process_ready(controller) == [KEY]
    assert server.evolution["status"]["phase"] == "Suspended"


def test_a_failed_reconcile_is_repeated_at_the_next_resync() -> None:
    server = FakeApiServer()
    server.add_evolution()
    controller = new_controller(server)
    server.forbidden["PUT", "status"] = "not now"
    controller.resync()
    assert process_ready(controller) == [KEY]
    controller.resync()
    assert process_ready(controller) == [KEY], "the last reconcile failed"


def test_changed_evolutions_come_before_those_of_the_resync() -> None:
    server = FakeApiServer()
    for name in ("a", "b", "c"):
        server.add_evolution(name)
    controller = new_controller(server)
    controller.resync()
    process_ready(controller)
    controller.resync()
    controller.resync()
    controller.queue.add((NAMESPACE, "c"))
    assert controller.queue.get() == (NAMESPACE, "c")
