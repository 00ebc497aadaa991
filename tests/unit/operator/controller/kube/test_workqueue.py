"""The work queue."""

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
    clock = Clock()
    monkeypatch.setattr(workqueue, "time", clock)
    return clock


def take_all(queue: WorkQueue[str]) -> list[str]:
    """Take out all keys that are ready or due; return them in order."""
    keys = []
    for _ in range(2):  # keys that are due become ready with the first
        queue.add("end")
        while (key := queue.get()) != "end":
            assert key is not None
            keys.append(key)
            queue.done(key)
        queue.done("end")
    return keys


def test_a_key_is_queued_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abab":
        queue.add(key)
    assert len(queue) == 2
    assert take_all(queue) == ["a", "b"]


def test_a_key_added_while_it_is_processed_is_returned_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert queue.get() == "b", "never processed twice at the same time"
    queue.done("b")
    queue.done("a")
    assert take_all(queue) == ["a"]


def test_low_priority_keys_come_last_and_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "abc":
        queue.add_low_priority(key)
    queue.add("d")
    queue.add("b")
    queue.add_low_priority("d")
    assert len(queue) == 4
    assert [queue.get() for _ in range(4)] == ["d", "b", "a", "c"]


def test_low_priority_keys_are_not_starved() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_low_priority("z")
    for number in range(100):
        queue.add(str(number))
    keys = [queue.get() for _ in range(workqueue.LOW_PRIORITY_EVERY)]
    assert keys[-1] == "z"


def test_a_low_priority_key_is_not_added_while_it_is_processed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add_low_priority("a")
    queue.done("a")
    assert take_all(queue) == []


def test_a_delayed_key_is_returned_after_its_delay(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 10)
    queue.add_after("b", 5)
    assert take_all(queue) == []
    clock.now += 5
    assert take_all(queue) == ["b"]
    clock.now += 5
    assert take_all(queue) == ["a"]


def test_the_earliest_of_several_delays_counts(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for seconds in (10, 5, 20):
        queue.add_after("a", seconds)
    clock.now += 5
    assert take_all(queue) == ["a"]
    clock.now += 100
    assert take_all(queue) == [], "the other delays are dropped"


def test_a_delay_that_is_set_replaces_earlier_ones(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.set_delay("a", 5)
    queue.set_delay("a", 20)
    queue.set_delay("b", 5)
    queue.set_delay("b", None)
    clock.now += 10
    assert take_all(queue) == []
    clock.now += 10
    assert take_all(queue) == ["a"]
    for number in range(5000):
        queue.set_delay("a", 1000 + number)
    assert len(queue._delayed) < 200


def test_a_negative_delay_does_not_delay(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", -5)
    assert take_all(queue) == ["a"]


def test_replaced_delays_use_no_memory(clock: Clock) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for number in range(5000):
        queue.add_after("a", 600_000 - number * 0.001)
    assert len(queue._delayed) < 200
    clock.now += 600_000
    assert take_all(queue) == ["a"]


def test_keys_due_at_the_same_time_wake_several_workers(clock: Clock) -> None:
    """Each of two workers must receive a key although the clock has woken only one of them."""
    queue: WorkQueue[str] = WorkQueue()
    received: list[str | None] = []
    both = threading.Barrier(3, timeout=60)

    def work() -> None:
        received.append(queue.get())
        both.wait()  # keeps the key until the other worker has one as well

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
    assert sorted(map(str, received)) == ["a", "b"]


def waiting_workers(queue: WorkQueue[str], count: int, received: list[str | None]) -> None:
    """Start workers that take one key each, and return once all of them wait."""
    for _ in range(count):
        threading.Thread(target=lambda: received.append(queue.get()), daemon=True).start()
    pause = threading.Event()
    while len(queue._changed._waiters) < count:  # type: ignore[attr-defined]
        pause.wait(0.01)


def test_one_worker_alone_wakes_for_a_delayed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dozens of workers, waking all of them for each key takes longer than a reconcile."""
    queue: WorkQueue[str] = WorkQueue()
    timeouts: list[float | None] = []
    wait = queue._changed.wait

    def recorded_wait(timeout: float | None = None) -> bool:
        timeouts.append(timeout)
        return wait(timeout)

    monkeypatch.setattr(queue._changed, "wait", recorded_wait)
    queue.add_after("a", 1000)
    waiting_workers(queue, 5, [])
    assert sorted(timeout is None for timeout in timeouts) == [False, True, True, True, True]
    timeouts.clear()
    queue.add_after("later", 2000)
    queue.add_after("earlier", 500)
    pause = threading.Event()
    while not timeouts:
        pause.wait(0.01)
    assert [timeout is not None and timeout <= 500 for timeout in timeouts] == [True]
    queue.close()


def test_a_delayed_key_is_not_late_because_its_worker_took_another_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    received: list[str | None] = []
    queue.add_after("late", 0.2)
    waiting_workers(queue, 2, received)
    queue.add("now")
    pause = threading.Event()
    for _ in range(300):
        if len(received) == 2:
            break
        pause.wait(0.01)
    assert received == ["now", "late"]


def test_closing_ends_all_workers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    received: list[Any] = []
    threads = [threading.Thread(target=lambda: received.append(queue.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(60)
    assert received == [None] * 3


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "later", "set later", "get", "done", "wait"]),
        st.sampled_from("abc"),
    ),
    max_size=60,
)


@given(steps)
def test_no_key_is_lost_or_processed_twice_at_the_same_time(calls: list[tuple[str, str]]) -> None:
    clock, queue = Clock(), WorkQueue[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workqueue, "time", clock)
        pending: set[str] = set()
        working: set[str] = set()
        for step, key in calls:
            if step == "add":
                queue.add(key)
                pending.add(key)
            elif step in ("later", "set later"):
                (queue.add_after if step == "later" else queue.set_delay)(key, 3)
                pending.add(key)
            elif step == "wait":
                clock.now += 2
            elif step == "done" and key in working:
                working.discard(key)
                queue.done(key)
            elif step == "get" and len(queue) > len(working):
                taken = queue.get()
                assert taken is not None
                assert taken not in working
                working.add(taken)
                pending.discard(taken)
        for key in sorted(working):
            queue.done(key)
        clock.now += 10
        assert pending <= set(take_all(queue))


def test_each_key_is_processed_by_one_worker_at_a_time() -> None:
    queue: WorkQueue[int] = WorkQueue()
    active: Counter[int] = Counter()
    done: Counter[int] = Counter()
    lock, overlapping = threading.Lock(), []

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                active[key] += 1
                if active[key] > 1:
                    overlapping.append(key)
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
    assert not overlapping
    assert set(done) == set(range(7))
