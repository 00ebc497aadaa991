"""The resync: what it has looked at, and when."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.operator.controller.fake_api import KEY, NAMESPACE, Client, Server
from tests.unit.operator.controller.fake_operator import SETTINGS

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.controller import Controller
from selfemo_operator.controller.objects.names import Key


def made(server: Server) -> Controller:
    return Controller(Client(server), Cache(), replace(SETTINGS, namespaces=(NAMESPACE,)))


def taken(controller: Controller) -> list[Key]:
    """Take out all that is ready, with a pass for each."""
    found = []
    while len(controller.queue):
        key = controller.queue.get()
        assert key is not None
        found.append(key)
        controller._process(key)
        controller.queue.done(key)
    return found


def test_what_the_list_brings_is_looked_at() -> None:
    server = Server()
    server.add_evolution()
    controller = made(server)
    controller.resync()
    assert taken(controller) == [KEY]


def test_a_pass_since_the_last_resync_is_enough_but_only_once() -> None:
    server = Server()
    server.add_evolution()
    controller = made(server)
    controller.resync()
    taken(controller)
    controller.resync()
    assert taken(controller) == [], "it had one since the last resync began"
    controller.resync()
    assert taken(controller) == [KEY]


def test_an_edit_that_no_watch_told_is_looked_at_at_once() -> None:
    server = Server()
    server.add_evolution()
    controller = made(server)
    controller.resync()
    taken(controller)
    server.edit(suspend=True)
    controller.resync()
    assert taken(controller) == [KEY]
    assert server.evolution["status"]["phase"] == "Suspended"


def test_what_failed_is_looked_at_again() -> None:
    server = Server()
    server.add_evolution()
    controller = made(server)
    server.forbidden["PUT", "status"] = "not now"
    controller.resync()
    assert taken(controller) == [KEY]
    controller.resync()
    assert taken(controller) == [KEY], "the pass came to nothing"


def test_others_come_before_what_can_wait() -> None:
    server = Server()
    for name in ("a", "b", "c"):
        server.add_evolution(name)
    controller = made(server)
    controller.resync()
    taken(controller)
    controller.resync()
    controller.resync()
    controller.queue.add((NAMESPACE, "c"))
    assert controller.queue.get() == (NAMESPACE, "c")
