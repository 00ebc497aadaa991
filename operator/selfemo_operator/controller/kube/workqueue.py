"""A work queue of keys, like client-go's, with delays, a low priority and fair groups.

A key is in the queue at most once, and only one worker processes it at a time. Keys of low priority
(those that the resync adds) come after all others. Groups (namespaces) take turns, and none may
occupy all workers: keys that take long, or keys without number, delay their own group alone.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

from selfemo_operator.controller.kube.fair_rotation import Limits, Rotation, Usage

K = TypeVar("K", bound=Hashable)

#: At least one key out of this many is a key of low priority, if there is one. Under constant load
#: these keys are late, but they are not starved.
LOW_PRIORITY_EVERY = 16


class WorkQueue(Generic[K]):
    """The keys that wait to be reconciled. Thread-safe.

    A key that is added while a worker processes it is returned again afterwards.

    Parameters
    ----------
    limits
        The groups and weights of keys, and the number of workers. None: all keys are alike.
    """

    def __init__(self, limits: Limits[K] | None = None) -> None:
        self._changed = threading.Condition()
        self._usage: Usage[K] = Usage(limits or Limits())
        self._ready = Rotation(self._usage)
        self._low_priority = Rotation(self._usage)
        self._since_low_priority = 0
        self._dirty: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0
        #: The time at which one of the waiting workers wakes by itself (monotonic).
        self._wakes_at = float("inf")
        self._closed = False

    def add(self, key: K) -> None:
        """Add a key for the next free worker."""
        with self._changed:
            if self._add(key):
                self._changed.notify()

    def add_low_priority(self, key: K) -> None:
        """Add a key that is returned once no other key is ready."""
        with self._changed:
            if key not in self._usage.keys and key not in self._ready:
                self._low_priority.add(key)
                self._changed.notify()

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a delay.

        Parameters
        ----------
        key
            The key to add. If it is added several times, the earliest time counts.
        seconds
            The delay. A negative delay counts as 0.
        """
        due = time.monotonic() + max(0.0, seconds)
        with self._changed:
            if due < self._due.get(key, float("inf")):
                self._delay(key, due)

    def set_delay(self, key: K, seconds: float | None) -> None:
        """Add a key after a delay that replaces its earlier delays.

        Parameters
        ----------
        key
            The key to add.
        seconds
            The delay. A negative delay counts as 0. None: the key is not added, and its earlier
            delays are dropped.
        """
        due = None if seconds is None else time.monotonic() + max(0.0, seconds)
        with self._changed:
            if due is None:
                self._due.pop(key, None)
                self._drop_replaced()
            else:
                self._delay(key, due)

    def get(self) -> K | None:
        """Wait for a key and return it; return None once the queue is closed."""
        with self._changed:
            while True:
                self._add_due()
                if self._closed:
                    return None
                key = self._pop()
                if key is not None:
                    self._usage.take(key)
                    if self._has_ready() or self._lacks_timer():
                        self._changed.notify()  # another worker takes the next key, or waits for it
                    return key
                self._wait()

    def done(self, key: K) -> None:
        """Mark a key as processed."""
        with self._changed:
            self._usage.give_back(key)
            if key in self._dirty:
                self._dirty.discard(key)
                self._add(key)
            if self._has_ready():
                self._changed.notify()  # a key of the same group may have waited

    def close(self) -> None:
        """Shut the queue down: all waiting workers receive None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._ready) + len(self._low_priority) + len(self._usage.keys)

    def is_heavy(self, key: K) -> bool:
        """Return whether a key that is being processed was taken as a heavy one."""
        with self._changed:
            return self._usage.keys.get(key, False)

    def _add(self, key: K) -> bool:
        """Add a key, and return whether a worker may take it now."""
        if key in self._usage.keys:
            self._dirty.add(key)
            return False
        if key not in self._ready:
            self._low_priority.discard(key)
            self._ready.add(key)
        return True

    def _delay(self, key: K, due: float) -> None:
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._delayed, (due, self._count, key))
        self._drop_replaced()
        if self._lacks_timer():
            self._changed.notify()

    def _wait(self) -> None:
        """Wait for a change. One worker alone wakes for the first of the delayed keys.

        If all of them did, each delayed key would wake dozens of threads.
        """
        if not self._lacks_timer():
            self._changed.wait()
            return
        wakes_at = self._wakes_at = self._delayed[0][0]
        self._changed.wait(wakes_at - time.monotonic())
        if self._wakes_at == wakes_at:
            self._wakes_at = float("inf")

    def _lacks_timer(self) -> bool:
        """Return whether no waiting worker wakes by itself for the first of the delayed keys."""
        return bool(self._delayed) and self._delayed[0][0] < self._wakes_at

    def _has_ready(self) -> bool:
        return bool(len(self._ready) or len(self._low_priority))

    def _pop(self) -> K | None:
        """Remove and return the next key that may be processed, or return None."""
        low_first = self._since_low_priority >= LOW_PRIORITY_EVERY - 1
        key = self._low_priority.pop() if low_first else self._ready.pop()
        is_low = low_first and key is not None
        if key is None:
            key = self._ready.pop() if low_first else self._low_priority.pop()
            is_low = not low_first and key is not None
        if key is not None:
            self._since_low_priority = 0 if is_low else self._since_low_priority + 1
        return key

    def _drop_replaced(self) -> None:
        """Remove entries that another time has replaced, once they are the majority.

        A deadline of a week that each resync adds again would otherwise leave ten thousand entries.
        """
        if len(self._delayed) > 2 * len(self._due) + 64:
            self._delayed = [e for e in self._delayed if self._due.get(e[2]) == e[0]]
            heapq.heapify(self._delayed)

    def _add_due(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)
