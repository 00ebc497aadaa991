"""A work queue of keys, like client-go's, with delays and a low priority.

A key is in the queue at most once, and only one worker processes it at a time. Keys of low priority
(those that the resync adds) come after all others.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: At least one key out of this many is a key of low priority, if there is one. Under constant load
#: these keys are late, but they are not starved.
LOW_PRIORITY_EVERY = 16


class WorkQueue(Generic[K]):
    """The keys that wait to be reconciled. Thread-safe.

    A key that is added while a worker processes it is returned again afterwards.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._ready_keys: set[K] = set()
        self._low_priority: dict[K, None] = {}
        self._since_low_priority = 0
        self._processing: set[K] = set()
        self._dirty: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0
        self._closed = False

    def add(self, key: K) -> None:
        """Add a key for the next free worker."""
        with self._changed:
            self._add(key)
            self._changed.notify()

    def add_low_priority(self, key: K) -> None:
        """Add a key that is returned once no other key is ready."""
        with self._changed:
            if key not in self._processing and key not in self._ready_keys:
                self._low_priority[key] = None
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
            if self._due.get(key, float("inf")) <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._delayed, (due, self._count, key))
            self._drop_replaced()
            self._changed.notify_all()  # waiting workers must wait for the new first time

    def get(self) -> K | None:
        """Wait for a key and return it; return None once the queue is closed."""
        with self._changed:
            while True:
                self._add_due()
                if self._closed:
                    return None
                if self._ready or self._low_priority:
                    key = self._pop()
                    self._processing.add(key)
                    if self._ready or self._low_priority:
                        self._changed.notify()  # several may have come due at the same time
                    return key
                timeout = self._delayed[0][0] - time.monotonic() if self._delayed else None
                self._changed.wait(timeout)

    def done(self, key: K) -> None:
        """Mark a key as processed."""
        with self._changed:
            self._processing.discard(key)
            if key in self._dirty:
                self._dirty.discard(key)
                self._add(key)
                self._changed.notify()

    def close(self) -> None:
        """Shut the queue down: all waiting workers receive None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._ready) + len(self._low_priority) + len(self._processing)

    def _add(self, key: K) -> None:
        if key in self._processing:
            self._dirty.add(key)
        elif key not in self._ready_keys:
            self._low_priority.pop(key, None)
            self._ready_keys.add(key)
            self._ready.append(key)

    def _pop(self) -> K:
        turn = self._since_low_priority >= LOW_PRIORITY_EVERY - 1
        if self._low_priority and (not self._ready or turn):
            self._since_low_priority = 0
            key = next(iter(self._low_priority))
            del self._low_priority[key]
            return key
        self._since_low_priority += 1
        key = self._ready.popleft()
        self._ready_keys.discard(key)
        return key

    def _drop_replaced(self) -> None:
        """Remove entries that an earlier time has replaced, once they are the majority.

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
