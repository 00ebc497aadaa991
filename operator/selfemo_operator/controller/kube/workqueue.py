"""A queue of keys: each at most once, never worked on twice at a time, some of them later.

What can wait (the resync's keys) goes behind all that something has happened to.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: At least one in so many keys given out is one that can wait, if there is any: under a load
#: without end they are late, but they come.
PATIENCE = 16


class WorkQueue(Generic[K]):
    """What waits to be reconciled. Thread-safe.

    A key that is added while it is worked on is given out again afterwards.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._idle: dict[K, None] = {}
        self._in_a_row = 0
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = 0
        self._closed = False

    def add(self, key: K) -> None:
        """Give a key out as soon as a worker is free."""
        with self._changed:
            self._add(key)
            self._changed.notify()

    def add_idle(self, key: K) -> None:
        """Give a key out once nothing else waits."""
        with self._changed:
            if key not in self._working and key not in self._waiting:
                self._idle[key] = None
                self._changed.notify()

    def add_after(self, key: K, seconds: float) -> None:
        """Give a key out later; of several times the earliest holds."""
        due = time.monotonic() + max(0.0, seconds)
        with self._changed:
            if self._due.get(key, float("inf")) <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._later, (due, self._count, key))
            self._forget_replaced()
            self._changed.notify_all()  # whoever waits, waits for what is first now

    def get(self) -> K | None:
        """Wait for a key and return it; None once the queue is closed."""
        with self._changed:
            while True:
                self._take_due()
                if self._closed:
                    return None
                if self._ready or self._idle:
                    key = self._next()
                    self._working.add(key)
                    if self._ready or self._idle:
                        self._changed.notify()  # several may have come due at once
                    return key
                timeout = self._later[0][0] - time.monotonic() if self._later else None
                self._changed.wait(timeout)

    def done(self, key: K) -> None:
        """Say that the work on a key is over."""
        with self._changed:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)
                self._changed.notify()

    def close(self) -> None:
        """Let all workers go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._ready) + len(self._idle) + len(self._working)

    def _add(self, key: K) -> None:
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._idle.pop(key, None)
            self._waiting.add(key)
            self._ready.append(key)

    def _next(self) -> K:
        if self._idle and (not self._ready or self._in_a_row >= PATIENCE - 1):
            self._in_a_row = 0
            key = next(iter(self._idle))
            del self._idle[key]
            return key
        self._in_a_row += 1
        key = self._ready.popleft()
        self._waiting.discard(key)
        return key

    def _forget_replaced(self) -> None:
        """Drop entries that an earlier time has replaced, once they are the most.

        A deadline of a week, asked for again at each resync, would leave ten thousand of them.
        """
        if len(self._later) > 2 * len(self._due) + 64:
            self._later = [e for e in self._later if self._due.get(e[2]) == e[0]]
            heapq.heapify(self._later)

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)
