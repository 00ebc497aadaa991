"""Keeps the picture of stage Jobs: a list, then a watch, filtered by label on the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfemo_operator.controller.cache import Cache, key_of
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.list_watch import Watch
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]

#: Some megabytes at a time; a resync of five thousand Jobs is twenty requests.
PAGE_SIZE = "250"
_OURS = {"labelSelector": names.JOB_SELECTOR}


class JobWatch(Watch):
    """One namespace's Jobs (or all).

    Parameters
    ----------
    changed
        Called with the key of an evolution whose Jobs are not what they were.
    """

    def __init__(
        self, kube: KubeClient, cache: Cache, namespace: str | None, changed: Callable[[Key], None]
    ) -> None:
        super().__init__(kube, "Jobs", names.jobs_path(namespace), _OURS)
        self._cache = cache
        self._namespace = namespace
        self._changed = changed

    def renew(self) -> str:
        """List all Jobs into the picture; return the version of the list. Raises ApiError."""
        there, version = list_into(
            lambda item: self._say(self._cache.put_job(item)), self._kube, self._path, self._query
        )
        for key in self._cache.keep_jobs(there, int(version), self._namespace):
            self._say(key)
        return version

    def on_event(self, kind: str, item: Json) -> None:
        """Put a Job into the picture, or take it out."""
        self._say(self._cache.drop_job(item) if kind == "DELETED" else self._cache.put_job(item))

    def _say(self, key: Key | None) -> None:
        if key is not None:
            self._changed(key)


def list_into(
    take: Callable[[Json], object], kube: KubeClient, path: str, query: dict[str, str]
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
        said = kube.get(
            path, {**query, "limit": PAGE_SIZE, **({"continue": token} if token else {})}
        )
        version = version or said["metadata"]["resourceVersion"]
        for item in said.get("items", []):
            there.add(key_of(item))
            take(item)
        token = said["metadata"].get("continue", "")
        if not token:
            return there, version
