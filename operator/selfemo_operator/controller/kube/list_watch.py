"""A watch of the API server, filtered there, which goes on after whatever ends a stream."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this; a stream that died in silence is noticed a little later, and
#: the resync lists in the meantime.
WATCH_SECONDS = 240
#: The expired versions say 410; the answer is to begin anew.
_GONE = 410


class Watch(ABC):
    """Objects of one path, from a thread of its own.

    Parameters
    ----------
    what
        The kind in words, for the log.
    path, query
        What the API server is asked for.
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
    def renew(self) -> str:
        """Take the picture anew; return the version from which to watch. Raises ApiError."""

    @abstractmethod
    def on_event(self, kind: str, item: Json) -> None:
        """Take in an object that was `ADDED`, `MODIFIED` or `DELETED`."""

    def run(self) -> None:
        """Watch until stopped."""
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._version = self.renew()
                    self.synced.set()
                self._follow()
                self._failures = 0
            except ApiError as error:
                if error.status == _GONE:
                    self._version = ""
                log.warning("the watch of %s goes on after: %s", self._what, error)
                self._back_off()
            except Exception:  # without this thread nothing of it would be seen any more
                log.exception("the watch of %s starts again", self._what)
                self._version = ""
                self._back_off()

    def stop(self) -> None:
        """Let :meth:`run` end with the next event or the watch's own end."""
        self._stop.set()

    def _back_off(self) -> None:
        self._failures += 1
        longest = min(2.0 ** min(self._failures - 1, 5), 30.0)
        self._stop.wait(longest * random.uniform(0.5, 1.0))

    def _follow(self) -> None:
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
