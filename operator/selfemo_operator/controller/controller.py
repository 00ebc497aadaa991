"""The controller: worker threads that reconcile the keys of a work queue, watches, and the resync.

The watches enqueue the evolutions that have changed. The resync lists all objects periodically and
enqueues the evolutions that a lost event would otherwise leave behind. Each namespace that is
served has watches and a resync of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.background import Background
from selfemo_operator.controller.kube.backoff import backoff_seconds
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.fair_rotation import Limits
from selfemo_operator.controller.kube.workqueue import WorkQueue
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.reconcile.creation_errors import RejectedJob
from selfemo_operator.controller.reconcile.reconciler import Reconciler
from selfemo_operator.controller.reconcile.status_writer import Conflict
from selfemo_operator.controller.watches.served_namespace import (
    RESYNC_RETRY_SECONDS,
    ServedNamespace,
)

log = logging.getLogger(__name__)

#: Seconds to wait after a failed reconcile: the first wait, which doubles, and the longest.
INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 120.0
#: Conflicts of one evolution in a row that are retried at once; later ones back off.
IMMEDIATE_RETRIES = 3
#: The possible results of a reconcile.
RESULTS = ("done", "conflict", "refused", "unreachable", "error")
#: The size in bytes from which an evolution counts as heavy: few of them are reconciled at the same
#: time. As Python objects, in several copies, it may take a hundred times as much memory. An
#: evolution after a long run has 40 KiB.
HEAVY_BYTES = 64 * 2**10
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
        limits: Limits[Key] = Limits(settings.concurrency, lambda key: key[0], self._is_heavy)
        self.queue: WorkQueue[Key] = WorkQueue(limits)
        self._events = Background("events")
        self._reconciler = Reconciler(kube, cache, settings, self._events.add)
        self._failures: dict[Key, int] = {}
        #: The start of each evolution's last successful reconcile (monotonic).
        self._reconciled: dict[Key, float] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        namespaces: Sequence[str | None] = settings.namespaces or (None,)
        self._served = {n: ServedNamespace(kube, cache, n, self.queue.add) for n in namespaces}
        for served in self._served.values():
            served.evolutions.on_restored = self._on_restored
        self.on_reconciled: Callable[[Key, str, float], None] = lambda *_: None
        """Called after each reconcile with the key, the result and the duration in seconds."""

    def start(self) -> None:
        """Start all threads. No evolution is reconciled before its Jobs have been listed."""
        for served in self._served.values():
            self._start(served.jobs.run, "jobs")
            self._start(served.pods.run, "pods")
            self._start(served.evolutions.run, "evolutions")
            self._start(lambda served=served: self._run_resync(served), "resync")  # type: ignore[misc]
        self._events.start()
        for number in range(self._settings.concurrency):
            self._start(self._run_worker, f"worker-{number}")

    def stop(self) -> None:
        """Wait for the running reconciles, and start no more."""
        self._stop.set()
        for served in self._served.values():
            served.stop()
        self.queue.close()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.name.startswith("worker"):
                thread.join(max(0.0, deadline - time.monotonic()))
        self._events.stop(deadline)

    def resync_age(self) -> float | None:
        """Return the seconds since the last resync of any namespace, or None before the first."""
        return _age(s.last_resync for s in self._served.values())

    def answer_age(self) -> float | None:
        """Return the seconds since the API server last answered a resync; None: never."""
        return _age(s.last_answer for s in self._served.values())

    def problems(self) -> dict[str, str]:
        """Return why each namespace is not watched; empty while it is.

        The key of all namespaces together is the empty text.
        """
        return {namespace or "": served.problem for namespace, served in self._served.items()}

    def rejected_statuses(self) -> int:
        """Return the number of evolutions whose status the API server rejects."""
        return self._reconciler.rejected_statuses

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_worker(self) -> None:
        while (key := self.queue.get()) is not None:
            try:
                if not self._served_of(key).hold(key):
                    self._process(key)
            finally:
                self.queue.done(key)

    def _served_of(self, key: Key) -> ServedNamespace:
        return self._served[key[0] if self._settings.namespaces else None]

    def _is_heavy(self, key: Key) -> bool:
        return self._cache.evolution_bytes(key) > HEAVY_BYTES

    def _on_restored(self) -> None:
        """Start again with lists: the API server's data was restored from a backup."""
        log.warning("the API server's data is older than before: everything is listed again")
        for served in self._served.values():
            served.reset()

    def _process(self, key: Key) -> None:
        """Reconcile the evolution of a key, and record the result."""
        start = time.monotonic()
        result = self._reconcile(key)
        if result is None:
            return
        if result == "done":
            self._reconciled[key] = start
        self.on_reconciled(key, result, time.monotonic() - start)

    def _reconcile(self, key: Key) -> str | None:
        """Reconcile the evolution of a key, requeue it if necessary, and return the result.

        An evolution that turns out to be heavy is enqueued again, as a heavy one; the result is
        then None.
        """
        try:
            self._reconciler.refresh(key)
            if self._is_heavy(key) and not self.queue.is_heavy(key):
                self.queue.add(key)
                return None
            requeue_at = self._reconciler.reconcile(key)
        except (Conflict, RejectedJob) as problem:
            log.info("%s", problem)
            retry_now = self._failures.get(key, 0) < IMMEDIATE_RETRIES
            self._requeue(key, 0.0 if retry_now else None)
            return "conflict" if isinstance(problem, Conflict) else "refused"
        except ApiError as error:
            log.warning("%s/%s: %s", *key, error)
            self._requeue(key, error.retry_after)
            return "refused" if error.status else "unreachable"
        except Exception:  # a defect in one evolution must not stop the others
            log.exception("%s/%s: the reconcile failed", *key)
            self._requeue(key, None)
            return "error"
        self._failures.pop(key, None)
        if self._cache.is_behind(key):  # it has changed while its status was written
            self.queue.add(key)
        # This pass has looked at everything, so its time replaces those of earlier passes.
        wait = None if requeue_at is None else requeue_at - datetime.now(UTC)
        self.queue.set_delay(key, None if wait is None else wait.total_seconds())
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
            seconds = backoff_seconds(failures, INITIAL_BACKOFF, MAX_BACKOFF)
        self.queue.add_after(key, seconds)

    def _run_resync(self, served: ServedNamespace) -> None:
        retry = min(RESYNC_RETRY_SECONDS, self._settings.resync_seconds)
        while not self._stop.is_set():
            wait = self._settings.resync_seconds
            try:
                self._resync(served)
            except ApiError as error:
                wait = wait if error.status == 403 else retry
                log.warning("the resync of %s failed: %s", served.namespace or "everything", error)
            except Exception:  # the other namespaces and the watches go on
                log.exception("the resync of %s failed", served.namespace or "everything")
            self._stop.wait(wait)

    def resync(self) -> None:
        """List all objects, and enqueue each evolution that was not reconciled since the last time.

        Evolutions that the list shows to be new or changed are enqueued at once, the others with
        low priority.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        for served in self._served.values():
            self._resync(served)

    def _resync(self, served: ServedNamespace) -> None:
        previous = served.resync_started
        served.resync()
        keys = [*self._cache.evolution_keys(), *self._cache.orphan_keys()]
        for key in keys:
            if served.namespace not in (None, key[0]):
                continue
            reconciled = self._reconciled.get(key)
            if reconciled is None or reconciled < previous:
                self.queue.add_low_priority(key)
        for key in self._reconciled.keys() - set(keys):
            self._reconciled.pop(key, None)


def _age(times: Iterable[float | None]) -> float | None:
    """Return the seconds since the last of several times, or None if there is none."""
    last = max((at for at in times if at is not None), default=None)
    return None if last is None else time.monotonic() - last
