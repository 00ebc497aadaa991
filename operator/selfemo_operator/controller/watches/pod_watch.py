"""Keeps the termination messages of succeeded stage pods in the cache, and counts removed pods.

No decision depends on this watch: if the cache has no pod of a Job, the pods are listed. But a list
of pods makes the API server read every pod of the namespace, and each stage would need one.
"""

from __future__ import annotations

from typing import Any

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.objects import names

Json = dict[str, Any]

#: The server sends a pod when it begins to match: once, when it has ended.
_ENDED = {
    "labelSelector": names.JOB_SELECTOR,
    "fieldSelector": "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown",
}
#: With this version, the watch starts with all objects in the API server's cache as `ADDED`.
_FROM_CACHE = "0"


class PodWatch(ListWatch):
    """The stage pods of one namespace, or of all, that have ended.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the pods are stored in.
    namespace
        The namespace to watch. None watches all namespaces.
    """

    def __init__(self, kube: KubeClient, cache: Cache, namespace: str | None) -> None:
        super().__init__(kube, "pods", names.core_path(namespace, "pods"), _ENDED)
        self._cache = cache
        self._namespace = namespace

    def relist(self) -> str:
        """Remove all pods from the cache: the watch sends those that exist."""
        self._cache.clear_pods(self._namespace)
        return _FROM_CACHE

    def on_event(self, kind: str, item: Json) -> None:
        """Store a pod in the cache, or remove it."""
        (self._cache.remove_pod if kind == "DELETED" else self._cache.store_pod)(item)
