"""Keeps the picture of stage Jobs: a list, then a watch, filtered by label on the server."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

from selfemo_operator.cluster import names
from selfemo_operator.cluster.names import Key
from selfemo_operator.cluster.rest import ApiError, Rest
from selfemo_operator.cluster.view import View

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this; a stream that died in silence is noticed a little later, and
#: the resync lists in the meantime.
WATCH_SECONDS = 240
PAGE = "500"
#: The expired versions say 410; the answer is a new list.
_GONE = 410


class JobWatch:
    """One namespace's Jobs (or all), from a thread of its own.

    Parameters
    ----------
    changed
        Called with the key of an evolution whose Jobs are not what they were.
    """

    def __init__(
        self, rest: Rest, view: View, namespace: str | None, changed: Callable[[Key], None]
    ) -> None:
        self._rest = rest
        self._view = view
        self._namespace = namespace
        self._path = names.jobs_path(namespace)
        self._changed = changed
        self._version = ""
        self._failures = 0
        self._stop = threading.Event()
        self.synced = threading.Event()

    def run(self) -> None:
        """Watch until stopped."""
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._version = self.resync()
                    self.synced.set()
                self._follow()
                self._failures = 0
            except ApiError as error:
                if error.status == _GONE:
                    self._version = ""
                log.warning("the watch of Jobs goes on after: %s", error)
                self._back_off()
            except Exception:  # without this thread only the resync would see Jobs
                log.exception("the watch of Jobs starts again")
                self._version = ""
                self._back_off()

    def _back_off(self) -> None:
        self._failures += 1
        longest = min(2.0 ** min(self._failures - 1, 5), 30.0)
        self._stop.wait(longest * random.uniform(0.5, 1.0))

    def stop(self) -> None:
        """Let :meth:`run` end with the next event or the watch's own end."""
        self._stop.set()

    def resync(self) -> str:
        """List all Jobs into the picture; return the version of the list. Raises ApiError."""
        items, version = list_all(self._rest, self._path, {"labelSelector": names.JOB_SELECTOR})
        for item in items:
            self._say(self._view.put_job(item))
        for key in self._view.keep_jobs(items, int(version), self._namespace):
            self._say(key)
        return version

    def _follow(self) -> None:
        query = {
            "labelSelector": names.JOB_SELECTOR,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        for event in self._rest.watch(self._path, query, WATCH_SECONDS + 30.0):
            if self._stop.is_set():
                break
            item: Json = event["object"]
            if event["type"] == "ERROR":
                code = int(item.get("code", 500))
                raise ApiError(code, item.get("reason", ""), item.get("message", ""))
            self._version, self._failures = item["metadata"]["resourceVersion"], 0
            if event["type"] in ("ADDED", "MODIFIED"):
                self._say(self._view.put_job(item))
            elif event["type"] == "DELETED":
                self._say(self._view.drop_job(item))

    def _say(self, key: Key | None) -> None:
        if key is not None:
            self._changed(key)


def list_all(rest: Rest, path: str, query: dict[str, str]) -> tuple[list[Json], str]:
    """Return all objects of a list, page by page, and the version of the first page.

    Raises
    ------
    ApiError
        If a page cannot be had.
    """
    items: list[Json] = []
    version, token = "", ""
    while True:
        page = rest.get(path, {**query, "limit": PAGE, **({"continue": token} if token else {})})
        items += page.get("items", [])
        version = version or page["metadata"]["resourceVersion"]
        token = page["metadata"].get("continue", "")
        if not token:
            return items, version
