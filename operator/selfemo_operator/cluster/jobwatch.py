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
from selfemo_operator.cluster.view import View, key_of

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The server ends a watch after this; a stream that died in silence is noticed a little later, and
#: the resync lists in the meantime.
WATCH_SECONDS = 240
#: Some megabytes at a time; a resync of five thousand Jobs is twenty requests.
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
        there, version = list_into(
            lambda item: self._say(self._view.put_job(item)),
            self._rest,
            self._path,
            {"labelSelector": names.JOB_SELECTOR},
        )
        for key in self._view.keep_jobs(there, int(version), self._namespace):
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


def list_into(
    take: Callable[[Json], object], rest: Rest, path: str, query: dict[str, str]
) -> tuple[set[Key], str]:
    """Hand over the objects of a list; return their namespaces and names, and its version.

    The objects are not held: thousands of Jobs with their pod templates at once would be most of
    the operator's memory. The version is that of the first page.

    Raises
    ------
    ApiError
        If a page cannot be had.
    """
    there: set[Key] = set()
    version, token = "", ""
    while True:
        said = rest.get(
            path, {**query, "limit": PAGE_SIZE, **({"continue": token} if token else {})}
        )
        version = version or said["metadata"]["resourceVersion"]
        for item in said.get("items", []):
            there.add(key_of(item))
            take(item)
        token = said["metadata"].get("continue", "")
        if not token:
            return there, version
