"""The operator's process: start-up checks, leader election, kopf's watch of evolutions, shutdown.

kopf only feeds the work queue: its `on.event` handler is level-based, needs no finalizer and writes
no annotation. The resync finds events that kopf may miss.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, cast

import kopf

from selfemo_api.api_model import GROUP, VERSION
from selfemo_api.contract import ExitCode
from selfemo_operator.controller.cache import Cache, object_key, object_version
from selfemo_operator.controller.controller import Controller
from selfemo_operator.controller.crd_check import CrdMismatch, check_crd
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.leader_election import LeaderElector
from selfemo_operator.controller.metrics.http_server import (
    HttpServer,
    metrics_handler,
    probe_handler,
)
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.objects.names import PLURAL
from selfemo_operator.controller.objects.settings import Settings

log = logging.getLogger(__name__)

#: Connections to the API server beyond one for each worker: for watches, the resync and the Lease.
EXTRA_CONNECTIONS = 8
#: Periods without a resync after which the operator counts as stuck.
STUCK_PERIODS = 5.0
#: Seconds between two checks of the CRD while the API server cannot be reached.
CRD_RETRY_SECONDS = 2.0


class Operator:
    """One operator process.

    Parameters
    ----------
    settings
        The settings of the operator.
    kube
        The client of the API server.
    """

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        self._settings = settings
        self._kube = kube
        self._cache = Cache()
        self._controller = Controller(kube, self._cache, settings)
        self._metrics = OperatorMetrics(
            self._cache,
            self._controller.resync_age,
            lambda: len(self._controller.queue),
            settings.resync_seconds,
        )
        self._controller.on_reconciled = self._metrics.on_reconciled
        kube.on_response = self._metrics.on_response
        self._ready = False
        self._leading = False
        self._probes = HttpServer(
            settings.health_port,
            {
                "/livez": probe_handler(self._liveness_problem),
                "/readyz": probe_handler(self._readiness_problem),
            },
        )

    def run(self, stop: threading.Event) -> ExitCode:
        """Run until stopped, or until the Lease is lost; return the exit code."""
        self._probes.start()
        handlers = {"/metrics": metrics_handler(self._metrics.text)}
        server = HttpServer(self._settings.metrics_port, handlers)
        server.start()
        try:
            if not self._wait_for_crd(stop):
                return ExitCode.OK
            return self._run_elected(stop)
        except CrdMismatch as mismatch:
            log.critical("%s", mismatch)
            return ExitCode.BAD_INPUT
        finally:
            server.stop()
            self._probes.stop()

    def _wait_for_crd(self, stop: threading.Event) -> bool:
        """Check the CRD once the API server can be reached; return False if stopped before."""
        while not stop.is_set():
            try:
                check_crd(self._kube)
            except ApiError as error:
                log.warning("the API server cannot be reached: %s", error)
                stop.wait(CRD_RETRY_SECONDS)
                continue
            self._ready = True
            return True
        return False

    def _run_elected(self, stop: threading.Event) -> ExitCode:
        """Run the controller while this process holds the Lease."""
        settings = self._settings
        if not settings.lease_namespace:
            self._lead(stop)
            return ExitCode.OK
        elector = LeaderElector(
            self._kube, settings.lease_namespace, settings.lease_name, settings.identity
        )
        if not elector.acquire(stop):
            return ExitCode.OK
        lost = threading.Event()

        def renew() -> None:
            try:
                if elector.renew(stop):
                    return
            except Exception:  # an operator that does not renew its Lease must not lead
                log.exception("the Lease is no longer renewed")
            lost.set()
            stop.set()

        threading.Thread(target=renew, name="lease", daemon=True).start()
        self._lead(stop)
        if lost.is_set():
            return ExitCode.UNAVAILABLE  # the container restarts, and waits for the Lease
        stop.set()
        elector.release()
        return ExitCode.OK

    def _lead(self, stop: threading.Event) -> None:
        self._leading = True
        self._metrics.leader.set(1)
        self._controller.start()
        try:
            asyncio.run(self._watch_evolutions(stop))
        finally:
            self._controller.stop()
            self._metrics.leader.set(0)
            self._leading = False

    async def _watch_evolutions(self, stop: threading.Event) -> None:
        namespaces = self._settings.namespaces
        flag = asyncio.Event()  # a threading.Event would block a thread of the event loop
        forwarding = asyncio.create_task(_forward_stop(stop, flag))
        await kopf.operator(
            registry=self._registry(),
            settings=kopf_settings(),
            standalone=True,  # leader election uses the Lease instead of kopf's peering
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=flag,
        )
        forwarding.cancel()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**arguments: Any) -> Any:
            return kopf.login_via_client(**arguments)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            self._on_event(dict(event["object"]), event["type"])

        return registry

    def _on_event(self, item: dict[str, Any], kind: str | None) -> None:
        """Store an evolution in the cache, or remove it; enqueue it if it has changed."""
        key = object_key(item)
        if kind == "DELETED":
            self._cache.remove_evolution(key, object_version(item))
            self._controller.queue.add(key)
        elif self._cache.store_evolution(item):
            self._controller.queue.add(key)

    def _liveness_problem(self) -> str | None:
        """Return why the operator is stuck (no resync for too long), or None."""
        age = self._controller.resync_age()
        if not self._leading or age is None:
            return None
        longest = STUCK_PERIODS * self._settings.resync_seconds
        return f"the last resync was {age:.0f} s ago" if age > longest else None

    def _readiness_problem(self) -> str | None:
        return None if self._ready else "waiting for the API server"


async def _forward_stop(stop: threading.Event, flag: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.2)
    flag.set()


class _NoDiffStorage(kopf.AnnotationsDiffBaseStorage):
    """Stores no earlier state of an object: no handler compares states, so nothing is copied."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence for every object."""
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        """Return no earlier essence."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches evolutions, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # so it needs no right on CRDs and namespaces
    settings.watching.server_timeout = 240  # a silent stream is replaced within five minutes
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 65
    settings.persistence.diffbase_storage = _NoDiffStorage()
    settings.persistence.finalizer = f"{GROUP}/unused"
    return settings
