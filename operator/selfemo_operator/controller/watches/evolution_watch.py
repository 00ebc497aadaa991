"""Watches evolutions with kopf. It announces their versions to the cache.

kopf lists and watches the resources, and starts a watch again that has ended. Its `on.event`
handler is level-based: kopf needs no finalizer, and writes no annotation. The resync finds what a
watch may miss.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, cast

import kopf

from selfemo_api.api_model import GROUP, VERSION
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_cache import version_number
from selfemo_operator.controller.caches.evolution_text import Identity
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.list_watch import WATCH_SECONDS, ListWatch
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.watches.identity_list import list_identities
from selfemo_operator.controller.watches.kopf_session import Backoffs, StreamHealth, session_for

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Evolutions on a page of kopf's first list. Their metadata can have 1.5 MB each.
_CHUNK_SIZE = 25
#: Seconds between two watches, or between an expired version and the list that follows.
_RECONNECT_SECONDS = 1.0


class EvolutionWatch(ListWatch):
    """The evolutions of one namespace, or of all.

    Each watch is a kopf operator of its own, so the error of one ends no other.

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
        listed, version = list_identities(self._kube, self._path, self._query)
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

    def _announce(self, item: Identity) -> None:
        if self._cache.announce_evolution(item.key, version_number(item.version), item.uid):
            self._enqueue(item.key)

    def _is_news(self, item: Identity) -> bool:
        return self._cache.is_news(item.key, version_number(item.version), item.uid)

    def _stream_events(self) -> None:
        """Run kopf until the watch is stopped or reset. It ends by itself after a defect alone."""
        try:
            asyncio.run(self._run_kopf())
        except Exception as error:  # kopf's errors have no common base class
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise ApiError(0, "Watch", f"kopf: {message}") from error
        finally:
            self._end_stream = lambda: None
        if not self._stop.is_set() and not self._reset.is_set():
            raise ApiError(0, "Watch", "kopf has ended")

    async def _run_kopf(self) -> None:
        loop, stop_flag = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(stop_flag.set)

        self._on_open(end)
        if self._reset.is_set():
            end()
        await kopf.operator(
            registry=self._registry(),
            settings=kopf_settings(),
            standalone=True,  # leader election uses the Lease instead of kopf's peering
            clusterwide=self._namespace is None,
            namespaces=[self._namespace] if self._namespace is not None else [],
            stop_flag=stop_flag,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        """Return the handlers of this watch."""
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**arguments: Any) -> Any:
            info = await asyncio.to_thread(kopf.login_via_client, **arguments)
            health = StreamHealth(self._report, self._kube.on_response)
            return info and session_for(info, health, self._is_news)

        @kopf.on.event(GROUP, VERSION, names.PLURAL, registry=registry)
        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            try:
                self.on_event(event["type"] or "ADDED", dict(event["object"]))
            except Exception:  # the resync finds the evolution again
                log.exception("an event of an evolution was not handled")

        return registry

    def _report(self, problem: str) -> None:
        """Store the problem of the watch, and log it once."""
        text = f"{self._what}: {problem}" if problem else ""
        if text and text != self.problem:
            log.warning("the watch of %s is resumed after an error: %s", self._what, problem)
        self.problem = text


class _NoDiffStorage(kopf.AnnotationsDiffBaseStorage):
    """Stores no earlier state of an object: no handler compares states, so nothing is copied."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence for every object."""
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        """Return no earlier essence."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches evolutions, writes nothing, and never gives up."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # kopf would kill the process some time after one of its operators has ended
    settings.process.ultimate_exiting_timeout = None
    settings.scanning.disabled = True  # so it needs no right on CRDs and namespaces
    settings.watching.server_timeout = WATCH_SECONDS  # then a stream that died silently is replaced
    settings.watching.client_timeout = WATCH_SECONDS + 60
    settings.watching.connect_timeout = 5
    settings.watching.reconnect_backoff = _RECONNECT_SECONDS
    settings.watching.chunk_size = _CHUNK_SIZE
    settings.networking.request_timeout = 65
    settings.networking.error_backoffs = Backoffs()
    settings.persistence.diffbase_storage = _NoDiffStorage()
    settings.persistence.finalizer = f"{GROUP}/unused"
    return settings
