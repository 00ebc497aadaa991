"""Hears what stage pods said when they ended well.

Nothing depends on it: of a Job whose pod it has not heard of, the pods are listed. But a list of
pods costs the API server a look at every pod of the namespace, and each stage would ask for one.
"""

from __future__ import annotations

from typing import Any

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.list_watch import Watch
from selfemo_operator.controller.objects import names

Json = dict[str, Any]

#: The server hands a pod out when it begins to fit: once, when it has ended.
_ENDED = {"labelSelector": names.JOB_SELECTOR, "fieldSelector": "status.phase=Succeeded"}
#: What is there in the server's cache comes first, as if it were new.
_FROM_THE_CACHE = "0"


class PodWatch(Watch):
    """One namespace's stage pods that have succeeded (or all namespaces')."""

    def __init__(self, kube: KubeClient, cache: Cache, namespace: str | None) -> None:
        super().__init__(kube, "pods", names.core_path(namespace, "pods"), _ENDED)
        self._cache = cache
        self._namespace = namespace

    def renew(self) -> str:
        """Forget all pods: those that are there come with the watch."""
        self._cache.forget_pods(self._namespace)
        return _FROM_THE_CACHE

    def on_event(self, kind: str, item: Json) -> None:
        """Put a pod into the picture, or take it out."""
        (self._cache.drop_pod if kind == "DELETED" else self._cache.put_pod)(item)
