"""Threads that reconcile what is in the queue, and the resync that puts everything into it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from selfemo_operator.controller.cache import Cache, key_of
from selfemo_operator.controller.job_watch import JobWatch, list_into
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.workqueue import WorkQueue
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.pod_watch import PodWatch
from selfemo_operator.controller.reconciler import Conflict, Reconciler

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Waits after failures of one evolution: from half a second, doubled, to two minutes.
FIRST_WAIT, LONGEST_WAIT = 0.5, 120.0
#: How a pass can end.
RESULTS = ("done", "conflict", "refused", "unreachable", "error")
#: A pass is at most a few requests; those that run when the end comes are waited for.
STOP_SECONDS = 15.0


class Workers:
    """The operator's own engine room: watches, resync, workers.

    Parameters
    ----------
    rest, view, settings
        As for :class:`Reconciler`.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: Settings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self.queue: WorkQueue[Key] = WorkQueue()
        self._reconciler = Reconciler(kube, cache, settings)
        self._failures: dict[Key, int] = {}
        #: When each evolution's last good pass began (monotonic).
        self._passed: dict[Key, float] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        namespaces: Sequence[str | None] = settings.namespaces or (None,)
        self._namespaces = namespaces
        self._watches = [JobWatch(kube, cache, n, self.queue.add) for n in namespaces]
        self._pod_watches = [PodWatch(kube, cache, n) for n in namespaces]
        self.ended_pass: Callable[[Key, str, float], None] = lambda *_: None
        """Told how each pass ended and how long it took."""
        self.resynced: float | None = None
        """When the last resync ended (monotonic); None before the first."""
        self._listed = float("-inf")

    def start(self) -> None:
        """Start all threads. Nothing is reconciled before the Jobs have been listed once."""
        for watch in self._watches:
            self._start(watch.run, "jobs")
        for pods in self._pod_watches:
            self._start(pods.run, "pods")
        self._start(self._resync_forever, "resync")
        for number in range(self._settings.concurrency):
            self._start(self._work, f"worker-{number}")

    def stop(self) -> None:
        """Let the passes under way end, and start none."""
        self._stop.set()
        for watch in (*self._watches, *self._pod_watches):
            watch.stop()
        self.queue.close()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.name.startswith("worker"):
                thread.join(max(0.0, deadline - time.monotonic()))

    def resync_age(self) -> float | None:
        """Return the seconds since the last resync; None before the first."""
        return None if self.resynced is None else time.monotonic() - self.resynced

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        for watch in self._watches:
            while not watch.synced.wait(1.0):
                if self._stop.is_set():
                    return
        while (key := self.queue.get()) is not None:
            try:
                self._pass(key)
            finally:
                self.queue.done(key)

    def _pass(self, key: Key) -> None:
        """Do one pass, and see to the next."""
        began = time.monotonic()
        result = self._tried(key)
        if result == "done":
            self._passed[key] = began
        self.ended_pass(key, result, time.monotonic() - began)

    def _tried(self, key: Key) -> str:
        try:
            at = self._reconciler.reconcile(key)
        except Conflict as conflict:
            log.info("%s", conflict)
            self._again(key, 0.0 if self._failures.get(key, 0) < 3 else None)
            return "conflict"
        except ApiError as error:
            log.warning("%s/%s: %s", *key, error)
            self._again(key, error.retry_after)
            return "refused" if error.status else "unreachable"
        except Exception:  # a defect in one evolution must not stop the others
            log.exception("%s/%s: the pass failed", *key)
            self._again(key, None)
            return "error"
        self._failures.pop(key, None)
        if at is not None:
            self.queue.add_after(key, (at - datetime.now(UTC)).total_seconds())
        return "done"

    def _again(self, key: Key, seconds: float | None) -> None:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        if seconds is None:
            longest = min(FIRST_WAIT * 2.0 ** min(failures - 1, 16), LONGEST_WAIT)
            seconds = longest * random.uniform(0.5, 1.0)
        self.queue.add_after(key, seconds)

    def _resync_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.resync()
            except ApiError as error:
                log.warning("the resync failed: %s", error)
                self._stop.wait(min(5.0, self._settings.resync_seconds))
                continue
            self._stop.wait(self._settings.resync_seconds)

    def resync(self) -> None:
        """List everything, and see to every evolution that had no pass since the last time.

        What the list brings that was not known asks for a pass at once. The others can wait for
        those that something has happened to, and one that had a pass since needs none. Rights that
        are lost in one namespace do not stop the others.

        Raises
        ------
        ApiError
            If the API server cannot be asked.
        """
        last, self._listed = self._listed, time.monotonic()
        for namespace, watch in zip(self._namespaces, self._watches, strict=True):
            try:
                self._list(namespace, watch)
            except ApiError as error:
                if error.status != 403 or len(self._watches) == 1:
                    raise
                log.warning("namespace %s is left out of the resync: %s", namespace, error)
        known = self._cache.known()
        self._passed = {key: at for key in known if (at := self._passed.get(key)) is not None}
        for key in [*known, *self._cache.orphans()]:
            at = self._passed.get(key)
            if at is None or at < last:
                self.queue.add_idle(key)
        self.resynced = time.monotonic()

    def _list(self, namespace: str | None, watch: JobWatch) -> None:
        path = names.evolutions_path(namespace)
        there, version = list_into(self._take, self._kube, path, {})
        self._cache.keep_evolutions(there, int(version), namespace)
        watch.renew()

    def _take(self, item: Json) -> None:
        if self._cache.put_evolution(item):
            self.queue.add(key_of(item))
