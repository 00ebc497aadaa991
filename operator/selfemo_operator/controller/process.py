"""The operator's process: start-up checks, leader election, probes, metrics and shutdown."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.schema import rules
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.controller import Controller
from selfemo_operator.controller.crd_check import CrdMismatch, check_crd
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.leader_election import LeaderElector
from selfemo_operator.controller.metrics.authorization import Authorizer, authorized
from selfemo_operator.controller.metrics.http_server import (
    HttpServer,
    metrics_handler,
    probe_handler,
)
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.pod_defaults import InvalidDefaults, check_defaults

log = logging.getLogger(__name__)

#: Connections to the API server for each namespace, for the watches and the resync; and for the
#: Lease and the metrics. Each worker has one as well.
NAMESPACE_CONNECTIONS, OTHER_CONNECTIONS = 4, 4
#: Seconds after which the review of a scrape's token is given up.
REVIEW_SECONDS = 5.0
#: Seconds to wait at the end for a renewal of the Lease that is running.
RENEWAL_STOP_SECONDS = 5.0
#: Periods without a resync after which the operator counts as stuck.
STUCK_PERIODS = 5.0
#: Seconds between two of these checks while the API server cannot be reached.
CHECK_RETRY_SECONDS = 2.0


def connections(settings: Settings) -> int:
    """Return the number of requests to the API server that may run at the same time."""
    namespaces = max(1, len(settings.namespaces))
    return settings.concurrency + NAMESPACE_CONNECTIONS * namespaces + OTHER_CONNECTIONS


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
            lambda: self._controller.problems() if self._leading else {},
            self._controller.rejected_statuses,
            settings.lease_namespace or "",
        )
        self._controller.on_reconciled = self._metrics.on_reconciled
        kube.on_response = self._metrics.on_response
        self._ready = False
        self._leading = False
        self._probes = HttpServer(
            settings.health_port,
            {
                "/livez": probe_handler(self._liveness_problem),
                "/readyz": probe_handler(self._readiness_problem, self._unwatched),
            },
        )

    def run(self, stop: threading.Event) -> ExitCode:
        """Run until stopped, or until the Lease is lost; return the exit code."""
        self._probes.start()
        server = self._metrics_server()
        server.start()
        try:
            if not self._wait_for_checks(stop):
                return ExitCode.OK
            return self._run_elected(stop)
        except (CrdMismatch, InvalidDefaults) as error:
            log.critical("%s", error)
            return ExitCode.BAD_INPUT
        finally:
            server.stop()
            self._probes.stop()

    def _metrics_server(self) -> HttpServer:
        settings = self._settings
        handler = metrics_handler(self._metrics.parts)
        if settings.metrics_authorization:
            kube = self._kube.with_timeout(REVIEW_SECONDS)
            handler = authorized(handler, Authorizer(kube, "/metrics"))
        tls = Path(settings.metrics_tls_folder) if settings.metrics_tls_folder else None
        return HttpServer(settings.metrics_port, {"/metrics": handler}, tls)

    def _wait_for_checks(self, stop: threading.Event) -> bool:
        """Check CRD and defaults once the API server can be reached; return False if stopped."""
        rules.prepare()
        while not stop.is_set():
            try:
                check_crd(self._kube)
                check_defaults(self._kube, self._settings)
            except ApiError as error:
                log.warning("the API server cannot be reached: %s", error)
                stop.wait(CHECK_RETRY_SECONDS)
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
            self._kube,
            settings.lease_namespace,
            settings.lease_name,
            settings.identity,
            duration=settings.lease_duration_seconds,
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

        renewal = threading.Thread(target=renew, name="lease", daemon=True)
        renewal.start()
        try:
            self._lead(stop)
        finally:
            stop.set()
            if not lost.is_set():
                renewal.join(RENEWAL_STOP_SECONDS)  # it must not take the Lease again
                elector.release()
        # after a loss, the container restarts and waits for the Lease
        return ExitCode.UNAVAILABLE if lost.is_set() else ExitCode.OK

    def _lead(self, stop: threading.Event) -> None:
        self._leading = True
        self._metrics.leader.set(1)
        try:
            self._controller.start()
            stop.wait()
        finally:
            self._controller.stop()
            self._metrics.leader.set(0)
            self._leading = False

    def _liveness_problem(self) -> str | None:
        """Return why the operator is stuck (no answer to a resync for too long), or None."""
        age = self._controller.answer_age()
        if not self._leading or age is None:
            return None
        longest = STUCK_PERIODS * self._settings.resync_seconds
        return f"the last resync was {age:.0f} s ago" if age > longest else None

    def _readiness_problem(self) -> str | None:
        """Return why no namespace is served, or None."""
        if not self._ready:
            return "waiting for the API server"
        unwatched = self._unwatched()
        if unwatched and len(unwatched) == len(self._controller.problems()):
            return "no namespace is watched"
        return None

    def _unwatched(self) -> dict[str, str]:
        """Return why namespaces are not watched, by namespace. A standby watches nothing."""
        if not self._leading:
            return {}
        return {name: text for name, text in self._controller.problems().items() if text}
