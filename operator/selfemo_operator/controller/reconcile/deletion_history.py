"""The state that an evolution had when it was deleted, from the API server's watch history."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from selfemo_operator.controller.caches.deleted_evolutions import DeletedEvolutions
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]

#: Seconds that the API server has to send a deletion from its history. It sends it at once.
REPLAY_SECONDS = 5
#: The time to wait for the watch to announce a deletion, if the history does not reach back to the
#: version that was seen last. The watch takes less than a second; after an error it is resumed
#: within 30 seconds. If no operator ran at the deletion, nothing is announced.
DELETION_EVENT_WAIT = timedelta(seconds=60)
#: The HTTP status if the history of the API server does not reach back to a version.
_GONE = 410


class DeletionHistory:
    """Reads the last states of deleted evolutions.

    Parameters
    ----------
    kube
        The client of the API server.
    deleted
        What is known of deleted evolutions.
    """

    def __init__(self, kube: KubeClient, deleted: DeletedEvolutions) -> None:
        self._kube = kube
        self._deleted = deleted
        #: By the uid of a deleted evolution whose last state is not known: when that was noticed.
        self._noticed: dict[str, datetime] = {}
        #: One at a time: an evolution of 1 MB takes 25 MB as Python objects.
        self._replaying = threading.Lock()

    def last_state(self, key: Key, uid: str, since: str) -> Json | None:
        """Return the state that an evolution had when it was deleted.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid.
        since
            The resource version of the evolution that was seen last.

        Returns
        -------
        dict or None
            The evolution. None: the history of the API server does not reach back to the deletion.

        Raises
        ------
        ApiError
            If the API server rejects the request or cannot be reached. The state is then unknown.
        """
        state, version = self._deleted.state(key, uid), self._deleted.version(key, uid)
        if state is not None:
            return state
        if version is not None:
            since = str(version - 1)  # versions are numbers, and rise with every write to etcd
        with self._replaying:
            state = self._replay(key, uid, since)
        if state is not None:
            self._deleted.record_state(key, state)
        return state

    def is_awaited(self, uid: str) -> bool:
        """Return whether the watch may still announce a deletion that was noticed before."""
        now = datetime.now(UTC)
        return now - self._noticed.setdefault(uid, now) < DELETION_EVENT_WAIT

    def forget(self, uid: str) -> None:
        """Remove what is known of an evolution whose purge Job has been started."""
        self._noticed.pop(uid, None)

    def _replay(self, key: Key, uid: str, since: str) -> Json | None:
        """Return the state that an evolution had when it was deleted, from the server's history.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid.
        since
            A resource version before the deletion.
        """
        query = {
            "fieldSelector": f"metadata.name={key[1]}",
            "resourceVersion": since or "1",
            "timeoutSeconds": str(REPLAY_SECONDS),
        }
        try:
            for event in self._kube.watch(names.evolutions_path(key[0]), query, 30.0):
                item: Json = event["object"]
                if event["type"] == "DELETED" and item["metadata"]["uid"] == uid:
                    return item
                if event["type"] == "ERROR":
                    break
            else:
                return None
        except ApiError as error:
            if error.status != _GONE:
                raise
            return None
        code = int(item.get("code") or 500)
        if code != _GONE:
            raise ApiError(code, item.get("reason", ""), item.get("message", ""))
        return None
