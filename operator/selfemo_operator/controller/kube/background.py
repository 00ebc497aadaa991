"""A thread for work that nothing waits for, such as writing Events."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: The most pieces of work that wait. With more, whoever adds one does it.
_WAITING_MAX = 4096


class Background:
    """Does pieces of work one after another, in a thread of its own.

    Parameters
    ----------
    name
        The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(_WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, work: Callable[[], None]) -> None:
        """Add a piece of work. Its exceptions are logged."""
        try:
            self._work.put_nowait(work)
        except queue.Full:
            _do(work)

    def stop(self, deadline: float) -> None:
        """Wait until all work is done, or until a time (monotonic). No work may be added later."""
        try:
            self._work.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            return
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            _do(work)


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # one piece of work must not end the thread
        log.exception("a piece of work in the background failed")
