"""The queue of keys."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_operator.controller.kube import workqueue
from selfemo_operator.controller.kube.workqueue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(workqueue, "time", found)
    return found


def drained(queue: WorkQueue[str]) -> list[str]:
    """Take out all that is ready now, and all that is due."""
    found = []
    for _ in range(2):  # what is due becomes ready with the first
        queue.add("end")
        while (key := queue.get()) != "end":
            assert key is not None
            found.append(key)
            queue.done(key)
        queue.done("end")
    return found


def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abab":
        queue.add(key)
    assert len(queue) == 2
    assert drained(queue) == ["a", "b"]


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert queue.get() == "b", "never twice at a time"
    queue.done("b")
    queue.done("a")
    assert drained(queue) == ["a"]


def test_what_can_wait_comes_last_and_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add_low_priority(key)
    queue.add("d")
    queue.add("b")
    queue.add_low_priority("d")
    assert len(queue) == 4
    assert [queue.get() for _ in range(4)] == ["d", "b", "a", "c"]


def test_what_can_wait_does_not_wait_for_ever() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_low_priority("z")
    for number in range(100):
        queue.add(str(number))
    given = [queue.get() for _ in range(workqueue.LOW_PRIORITY_EVERY)]
    assert given[-1] == "z"


def test_what_can_wait_is_not_added_while_it_is_worked_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add_low_priority("a")
    queue.done("a")
    assert drained(queue) == []


def test_later_is_not_now(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 10)
    queue.add_after("b", 5)
    assert drained(queue) == []
    clock.now += 5
    assert drained(queue) == ["b"]
    clock.now += 5
    assert drained(queue) == ["a"]


def test_of_several_times_the_earliest_holds(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for seconds in (10, 5, 20):
        queue.add_after("a", seconds)
    clock.now += 5
    assert drained(queue) == ["a"]
    clock.now += 100
    assert drained(queue) == [], "the others are void"


def test_a_time_in_the_past_is_now(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", -5)
    assert drained(queue) == ["a"]


def test_asking_again_and_again_a_little_earlier_costs_no_memory(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(5000):
        queue.add_after("a", 600_000 - number * 0.001)
    assert len(queue._delayed) < 200
    clock.now += 600_000
    assert drained(queue) == ["a"]


def test_what_comes_due_at_once_wakes_as_many_workers(clock: Clock) -> None:
    """Each of two workers must get one key though only one of them was woken by the clock."""
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    both = threading.Barrier(3, timeout=60)

    def work() -> None:
        got.append(queue.get())
        both.wait()  # holds the key until the other has one as well

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    queue.add_after("a", 1000)
    queue.add_after("b", 1000)
    pause = threading.Event()
    while True:
        with queue._changed:
            if len(queue._changed._waiters) == 2:  # type: ignore[attr-defined]
                clock.now += 1000
                queue._changed.notify()
                break
        pause.wait(0.01)
    both.wait()
    assert sorted(map(str, got)) == ["a", "b"]


def test_closing_lets_all_workers_go() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(60)
    assert got == [None] * 3


steps = st.lists(
    st.tuples(st.sampled_from(["add", "later", "get", "done", "wait"]), st.sampled_from("abc")),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_and_nothing_is_done_twice_at_a_time(said: list[tuple[str, str]]) -> None:
    clock, queue = Clock(), WorkQueue[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workqueue, "time", clock)
        owed: set[str] = set()
        working: set[str] = set()
        for step, key in said:
            if step == "add":
                queue.add(key)
                owed.add(key)
            elif step == "later":
                queue.add_after(key, 3)
                owed.add(key)
            elif step == "wait":
                clock.now += 2
            elif step == "done" and key in working:
                working.discard(key)
                queue.done(key)
            elif step == "get" and len(queue) > len(working):
                found = queue.get()
                assert found is not None
                assert found not in working
                working.add(found)
                owed.discard(found)
        for key in sorted(working):
            queue.done(key)
        clock.now += 10
        assert owed <= set(drained(queue))


def test_many_workers_do_each_key_alone() -> None:
    queue: WorkQueue[int] = WorkQueue()
    active: Counter[int] = Counter()
    done: Counter[int] = Counter()
    lock, wrong = threading.Lock(), []

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                active[key] += 1
                if active[key] > 1:
                    wrong.append(key)
            with lock:
                active[key] -= 1
                done[key] += 1
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        queue.add(number % 7)
    last = threading.Event()
    while len(queue):
        last.wait(0.01)
    queue.close()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert set(done) == set(range(7))
