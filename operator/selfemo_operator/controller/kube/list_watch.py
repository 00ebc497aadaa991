"""A list and a watch of one resource that resumes after any error."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this many seconds. A stream that died silently is noticed a little
#: later; until then the resync lists the objects.
WATCH_SECONDS = 240
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
        self.synced = threading.Event()

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
                if not self._version:
                    self._version = self.relist()
                    self.synced.set()
                self._stream_events()
                self._failures = 0
            except ApiError as error:
                if error.status == _GONE:
                    self._version = ""
                log.warning("the watch of %s is resumed after an error: %s", self._what, error)
                self._back_off()
            except Exception:  # the cache would stay stale if this thread ended
                log.exception("the watch of %s starts again with a list", self._what)
                self._version = ""
                self._back_off()

    def stop(self) -> None:
        """Let :meth:`run` return with the next event, or when the server ends the watch."""
        self._stop.set()

    def _back_off(self) -> None:
        self._failures += 1
        longest = min(2.0 ** min(self._failures - 1, 5), 30.0)
        self._stop.wait(longest * random.uniform(0.5, 1.0))

    def _stream_events(self) -> None:
        query = {
            **self._query,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        for event in self._kube.watch(self._path, query, WATCH_SECONDS + 30.0):
            if self._stop.is_set():
                break
            item: Json = event["object"]
            if event["type"] == "ERROR":
                code = int(item.get("code", 500))
                raise ApiError(code, item.get("reason", ""), item.get("message", ""))
            self._version, self._failures = item["metadata"]["resourceVersion"], 0
            if event["type"] != "BOOKMARK":
                self.on_event(event["type"], item)
