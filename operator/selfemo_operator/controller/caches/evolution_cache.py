"""The evolutions that the operator knows: their versions, and the objects that it has read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json, to_json

from selfemo_operator.controller.caches.evolution_text import Identity
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]

#: Seconds for which the uid of a deleted evolution is remembered. A response or a page of a list
#: that was on its way when the evolution was deleted arrives before: a request takes at most 70 s.
DELETED_SECONDS = 120.0


def object_key(item: Json) -> Key:
    """Return an object's namespace and name.

    >>> object_key({"metadata": {"namespace": "team", "name": "demo"}})
    ('team', 'demo')
    """
    return item["metadata"]["namespace"], item["metadata"]["name"]


def object_version(item: Json) -> int:
    """Return an object's resource version as a number, which increases with every write to etcd.

    >>> object_version({"metadata": {"resourceVersion": "77"}})
    77
    """
    return version_number(item["metadata"].get("resourceVersion", "0"))


def version_number(text: str) -> int:
    """Return a resource version as a number. A version that is not a number counts as 0."""
    return int(text) if text.isdigit() else 0


class EvolutionCache:
    """The newest version of each evolution. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._evolutions: dict[Key, tuple[int, bytes]] = {}
        #: The newest version of each evolution that a list or a watch has announced.
        self._announced: dict[Key, int] = {}
        #: By the uid of an evolution that was deleted: until when it is remembered (monotonic).
        self._deleted: dict[str, float] = {}
        self._latest = 0
        self._expected_writes: set[Key] = set()

    @contextmanager
    def expect_write(self, key: Key) -> Iterator[None]:
        """Declare the write of an evolution's status: its announcement then enqueues nothing.

        The watch delivers a write before the response to it arrives, and a reconcile for it would
        find nothing to do. If something else has changed as well, :meth:`is_behind` returns so
        afterwards.
        """
        with self._lock:
            self._expected_writes.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._expected_writes.discard(key)

    def announce_evolution(self, key: Key, version: int, uid: str) -> bool:
        """Record that an evolution has a version; return whether it must be reconciled.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        version
            Its resource version.
        uid
            Its uid. A deleted evolution is not announced again.
        """
        with self._lock:
            is_news = self._is_news(key, version, uid)
            if is_news:
                self._record_version(key, version)
            return is_news

    def is_news(self, key: Key, version: int, uid: str) -> bool:
        """Return whether :meth:`announce_evolution` would return true; otherwise do its work.

        Most versions are those that the operator writes itself.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        version
            Its resource version.
        uid
            Its uid.
        """
        with self._lock:
            return self._is_news(key, version, uid)

    def is_behind(self, key: Key) -> bool:
        """Return whether a newer version of an evolution than the cached one was announced."""
        with self._lock:
            return key in self._announced

    def store_evolution(self, item: Json) -> bool:
        """Store an evolution, unless a newer one is cached or it was deleted; return whether."""
        item["metadata"].pop("managedFields", None)
        key, version = object_key(item), object_version(item)
        with self._lock:
            self._latest = max(self._latest, version)
            if self._is_deleted(item["metadata"].get("uid", "")):
                return False
            if self._announced.get(key, version + 1) <= version:
                del self._announced[key]
            return store_newer(self._evolutions, key, item)

    def remove_evolution(self, key: Key, version: int | None = None, uid: str = "") -> None:
        """Remove an evolution, unless the cache has a newer one of its name.

        A version of it that arrives later is not stored: the evolution would stay until the next
        list.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        version
            The resource version of the deletion. None removes any version.
        uid
            The uid of the deleted evolution. Empty: that of the cached one.
        """
        with self._lock:
            self._latest = max(self._latest, version or 0)
            self._remove_evolution(key, version, uid)

    def latest_version(self) -> int:
        """Return the newest version that any evolution has had."""
        with self._lock:
            return self._latest

    def is_newer_than_list(self, listed: Mapping[Key, Identity], version: int) -> bool:
        """Return whether a cached evolution is newer than a list that should contain it.

        Versions only rise, so this happens if the API server's data was restored from a backup.

        Parameters
        ----------
        listed
            The evolutions of the list.
        version
            The version of the list.
        """
        with self._lock:
            return any(
                version_number(item.version) < self._evolutions[key][0] <= version
                for key, item in listed.items()
                if key in self._evolutions
            )

    def evolution_bytes(self, key: Key) -> int:
        """Return the size of a cached evolution as JSON; 0 if it is not cached."""
        with self._lock:
            entry = self._evolutions.get(key)
        return len(entry[1]) if entry else 0

    def evolution(self, key: Key) -> Json | None:
        """Return a copy of an evolution, or None."""
        with self._lock:
            entry = self._evolutions.get(key)
        return from_json(entry[1]) if entry else None

    def evolution_keys(self) -> list[Key]:
        """Return the keys of all evolutions."""
        with self._lock:
            return sorted(self._evolutions)

    def evolution_version(self, key: Key) -> int | None:
        """Return the cached resource version of an evolution, or None."""
        with self._lock:
            entry = self._evolutions.get(key)
        return entry[0] if entry else None

    def evolution_versions(self) -> list[tuple[Key, int]]:
        """Return the keys of all evolutions and their cached resource versions."""
        with self._lock:
            return sorted((key, version) for key, (version, _) in self._evolutions.items())

    def prune_evolutions(self, listed: Set[Key], version: int, namespace: str | None) -> list[Key]:
        """Remove the evolutions that a list does not contain; return their keys.

        Parameters
        ----------
        listed
            The keys of the evolutions in the list.
        version
            The resource version of the list. Newer evolutions stay.
        namespace
            The namespace of the list. None: the list is of all namespaces.
        """
        with self._lock:
            known = {*self._evolutions, *self._announced}
            gone = [k for k in known if k not in listed and in_namespace(k, namespace)]
            return [key for key in gone if self._remove_evolution(key, version, "")]

    def _is_news(self, key: Key, version: int, uid: str) -> bool:
        """Return whether a version must be reconciled; otherwise record what there is to record."""
        if self._is_deleted(uid) or version <= self._known(key):
            self._latest = max(self._latest, version)
            return False
        if key in self._expected_writes:
            self._record_version(key, version)
            return False
        return True

    def _record_version(self, key: Key, version: int) -> None:
        self._latest = max(self._latest, version)
        self._announced[key] = version

    def _known(self, key: Key) -> int:
        """Return the newest version of an evolution that is cached or announced; -1: none."""
        cached = self._evolutions.get(key)
        return max(cached[0] if cached else -1, self._announced.get(key, -1))

    def _remove_evolution(self, key: Key, version: int | None, uid: str) -> bool:
        if uid:
            self._remember_deleted(uid)
        if version is not None and self._known(key) > version:
            return False  # a newer one of this name
        announced, cached = self._announced.pop(key, None), self._evolutions.pop(key, None)
        if cached is not None and not uid:
            self._remember_deleted(from_json(cached[1])["metadata"].get("uid", ""))
        return announced is not None or cached is not None

    def _remember_deleted(self, uid: str) -> None:
        now = time.monotonic()
        self._deleted = {u: until for u, until in self._deleted.items() if until > now}
        self._deleted[uid] = now + DELETED_SECONDS

    def _is_deleted(self, uid: str) -> bool:
        return bool(uid) and self._deleted.get(uid, 0.0) > time.monotonic()


def store_newer(items: dict[Any, tuple[int, bytes]], key: Any, item: Json) -> bool:
    """Store an object if it is newer than the stored one; return whether it was."""
    version = object_version(item)
    before = items.get(key)
    if before is not None and before[0] >= version:
        return False
    items[key] = (version, to_json(item))
    return True


def in_namespace(key: Key, namespace: str | None) -> bool:
    """Return whether a namespace, or None for all, contains the object of a key."""
    return namespace in (None, key[0])
