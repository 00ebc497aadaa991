"""The controller: worker threads that reconcile the keys of a work queue, watches, and the resync.

The watches enqueue the evolutions that have changed. The resync lists all objects periodically and
enqueues the evolutions that a lost event would otherwise leave behind.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from selfemo_operator.controller.cache import Cache, object_key
from selfemo_operator.controller.job_watch import JobWatch, list_objects
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.workqueue import WorkQueue
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.pod_watch import PodWatch
from selfemo_operator.controller.reconciler import Conflict, Reconciler

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Seconds to wait after a failed reconcile: the first wait, which doubles, and the longest.
INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 120.0
#: Conflicts of one evolution in a row that are retried at once; later ones back off.
IMMEDIATE_RETRIES = 3
#: The possible results of a reconcile.
RESULTS = ("done", "conflict", "refused", "unreachable", "error")
#: Seconds to wait for running reconciles at the end. Each takes a few requests at most.
STOP_SECONDS = 15.0


class Controller:
    """The work queue with its workers, the watches of Jobs and pods, and the resync.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the watches fill.
    settings
        The settings of the operator.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: Settings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self.queue: WorkQueue[Key] = WorkQueue()
        self._reconciler = Reconciler(kube, cache, settings)
        self._failures: dict[Key, int] = {}
        #: The start of each evolution's last successful reconcile (monotonic).
        self._reconciled: dict[Key, float] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        namespaces: Sequence[str | None] = settings.namespaces or (None,)
        self._namespaces = namespaces
        self._watches = [JobWatch(kube, cache, n, self.queue.add) for n in namespaces]
        self._pod_watches = [PodWatch(kube, cache, n) for n in namespaces]
        self.on_reconciled: Callable[[Key, str, float], None] = lambda *_: None
        """Called after each reconcile with the key, the result and the duration in seconds."""
        self.last_resync: float | None = None
        """The end of the last resync (monotonic), or None before the first."""
        self._resync_started = float("-inf")

    def start(self) -> None:
        """Start all threads. No evolution is reconciled before the first list of Jobs is done."""
        for watch in self._watches:
            self._start(watch.run, "jobs")
        for pods in self._pod_watches:
            self._start(pods.run, "pods")
        self._start(self._run_resync, "resync")
        for number in range(self._settings.concurrency):
            self._start(self._run_worker, f"worker-{number}")

    def stop(self) -> None:
        """Wait for the running reconciles, and start no more."""
        self._stop.set()
        for watch in (*self._watches, *self._pod_watches):
            watch.stop()
        self.queue.close()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.name.startswith("worker"):
                thread.join(max(0.0, deadline - time.monotonic()))

    def resync_age(self) -> float | None:
        """Return the seconds since the last resync, or None before the first."""
        return None if self.last_resync is None else time.monotonic() - self.last_resync

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_worker(self) -> None:
        for watch in self._watches:
            while not watch.synced.wait(1.0):
                if self._stop.is_set():
                    return
        while (key := self.queue.get()) is not None:
            try:
                self._process(key)
            finally:
                self.queue.done(key)

    def _process(self, key: Key) -> None:
        """Reconcile the evolution of a key, and record the result."""
        start = time.monotonic()
        result = self._reconcile(key)
        if result == "done":
            self._reconciled[key] = start
        self.on_reconciled(key, result, time.monotonic() - start)

    def _reconcile(self, key: Key) -> str:
        """Reconcile the evolution of a key, requeue it if necessary, and return the result."""
        try:
            requeue_at = self._reconciler.reconcile(key)
        except Conflict as conflict:
            log.info("%s", conflict)
            retry_now = self._failures.get(key, 0) < IMMEDIATE_RETRIES
            self._requeue(key, 0.0 if retry_now else None)
            return "conflict"
        except ApiError as error:
            log.warning("%s/%s: %s", *key, error)
            self._requeue(key, error.retry_after)
            return "refused" if error.status else "unreachable"
        except Exception:  # a defect in one evolution must not stop the others
            log.exception("%s/%s: the reconcile failed", *key)
            self._requeue(key, None)
            return "error"
        self._failures.pop(key, None)
        if requeue_at is not None:
            self.queue.add_after(key, (requeue_at - datetime.now(UTC)).total_seconds())
        return "done"

    def _requeue(self, key: Key, seconds: float | None) -> None:
        """Enqueue a key again after a failure.

        Parameters
        ----------
        key
            The key of the evolution.
        seconds
            The delay, or None for an exponential backoff.
        """
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        if seconds is None:
            longest = min(INITIAL_BACKOFF * 2.0 ** min(failures - 1, 16), MAX_BACKOFF)
            seconds = longest * random.uniform(0.5, 1.0)
        self.queue.add_after(key, seconds)

    def _run_resync(self) -> None:
        while not self._stop.is_set():
            try:
                self.resync()
            except ApiError as error:
                log.warning("the resync failed: %s", error)
                self._stop.wait(min(5.0, self._settings.resync_seconds))
                continue
            self._stop.wait(self._settings.resync_seconds)

    def resync(self) -> None:
        """List all objects, and enqueue each evolution that was not reconciled since the last time.

        Evolutions that the list shows to be new or changed are enqueued at once, the others with
        low priority. If the operator loses its rights in one of several namespaces, the resync of
        the others continues.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        previous, self._resync_started = self._resync_started, time.monotonic()
        for namespace, watch in zip(self._namespaces, self._watches, strict=True):
            try:
                self._relist(namespace, watch)
            except ApiError as error:
                if error.status != 403 or len(self._watches) == 1:
                    raise
                log.warning("the resync skips namespace %s: %s", namespace, error)
        keys = self._cache.evolution_keys()
        self._reconciled = {k: at for k in keys if (at := self._reconciled.get(k)) is not None}
        for key in [*keys, *self._cache.orphan_keys()]:
            reconciled = self._reconciled.get(key)
            if reconciled is None or reconciled < previous:
                self.queue.add_low_priority(key)
        self.last_resync = time.monotonic()

    def _relist(self, namespace: str | None, watch: JobWatch) -> None:
        path = names.evolutions_path(namespace)
        keys, version = list_objects(self._store_and_enqueue, self._kube, path, {})
        self._cache.prune_evolutions(keys, int(version), namespace)
        watch.relist()

    def _store_and_enqueue(self, item: Json) -> None:
        if self._cache.store_evolution(item):
            self.queue.add(object_key(item))
