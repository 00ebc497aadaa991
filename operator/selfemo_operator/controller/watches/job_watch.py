"""Keeps the stage Jobs in the cache: a list, then a watch, both filtered by label on the server.

The resync lists their metadata alone, without the pod templates, and reads the Jobs that are newer
than those in the cache. While the watch works there are hardly any.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_cache import version_number
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.watches.identity_list import list_identities

Json = dict[str, Any]

_MANAGED = {"labelSelector": names.JOB_SELECTOR}
#: The most Jobs that a resync reads one by one. If more are newer, all are listed.
_SINGLE_READS = 100


class JobWatch(ListWatch):
    """The stage Jobs of one namespace, or of all.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the Jobs are stored in.
    namespace
        The namespace to watch. None watches all namespaces.
    enqueue
        A function that is called with the key of each evolution that must be reconciled because
        one of its Jobs has changed.
    """

    def __init__(
        self, kube: KubeClient, cache: Cache, namespace: str | None, enqueue: Callable[[Key], None]
    ) -> None:
        super().__init__(kube, "Jobs", names.jobs_path(namespace), _MANAGED)
        self._cache = cache
        self._namespace = namespace
        self._enqueue = enqueue

    def relist(self) -> str:
        """List all Jobs into the cache; return the version of the list. Raises ApiError."""
        listed, version = list_objects(
            lambda item: self._enqueue_if_changed(self._cache.store_job(item)),
            self._kube,
            self._path,
            self._query,
        )
        self._prune(listed, version)
        return version

    def resync(self) -> None:
        """List the metadata of all Jobs, and read those that are newer than the cached ones.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        listed, version = list_identities(self._kube, self._path, self._query)
        cached = self._cache.job_versions(self._namespace)
        newer = [k for k, i in listed.items() if cached.get(k, -1) < version_number(i.version)]
        if len(newer) > _SINGLE_READS:
            self.relist()
            return
        for key in newer:
            self._read(key)
        self._prune(listed.keys(), version)

    def _read(self, key: Key) -> None:
        try:
            job = self._kube.get(names.job_path(key))
        except ApiError as error:
            if error.status != 404:
                raise
            return  # it has just been deleted
        self._enqueue_if_changed(self._cache.store_job(job))

    def _prune(self, listed: Set[Key], version: str) -> None:
        for key in self._cache.prune_jobs(listed, int(version), self._namespace):
            self._enqueue(key)

    def on_event(self, kind: str, item: Json) -> None:
        """Store a Job in the cache, or remove it."""
        deleted = kind == "DELETED"
        update = self._cache.remove_job if deleted else self._cache.store_job
        self._enqueue_if_changed(update(item))

    def _enqueue_if_changed(self, key: Key | None) -> None:
        if key is not None:
            self._enqueue(key)
