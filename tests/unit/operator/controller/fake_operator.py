"""An operator over the fake API server: its picture may lag, it may die, and is started again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any
from unittest.mock import patch

from tests.unit.operator.controller.fake_api import (
    KEY,
    NAMESPACE,
    Client,
    Ending,
    Server,
    text_of,
)

from selfemo_operator.controller import reconciler
from selfemo_operator.controller.cache import Cache, object_key, object_version
from selfemo_operator.controller.job_watch import list_objects
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.reconciler import Conflict, Reconciler

Json = dict[str, Any]
SETTINGS = Settings(jobs=JobSettings(image="selfemo/jobs:test"), identity="operator-0")


class Died(BaseException):
    """The process is gone at once."""


class FakeOperator:
    """One life of an operator.

    Parameters
    ----------
    fault
        Called before and after each request.
    watches_pods
        Whether it hears of pods that ended; whether it does makes no difference to the end.
    """

    def __init__(
        self,
        server: Server,
        fault: Callable[[str, int], None] | None = None,
        settings: Settings = SETTINGS,
        *,
        watches_pods: bool = True,
    ) -> None:
        self.server = server
        self.watches_pods = watches_pods
        self.kube = Client(server)
        if fault is not None:
            self.kube.fault = fault
        self.cache = Cache()
        self.reconciler = Reconciler(self.kube, self.cache, settings)
        self.requeue: datetime | None = None
        self._heard = 0
        self.resync()

    def resync(self) -> None:
        """List everything, as the real one does when it starts and each minute."""
        quiet = Client(self.server)
        path = names.evolutions_path(NAMESPACE)
        there, version = list_objects(self.cache.store_evolution, quiet, path, {})
        self.cache.prune_evolutions(there, int(version), NAMESPACE)
        query = {"labelSelector": names.JOB_SELECTOR}
        there, version = list_objects(
            self.cache.store_job, quiet, names.jobs_path(NAMESPACE), query
        )
        self.cache.prune_jobs(there, int(version), NAMESPACE)
        self._heard = len(self.server.log)

    def hear(self, number: int | None = None) -> None:
        """Take in events of the watches; all of them unless told how many."""
        end = len(self.server.log) if number is None else self._heard + number
        for kind, seen in self.server.log[self._heard : end]:
            item = copy.deepcopy(seen)
            if item.get("kind") == "EmotionEvolution":
                if kind == "DELETED":
                    self.cache.remove_evolution(object_key(item), object_version(item))
                else:
                    self.cache.store_evolution(item)
            elif item.get("kind") == "Job":
                (self.cache.remove_job if kind == "DELETED" else self.cache.store_job)(item)
            elif self.watches_pods and item.get("status", {}).get("phase") == "Succeeded":
                (self.cache.remove_pod if kind == "DELETED" else self.cache.store_pod)(item)
        self._heard = min(end, len(self.server.log))

    def look(self) -> None:
        """Do one pass; what goes wrong is tried again with the next, as the work queue does."""
        with at_time(self.server):
            try:
                self.requeue = self.reconciler.reconcile(KEY)
            except (Conflict, ApiError):
                self.requeue = self.server.now


def go_on(operator: FakeOperator, steps: int) -> None:
    """Do some passes, and after each let the cluster work and the operator hear of it."""
    for _ in range(steps):
        operator.look()
        operator.server.carry_on()
        operator.hear()


def at_time(server: Server) -> Any:
    """Let the reconciler see the server's clock."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return server.now

    return patch.object(reconciler, "datetime", Clock)


def settle(
    server: Server,
    start: Callable[[], FakeOperator] | None = None,
    ending: Callable[[str], Ending] = lambda _: 0,
    limit: int = 400,
) -> FakeOperator:
    """Go on, with a new operator for each that dies, until all is at rest; return the last."""
    begin = start or (lambda: FakeOperator(server))
    operator = begin()
    for _ in range(limit):
        before = server.version
        try:
            operator.look()
        except Died:
            operator = begin()
            continue
        operator.hear()
        moved = server.carry_on(ending)
        operator.hear()
        if moved or server.version != before:
            continue
        if operator.requeue is None:
            return operator
        server.now = max(server.now, operator.requeue)
    raise AssertionError(f"not at rest: {server.status}")


def picture(server: Server) -> Json:
    """Return the end state without times and ids."""
    status = server.status
    return {
        "phase": status["phase"],
        "best": status["best"]["generation"],
        "at": (status["generation"], status["stage"]),
        "history": [(g["generation"], g["outcome"], g["f1"]) for g in status["history"]],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "jobs": sorted(job["metadata"]["name"] for job in server.jobs()),
        "made": sorted((g, s) for _, g, s in server.manifests),
    }


__all__ = ["Died", "FakeOperator", "at_time", "go_on", "picture", "settle", "text_of"]
