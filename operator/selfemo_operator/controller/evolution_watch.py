"""Watches evolutions: their metadata alone. It announces their versions to the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.evolution_cache import version_number
from selfemo_operator.controller.evolution_text import (
    METADATA_EVENT,
    METADATA_LIST,
    Identity,
    identities,
    parse_event,
)
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.kube.pages import read_pages
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]


class EvolutionWatch(ListWatch):
    """The evolutions of one namespace, or of all.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the versions are announced to.
    namespace
        The namespace to watch. None watches all namespaces.
    enqueue
        A function that is called with the key of each evolution that must be reconciled.
    """

    accept = METADATA_EVENT

    def __init__(
        self, kube: KubeClient, cache: Cache, namespace: str | None, enqueue: Callable[[Key], None]
    ) -> None:
        super().__init__(kube, "evolutions", names.evolutions_path(namespace), {})
        self._cache = cache
        self._namespace = namespace
        self._enqueue = enqueue
        self.on_restored: Callable[[], None] = lambda: None
        """Called if the API server's data is older than what it returned before."""

    def relist(self) -> str:
        """List all evolutions, and enqueue those that have changed; return the list's version.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        latest = self._cache.latest_version()
        listed: dict[Key, Identity] = {}

        def read(text: bytes) -> tuple[str, str]:
            items, version, token = identities(text)
            listed.update({item.key: item for item in items})
            return version, token

        version = read_pages(read, self._kube, self._path, self._query, METADATA_LIST)
        number = version_number(version)
        if number < latest or self._cache.is_newer_than_list(listed, number):
            self._cache.clear()
            self.on_restored()
        for item in listed.values():
            self._announce(item)
        for key in self._cache.prune_evolutions(listed.keys(), number, self._namespace):
            self._enqueue(key)
        return version

    def on_event(self, kind: str, item: Json) -> None:
        """Announce a new version to the cache, or remove the evolution."""
        metadata = item["metadata"]
        key = metadata["namespace"], metadata["name"]
        if kind == "DELETED":
            self._cache.delete_evolution(item)
            self._enqueue(key)
        else:
            self._announce(Identity(key, metadata["uid"], metadata["resourceVersion"]))

    def parse_event(self, line: bytes) -> Json:
        """Return the event of one line of the stream. Raises ValueError."""
        return parse_event(line)

    def _announce(self, item: Identity) -> None:
        if self._cache.announce_evolution(item.key, version_number(item.version), item.uid):
            self._enqueue(item.key)
