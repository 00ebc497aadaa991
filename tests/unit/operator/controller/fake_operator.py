"""An operator with the fake API server; its cache may be stale, and it may be killed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any
from unittest.mock import patch

from tests.unit.operator.controller.fake_api import (
    KEY,
    NAMESPACE,
    Ending,
    FakeApiServer,
    FakeClient,
    format_time,
)

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_cache import object_key
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.reconcile import reconciler
from selfemo_operator.controller.reconcile.creation_errors import RejectedJob
from selfemo_operator.controller.reconcile.reconciler import Reconciler
from selfemo_operator.controller.reconcile.status_writer import Conflict
from selfemo_operator.controller.watches.evolution_watch import EvolutionWatch
from selfemo_operator.controller.watches.job_watch import JobWatch

Json = dict[str, Any]
_ENDED_PHASES = ("Succeeded", "Failed")
SETTINGS = Settings(jobs=JobSettings(image="selfemo/jobs:test"), identity="operator-0")


class ProcessKilled(BaseException):
    """The process was killed."""


class FakeOperator:
    """One operator process.

    Parameters
    ----------
    server
        The fake API server.
    fault
        A function that is called before and after each request.
    settings
        The settings of the operator.
    watches_pods
        Whether the operator receives the events of succeeded pods. The end state must not depend on
        it.
    """

    def __init__(
        self,
        server: FakeApiServer,
        fault: Callable[[str, int], None] | None = None,
        settings: Settings = SETTINGS,
        *,
        watches_pods: bool = True,
    ) -> None:
        self.server = server
        self.watches_pods = watches_pods
        self.kube = FakeClient(server)
        if fault is not None:
            self.kube.fault = fault
        self.cache = Cache()
        self.reconciler = Reconciler(self.kube, self.cache, settings)
        self.requeue: datetime | None = None
        self._received = 0
        self.resync()

    def resync(self) -> None:
        """List all objects, as the controller does at its start and once a minute."""
        client = FakeClient(self.server)
        for watch in (EvolutionWatch, JobWatch):
            watch(client, self.cache, NAMESPACE, lambda _: None).relist()
        self._received = len(self.server.log)

    def receive_events(self, number: int | None = None) -> None:
        """Process the pending watch events; all of them, or a number of them."""
        end = len(self.server.log) if number is None else self._received + number
        for kind, logged in self.server.log[self._received : end]:
            item = copy.deepcopy(logged)
            if item.get("kind") == "EmotionEvolution":
                metadata = item["metadata"]
                if kind == "DELETED":
                    self.cache.delete_evolution({"metadata": metadata})
                else:
                    version = int(metadata["resourceVersion"])
                    self.cache.announce_evolution(object_key(item), version, metadata["uid"])
            elif item.get("kind") == "Job":
                (self.cache.remove_job if kind == "DELETED" else self.cache.store_job)(item)
            elif self.watches_pods and item.get("status", {}).get("phase") in _ENDED_PHASES:
                (self.cache.remove_pod if kind == "DELETED" else self.cache.store_pod)(item)
        self._received = min(end, len(self.server.log))

    def reconcile(self) -> None:
        """Reconcile once. After an error the evolution is requeued, as the work queue does."""
        with server_time(self.server):
            try:
                self.requeue = self.reconciler.reconcile(KEY)
            except (Conflict, RejectedJob, ApiError):
                self.requeue = self.server.now


def reconcile_times(operator: FakeOperator, steps: int) -> None:
    """Reconcile several times; after each, advance the Jobs and process the events."""
    for _ in range(steps):
        operator.reconcile()
        operator.server.advance_jobs()
        operator.receive_events()


def server_time(server: FakeApiServer) -> Any:
    """Let the reconciler use the server's clock."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return server.now

    return patch.object(reconciler, "datetime", Clock)


def run_until_idle(
    server: FakeApiServer,
    start: Callable[[], FakeOperator] | None = None,
    ending: Callable[[str], Ending] = lambda _: 0,
    limit: int = 400,
) -> FakeOperator:
    """Reconcile until nothing changes, with a new operator for each killed one; return the last."""
    start_operator = start or (lambda: FakeOperator(server))
    operator = start_operator()
    for _ in range(limit):
        before = server.version
        try:
            operator.reconcile()
        except ProcessKilled:
            operator = start_operator()
            continue
        operator.receive_events()
        advanced = server.advance_jobs(ending)
        operator.receive_events()
        if advanced or server.version != before:
            continue
        if operator.requeue is None:
            return operator
        server.now = max(server.now, operator.requeue)
    raise AssertionError(f"not idle after {limit} reconciles: {server.status}")


def end_state(server: FakeApiServer) -> Json:
    """Return the final state of the evolution, without times and ids."""
    status = server.status
    return {
        "phase": status["phase"],
        "best": status["best"]["generation"],
        "position": (status["generation"], status["stage"]),
        "history": [(g["generation"], g["outcome"], g["f1"]) for g in status["history"]],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "jobs": sorted(job["metadata"]["name"] for job in server.jobs()),
        "manifests": sorted((g, s) for _, g, s in server.manifests),
    }


__all__ = [
    "FakeOperator",
    "ProcessKilled",
    "end_state",
    "format_time",
    "reconcile_times",
    "run_until_idle",
    "server_time",
]
