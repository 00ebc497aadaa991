"""Namespaces take turns in the work queue, and none occupies all workers."""

from __future__ import annotations

from selfemo_operator.controller.kube.fair_rotation import MAX_HEAVY, MAX_HEAVY_OF_GROUP, Limits
from selfemo_operator.controller.kube.workqueue import WorkQueue

Key = tuple[str, str]


def new_queue(workers: int = 32, heavy: str = "") -> WorkQueue[Key]:
    limits: Limits[Key] = Limits(
        workers, lambda key: key[0], lambda key: bool(heavy) and key[1].startswith(heavy)
    )
    return WorkQueue(limits)


def take_possible(queue: WorkQueue[Key]) -> list[Key]:
    """Take keys until none may be processed; return them."""
    keys = []
    while (key := queue._pop()) is not None:
        queue._usage.take(key)
        keys.append(key)
    return keys


def add(queue: WorkQueue[Key], namespace: str, count: int, prefix: str = "") -> None:
    for number in range(count):
        queue.add((namespace, f"{prefix}{number}"))


def test_a_namespace_with_many_keys_does_not_delay_another() -> None:
    queue = new_queue()
    add(queue, "many", 1000)
    add(queue, "few", 2)
    order = [queue.get() for _ in range(4)]
    assert order == [("many", "0"), ("few", "0"), ("many", "1"), ("few", "1")]


def test_a_namespace_whose_keys_take_for_ever_leaves_workers_to_others() -> None:
    """Every request of a hostile namespace may hang until its timeout."""
    queue = new_queue()
    add(queue, "stuck", 1000)
    assert len(take_possible(queue)) == 24
    add(queue, "stuck too", 1000)
    assert len(take_possible(queue)) == 6
    add(queue, "team", 1)
    assert take_possible(queue) == [("team", "0")]
    add(queue, "other", 1)
    assert take_possible(queue) == [("other", "0")]


def test_workers_that_become_free_are_used_again() -> None:
    queue = new_queue()
    add(queue, "team", 30)
    taken = take_possible(queue)
    for key in taken:
        queue.done(key)
    assert len(take_possible(queue)) == 30 - len(taken)
    assert len(queue) == 30 - len(taken)


def test_keys_of_the_resync_take_turns_as_well() -> None:
    queue = new_queue()
    for number in range(3):
        queue.add_low_priority(("many", str(number)))
    queue.add_low_priority(("few", "0"))
    assert [queue.get() for _ in range(2)] == [("many", "0"), ("few", "0")]


def test_few_heavy_keys_are_processed_at_the_same_time() -> None:
    queue = new_queue(heavy="big")
    for namespace in ("a", "b", "c"):
        add(queue, namespace, 10, "big")
    add(queue, "a", 3)
    taken = take_possible(queue)
    heavy = [key for key in taken if key[1].startswith("big")]
    assert len(heavy) == MAX_HEAVY
    assert max([k[0] for k in heavy].count(n) for n in "abc") == MAX_HEAVY_OF_GROUP
    assert len(taken) - len(heavy) == 3, "light keys do not wait for heavy ones"
    assert all(queue.is_heavy(key) for key in heavy)
    queue.done(heavy[0])
    (following,) = take_possible(queue)
    assert following[1].startswith("big")
