"""The operator as a process: election, start-up checks, kopf's watch of evolutions, an orderly end.

kopf feeds the queue and nothing else: `on.event` alone is level-based, needs no finalizer and
writes no annotation. What it may miss, the resync finds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, cast

import kopf

from selfemo_api.api_model import GROUP, VERSION
from selfemo_api.contract import ExitCode
from selfemo_operator.controller.cache import Cache, key_of, version_of
from selfemo_operator.controller.controller import Workers
from selfemo_operator.controller.crd_check import CrdMismatch, check_crd
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.leader_election import Elector
from selfemo_operator.controller.metrics.http_server import (
    HttpServer,
    metrics_handler,
    probe_handler,
)
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.objects.names import PLURAL
from selfemo_operator.controller.objects.settings import Settings

log = logging.getLogger(__name__)

#: Requests beside the workers': watches, resync, Lease.
SPARE_CONNECTIONS = 8
#: A resync this many periods late means that the operator is stuck.
LATE = 5.0


class Operator:
    """One operator process.

    Parameters
    ----------
    settings
        How it runs.
    rest
        The API server.
    """

    def __init__(self, settings: Settings, kube: KubeClient) -> None:
        self._settings = settings
        self._kube = kube
        self._cache = Cache()
        self._workers = Workers(kube, self._cache, settings)
        self._metrics = OperatorMetrics(
            self._cache,
            self._workers.resync_age,
            lambda: len(self._workers.queue),
            settings.resync_seconds,
        )
        self._workers.ended_pass = self._metrics.ended_pass
        kube.answered = self._metrics.answered
        self._ready = False
        self._leading = False
        self._probes = HttpServer(
            settings.health_port,
            {"/livez": probe_handler(self._stuck), "/readyz": probe_handler(self._not_ready)},
        )

    def run(self, stop: threading.Event) -> ExitCode:
        """Run until told to stop, or until the Lease is lost."""
        self._probes.start()
        pages = {"/metrics": metrics_handler(self._metrics.text)}
        server = HttpServer(self._settings.metrics_port, pages)
        server.start()
        try:
            if not self._checked(stop):
                return ExitCode.OK
            return self._elected(stop)
        except CrdMismatch as mismatch:
            log.critical("%s", mismatch)
            return ExitCode.BAD_INPUT
        finally:
            server.stop()
            self._probes.stop()

    def _checked(self, stop: threading.Event) -> bool:
        """Check the CRD, waiting for the API server; False where the stop came first."""
        while not stop.is_set():
            try:
                check_crd(self._kube)
            except ApiError as error:
                log.warning("the API server cannot be asked: %s", error)
                stop.wait(2.0)
                continue
            self._ready = True
            return True
        return False

    def _elected(self, stop: threading.Event) -> ExitCode:
        settings = self._settings
        if not settings.lease_namespace:
            self._lead(stop)
            return ExitCode.OK
        elector = Elector(
            self._kube, settings.lease_namespace, settings.lease_name, settings.identity
        )
        if not elector.acquire(stop):
            return ExitCode.OK
        lost = threading.Event()

        def keep() -> None:
            try:
                if elector.keep(stop):
                    return
            except Exception:  # whatever it is: who does not renew must not lead
                log.exception("the Lease is not kept any more")
            lost.set()
            stop.set()

        threading.Thread(target=keep, name="lease", daemon=True).start()
        self._lead(stop)
        if lost.is_set():
            return ExitCode.UNAVAILABLE  # start again, and wait for the next turn
        stop.set()
        elector.release()
        return ExitCode.OK

    def _lead(self, stop: threading.Event) -> None:
        self._leading = True
        self._metrics.leader.set(1)
        self._workers.start()
        try:
            asyncio.run(self._watch_evolutions(stop))
        finally:
            self._workers.stop()
            self._metrics.leader.set(0)
            self._leading = False

    async def _watch_evolutions(self, stop: threading.Event) -> None:
        namespaces = self._settings.namespaces
        flag = asyncio.Event()  # a threading.Event would hold a thread of the loop for ever
        passing_on = asyncio.create_task(_pass_on(stop, flag))
        await kopf.operator(
            registry=self._registry(),
            settings=kopf_settings(),
            standalone=True,  # the Lease elects
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=flag,
        )
        passing_on.cancel()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**arguments: Any) -> Any:
            return kopf.login_via_client(**arguments)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def seen(event: kopf.RawEvent, **_: Any) -> None:
            self._saw(dict(event["object"]), event["type"])

        return registry

    def _saw(self, item: dict[str, Any], kind: str | None) -> None:
        key = key_of(item)
        if kind == "DELETED":
            self._cache.drop_evolution(key, version_of(item))
            self._workers.queue.add(key)
        elif self._cache.put_evolution(item):
            self._workers.queue.add(key)

    def _stuck(self) -> str | None:
        """Return why the operator is not alive: its resync has stood still."""
        age = self._workers.resync_age()
        if not self._leading or age is None:
            return None
        longest = LATE * self._settings.resync_seconds
        return f"the last resync was {age:.0f} s ago" if age > longest else None

    def _not_ready(self) -> str | None:
        return None if self._ready else "waiting for the API server"


async def _pass_on(stop: threading.Event, flag: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.2)
    flag.set()


class _NoDiffs(kopf.AnnotationsDiffBaseStorage):
    """What kopf compares an object with: nothing is handled by difference, so nothing is copied."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return no essence of an object."""
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> None:
        """Return no earlier essence."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # no right on CRDs and namespaces is needed
    settings.watching.server_timeout = 240  # a silent stream is replaced within five minutes
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 65
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.finalizer = f"{GROUP}/unused"
    return settings
