"""A limit on the number of requests in a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RequestRate:
    """Lets requests through at a rate. After a pause, those of one second may come at once.

    Parameters
    ----------
    per_second
        The number of requests in a second, at least 1.
    clock
        A function that returns monotonic seconds.
    sleep
        A function that waits for a number of seconds.
    """

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = clock() - 1.0
        """The time from which the next request would be due at a steady rate."""

    def wait(self) -> None:
        """Wait until a request may be sent. Requests are let through in the order of the calls."""
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now - 1.0) + self._interval
            delay = self._next - now
        if delay > 0.0:
            self._sleep(delay)
