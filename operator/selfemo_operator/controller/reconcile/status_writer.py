"""Reads evolutions into the cache, and writes their status and their Events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import EvolutionStatus
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_text import (
    METADATA_EVENT,
    REFUSED,
    parse_evolution,
)
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.events import Event, EventReason, event_manifest
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.planner.conditions import with_unreadable_spec

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The times after which a status that the API server rejects is written again, if the evolution has
#: not changed: the first, which doubles, and the longest. A policy or a CRD that is being rolled
#: out rejects for seconds, another one until an administrator acts.
FIRST_RETRY, REJECTED_RETRY = timedelta(seconds=5), timedelta(minutes=10)
#: HTTP statuses of a rejected body. etcd's own limit is reported with 500, and this text.
_REJECTED = (400, 413, 422)
_TOO_LARGE = "too large"


class Conflict(Exception):
    """The cached object was stale: reconcile again."""


class _Rejection(NamedTuple):
    """A status that the API server has rejected."""

    version: str
    """The resource version of the evolution."""
    times: int
    """How many times in a row its status was rejected."""
    retry_at: datetime


class StatusWriter:
    """Reads and writes evolutions for the reconciler.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache. Everything that is read or written is stored in it.
    identity
        The name under which Events are written.
    run_later
        A function that runs another one at any later time. No decision waits for an Event.
    """

    def __init__(
        self,
        kube: KubeClient,
        cache: Cache,
        identity: str,
        run_later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._identity = identity
        self._run_later = run_later
        self._rejections: dict[Key, _Rejection] = {}

    @property
    def rejected(self) -> int:
        """The number of evolutions whose status the API server rejects."""
        return len(self._rejections)

    def refresh(self, key: Key) -> str | None:
        """Read an evolution from the API server into the cache.

        Returns
        -------
        str or None
            The resource version that was read, or None if the evolution does not exist.

        Raises
        ------
        ApiError
            If the API server rejects the request or cannot be reached.
        """
        path = names.evolution_path(key)
        try:
            evolution = self._parse(path, self._kube.get_text(path))
        except ApiError as error:
            if error.status != 404:
                raise
            self._cache.remove_evolution(key)
            return None
        version: str = evolution["metadata"]["resourceVersion"]
        self._cache.store_evolution(evolution)
        return version

    def check_current(self, key: Key, raw: Json) -> None:
        """Check that the cached object is current, where no status write would notice it.

        Raises
        ------
        Conflict
            If it is not.
        """
        # The version that was read counts, not the cached one: the cache stores no older version,
        # and after a restore of etcd all versions are older.
        if self.refresh(key) != raw["metadata"]["resourceVersion"]:
            raise Conflict(f"{key[0]}/{key[1]} has changed: it is reconciled again")

    def retry_at(self, raw: Json, key: Key, now: datetime) -> datetime | None:
        """Return when to write the status again if the API server has rejected it, or None."""
        rejection = self._rejections.get(key)
        if rejection is None or rejection.version != raw["metadata"]["resourceVersion"]:
            return None
        return rejection.retry_at if rejection.retry_at > now else None

    def forget(self, key: Key) -> None:
        """Forget an evolution that has been deleted."""
        self._rejections.pop(key, None)

    def write(
        self,
        key: Key,
        raw: Json,
        evolution: EmotionEvolution,
        status: EvolutionStatus,
        now: datetime,
    ) -> EmotionEvolution:
        """Write the status under the version that was read; return the evolution with it.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        raw
            The evolution as it was read.
        evolution
            The same, parsed.
        status
            The new status.
        now
            The current time.

        Raises
        ------
        Conflict
            If the evolution has changed.
        ApiError
            If the API server rejects the status or cannot be reached. A rejection is reported.
        """
        try:
            written = self._replace(key, {**raw, "status": status.to_json()})
        except ApiError as error:
            if error.status in _REJECTED or _TOO_LARGE in error.message:
                self._report_rejection(key, raw, error, now)
                event = Event(EventReason.STATUS_REJECTED, error.message, warning=True)
                self.record_events(key, evolution, [event], now)
            raise
        self._rejections.pop(key, None)
        version = written["metadata"]["resourceVersion"]
        metadata = evolution.metadata.model_copy(update={"resource_version": version})
        # all other fields are as they were read: the write was accepted under their version
        return evolution.model_copy(update={"metadata": metadata, "status": status})

    def report_unreadable(self, key: Key, raw: Json, message: str, now: datetime) -> bool:
        """Report in the status that a spec cannot be read; return False if the status has it."""
        status = with_unreadable_spec(raw, message, now)
        if status == raw.get("status"):
            return False
        log.warning("%s/%s cannot be read: %s", *key, message)
        self._replace(key, {**raw, "status": status})
        return True

    def record_events(
        self, key: Key, evolution: EmotionEvolution, events: Sequence[Event], now: datetime
    ) -> None:
        """Create the Events of a status that has been written."""
        for event in events:
            manifest = event_manifest(evolution, event, now, self._identity)
            log.info("%s/%s: %s: %s", *key, event.reason, event.message)
            self._run_later(partial(self._create_event, key, event, manifest))

    def _create_event(self, key: Key, event: Event, manifest: Json) -> None:
        try:
            self._kube.create(names.core_path(key[0], "events"), manifest)
        except ApiError as error:  # no decision depends on Events: the status has everything
            log.warning("the Event %s of %s/%s was not created: %s", event.reason, *key, error)

    def _report_rejection(self, key: Key, raw: Json, error: ApiError, now: datetime) -> None:
        """Report in the last accepted status that the new one was rejected, as far as possible."""
        message = f"the API server rejects the status: {error.message}"
        before = self._rejections.get(key)
        count = before.times + 1 if before is not None else 1
        retry_at = now + min(FIRST_RETRY * 2.0 ** min(count - 1, 16), REJECTED_RETRY)
        self._rejections[key] = _Rejection(raw["metadata"]["resourceVersion"], count, retry_at)
        try:
            self.report_unreadable(key, raw, message, now)
        except (ApiError, Conflict) as other:
            log.warning("%s/%s: %s", *key, other)
            return
        version = (self._cache.evolution(key) or raw)["metadata"]["resourceVersion"]
        self._rejections[key] = _Rejection(version, count, retry_at)

    def _replace(self, key: Key, body: Json) -> Json:
        """Write a status, and return the evolution as it is stored."""
        path = names.evolution_path(key)
        body = {k: v for k, v in body.items() if k not in (REFUSED, "managedBy")}
        try:
            with self._cache.expect_write(key):
                text = self._kube.replace_text(f"{path}/status", body)
                written = self._parse(path, text)
                self._cache.store_evolution(written)
        except ApiError as error:
            if error.status == 404:
                self._cache.remove_evolution(key)
                raise Conflict(f"{key[0]}/{key[1]} has been deleted") from error
            if error.status == 409:
                self.refresh(key)
                raise Conflict(f"{key[0]}/{key[1]} has changed: it is reconciled again") from error
            raise
        return written

    def _parse(self, path: str, text: bytes) -> Json:
        try:
            return parse_evolution(text, lambda: self._kube.get_text(path, accept=METADATA_EVENT))
        except ValueError as error:
            message = f"GET {path}: the response is not JSON: {error}"
            raise ApiError(0, "Response", message) from error
