"""Keeps the picture of stage Jobs: a list, then a watch, filtered by label on the server."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from selfemo_operator.cluster import names
from selfemo_operator.cluster.names import Key
from selfemo_operator.cluster.rest import ApiError, Rest
from selfemo_operator.cluster.view import View, key_of

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this; a stream that died in silence is noticed a little later, and
#: the resync lists in the meantime.
WATCH_SECONDS = 240
PAGE_SIZE = "250"
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
        there: set[Key] = set()
        for page in pages(self._rest, self._path, {"labelSelector": names.JOB_SELECTOR}):
            for item in page.items:
                there.add(key_of(item))
                self._say(self._view.put_job(item))
        for key in self._view.keep_jobs(there, int(page.version), self._namespace):
            self._say(key)
        return page.version

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
    """Return all objects of a list, and its version. Raises ApiError."""
    found: list[Json] = []
    for page in pages(rest, path, query):
        found += page.items
    return found, page.version


class Page(NamedTuple):
    """A part of a list."""

    items: list[Json]
    version: str
    """Of the whole list: that of its first page."""


def pages(rest: Rest, path: str, query: dict[str, str]) -> Iterator[Page]:
    """Yield a list page by page, at least one.

    Thousands of Jobs with their pod templates at once would be most of the operator's memory.

    Raises
    ------
    ApiError
        If a page cannot be had.
    """
    version, token = "", ""
    while True:
        said = rest.get(
            path, {**query, "limit": PAGE_SIZE, **({"continue": token} if token else {})}
        )
        version = version or said["metadata"]["resourceVersion"]
        yield Page(said.get("items", []), version)
        token = said["metadata"].get("continue", "")
        if not token:
            return
