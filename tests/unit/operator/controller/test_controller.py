"""The resync: what it has looked at, and when."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.operator.controller.fake_api import KEY, NAMESPACE, Client, Server
from tests.unit.operator.controller.fake_operator import SETTINGS

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.controller import Workers
from selfemo_operator.controller.objects.names import Key


def made(server: Server) -> Workers:
    return Workers(Client(server), Cache(), replace(SETTINGS, namespaces=(NAMESPACE,)))


def taken(workers: Workers) -> list[Key]:
    """Take out all that is ready, with a pass for each."""
    found = []
    while len(workers.queue):
        key = workers.queue.get()
        assert key is not None
        found.append(key)
        workers._pass(key)
        workers.queue.done(key)
    return found


def test_what_the_list_brings_is_looked_at() -> None:
    server = Server()
    server.add_evolution()
    workers = made(server)
    workers.resync()
    assert taken(workers) == [KEY]


def test_a_pass_since_the_last_resync_is_enough_but_only_once() -> None:
    server = Server()
    server.add_evolution()
    workers = made(server)
    workers.resync()
    taken(workers)
    workers.resync()
    assert taken(workers) == [], "it had one since the last resync began"
    workers.resync()
    assert taken(workers) == [KEY]


def test_an_edit_that_no_watch_told_is_looked_at_at_once() -> None:
    server = Server()
    server.add_evolution()
    workers = made(server)
    workers.resync()
    taken(workers)
    server.edit(suspend=True)
    workers.resync()
    assert taken(workers) == [KEY]
    assert server.evolution["status"]["phase"] == "Suspended"


def test_what_failed_is_looked_at_again() -> None:
    server = Server()
    server.add_evolution()
    workers = made(server)
    server.forbidden["PUT", "status"] = "not now"
    workers.resync()
    assert taken(workers) == [KEY]
    workers.resync()
    assert taken(workers) == [KEY], "the pass came to nothing"


def test_others_come_before_what_can_wait() -> None:
    server = Server()
    for name in ("a", "b", "c"):
        server.add_evolution(name)
    workers = made(server)
    workers.resync()
    taken(workers)
    workers.resync()
    workers.resync()
    workers.queue.add((NAMESPACE, "c"))
    assert workers.queue.get() == (NAMESPACE, "c")
