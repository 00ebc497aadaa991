"""A list and a watch of one resource that resumes after any error."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from selfemo_operator.controller.kube.backoff import backoff_seconds
from selfemo_operator.controller.kube.client import ApiError, KubeClient

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this many seconds. A stream that died silently is noticed a little
#: later; until then the resync lists the objects.
WATCH_SECONDS = 240
#: A stream that ends before this many seconds counts as a failure: something between the operator
#: and the API server closes it, and would otherwise be asked hundreds of times a second.
SHORT_STREAM_SECONDS = 10.0
#: Failures in a row after which the objects are listed again. Some errors concern the version: a
#: version that the server does not know yet is refused with 504, for example.
FAILURES_UNTIL_LIST = 3
#: The first and the longest wait after a failure, in seconds.
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 30.0
#: The HTTP status for a resource version that has expired. The watch then starts again with a list.
_GONE = 410


class ListWatch(ABC):
    """Objects of one path, followed in a thread of its own.

    Parameters
    ----------
    kube
        The client of the API server.
    what
        The kind of the objects, as the log names it.
    path
        The path of the list.
    query
        The query of the list and of the watch, such as a label selector.
    """

    def __init__(self, kube: KubeClient, what: str, path: str, query: dict[str, str]) -> None:
        self._kube = kube
        self._what = what
        self._path = path
        self._query = query
        self._version = ""
        self._failures = 0
        self._stop = threading.Event()
        self._reset = threading.Event()
        self._end_stream: Callable[[], None] = lambda: None
        self.synced = threading.Event()
        """Set while the objects have been listed since the start or the last :meth:`reset`."""
        self.on_synced: Callable[[], None] = lambda: None
        """Called after each list."""
        self.problem = ""
        """Why the objects are not watched; empty while they are."""

    @abstractmethod
    def relist(self) -> str:
        """List all objects; return the resource version from which to watch. Raises ApiError."""

    @abstractmethod
    def on_event(self, kind: str, item: Json) -> None:
        """Handle one watch event.

        Parameters
        ----------
        kind
            The type of the event: `ADDED`, `MODIFIED` or `DELETED`.
        item
            The object of the event.
        """

    def run(self) -> None:
        """List and watch until stopped."""
        while not self._stop.is_set():
            try:
                if self._reset.is_set():
                    self._reset.clear()
                    self.synced.clear()
                    self._version = ""
                if not self._version:
                    self._list()
                self._stream_events()
            except ApiError as error:
                if self._stop.is_set() or self._reset.is_set():
                    continue  # the stream was ended on purpose
                if error.status == _GONE or self._failures >= FAILURES_UNTIL_LIST:
                    self._version = ""
                self.problem = f"{self._what}: {error}"
                log.warning("the watch of %s is resumed after an error: %s", self._what, error)
                self._back_off()
            except Exception as error:  # the cache would stay stale if this thread ended
                self._version = ""
                self.problem = f"{self._what}: {type(error).__name__}: {error}"
                log.exception("the watch of %s starts again with a list", self._what)
                self._back_off()

    def stop(self) -> None:
        """Let :meth:`run` return at once, or as soon as a request has ended."""
        self._stop.set()
        self._end_stream()

    def reset(self) -> None:
        """Start again with a list: what is known of the objects no longer holds."""
        self._reset.set()
        self.synced.clear()
        self._end_stream()

    def _list(self) -> None:
        version = self.relist()
        self._version, self.problem = version, ""
        self.synced.set()
        self.on_synced()

    def _back_off(self) -> None:
        self._failures += 1
        self._stop.wait(backoff_seconds(self._failures, FIRST_BACKOFF, MAX_BACKOFF))

    def _stream_events(self) -> None:
        start = time.monotonic()
        query = {
            **self._query,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        events = self._kube.watch(
            self._path,
            query,
            WATCH_SECONDS + 30.0,
            on_open=self._on_open,
        )
        for event in events:
            if self._stop.is_set() or self._reset.is_set():
                return
            item: Json = event["object"]
            if event["type"] == "ERROR":
                code = int(item.get("code") or 500)
                raise ApiError(code, item.get("reason", ""), item.get("message", ""))
            self._version, self._failures = item["metadata"]["resourceVersion"], 0
            if event["type"] != "BOOKMARK":
                self.on_event(event["type"], item)
        if time.monotonic() - start >= SHORT_STREAM_SECONDS:
            self._failures = 0
        elif not self._reset.is_set():
            self._back_off()

    def _on_open(self, end_stream: Callable[[], None]) -> None:
        self._end_stream = end_stream
        self.problem = ""
        if self._stop.is_set():
            end_stream()
