"""What is known of deleted evolutions: it decides whether their data is removed."""

from __future__ import annotations

import threading
from typing import Any

from pydantic_core import from_json, to_json

from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]


class DeletedEvolutions:
    """A thread-safe record of evolutions whose purge Job has not been started. It stays small."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By key and uid: the resource version of the deletion.
        self._versions: dict[tuple[Key, str], int] = {}
        #: By key and uid: the state that the API server sent with the deletion, without the status.
        self._states: dict[tuple[Key, str], bytes] = {}

    def record_version(self, key: Key, uid: str, version: int) -> None:
        """Record the resource version at which an evolution was deleted.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid.
        version
            The resource version of the deletion.
        """
        with self._lock:
            self._versions[key, uid] = version

    def version(self, key: Key, uid: str) -> int | None:
        """Return the resource version at which an evolution was deleted, or None."""
        with self._lock:
            return self._versions.get((key, uid))

    def record_state(self, key: Key, item: Json) -> None:
        """Record the state that an evolution had when it was deleted."""
        text = to_json({name: value for name, value in item.items() if name != "status"})
        with self._lock:
            self._states[key, item["metadata"]["uid"]] = text

    def state(self, key: Key, uid: str) -> Json | None:
        """Return the state that an evolution had when it was deleted, or None."""
        with self._lock:
            text = self._states.get((key, uid))
        return from_json(text) if text is not None else None

    def forget(self, key: Key, uid: str | None = None) -> None:
        """Remove an evolution, or all that have had a name."""

        def stays(place: tuple[Key, str]) -> bool:
            return place[0] != key or uid not in (None, place[1])

        with self._lock:
            self._versions = {p: value for p, value in self._versions.items() if stays(p)}
            self._states = {p: value for p, value in self._states.items() if stays(p)}
