"""What the operator does for one namespace that it serves: the watches, and the resync."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.watches.evolution_watch import EvolutionWatch
from selfemo_operator.controller.watches.job_watch import JobWatch
from selfemo_operator.controller.watches.pod_watch import PodWatch

log = logging.getLogger(__name__)

#: The longest wait in seconds after a resync that failed.
RESYNC_RETRY_SECONDS = 5.0


class ServedNamespace:
    """The watches and the resync of one namespace, or of all. Each has a thread of its own.

    So a namespace in which the operator has no rights, or whose lists take long, delays no other.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the watches fill.
    namespace
        The namespace. None: all namespaces.
    enqueue
        A function that is called with the key of each evolution that must be reconciled.
    """

    def __init__(
        self, kube: KubeClient, cache: Cache, namespace: str | None, enqueue: Callable[[Key], None]
    ) -> None:
        self.namespace = namespace
        self._enqueue = enqueue
        self.evolutions = EvolutionWatch(kube, cache, namespace, enqueue)
        self.jobs = JobWatch(kube, cache, namespace, enqueue)
        self.pods = PodWatch(kube, cache, namespace)
        self.jobs.on_synced = self._release
        self._lock = threading.Lock()
        self._held: set[Key] = set()
        self._resync_problem = ""
        self.resync_started = float("-inf")
        """The start of the last resync that began (monotonic)."""
        self.last_resync: float | None = None
        """The end of the last resync (monotonic), or None before the first."""
        self.last_answer: float | None = None
        """The end of the last resync that the API server completed or refused (monotonic)."""

    @property
    def problem(self) -> str:
        """Why the namespace is not watched; empty while it is."""
        watches = (self.evolutions, self.jobs, self.pods)
        return next((w.problem for w in watches if w.problem), self._resync_problem)

    def stop(self) -> None:
        """Let the watches return."""
        for watch in (self.evolutions, self.jobs, self.pods):
            watch.stop()

    def reset(self) -> None:
        """Start all watches again with a list."""
        for watch in (self.evolutions, self.jobs, self.pods):
            watch.reset()

    def hold(self, key: Key) -> bool:
        """Keep an evolution back until its Jobs have been listed; return whether it is kept back.

        A reconcile without the Jobs would create those that exist already.
        """
        if self.jobs.synced.is_set():
            return False
        with self._lock:
            self._held.add(key)
        if self.jobs.synced.is_set():  # just now
            self._release()
        return True

    def resync(self) -> None:
        """List all evolutions and Jobs.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        self.resync_started = time.monotonic()
        try:
            self.evolutions.relist()
            self.jobs.resync()
        except ApiError as error:
            self._resync_problem = f"resync: {error}"
            if error.status:
                self.last_answer = time.monotonic()
            raise
        self._resync_problem = ""
        self.last_resync = self.last_answer = time.monotonic()

    def _release(self) -> None:
        with self._lock:
            held, self._held = self._held, set()
        for key in held:
            self._enqueue(key)
