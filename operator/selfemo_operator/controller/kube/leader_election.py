"""Leader election with a Lease, as client-go does it.

Of several operators one leads. An operator takes over another's Lease once the Lease has not
changed for its duration, measured with its own clock since it observed the last change. The clocks
of two machines are never compared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Seconds after which a Lease that is not renewed may be taken: client-go's default.
LEASE_DURATION = 15.0
#: Seconds between two renewals, and between two attempts to acquire.
RENEW_PERIOD = 3.0
#: A leader that could not renew for this many seconds stops, before another may start. In the worst
#: case one more wait (RETRY_PERIOD) and one more attempt (two requests) come on top.
RENEW_DEADLINE = 9.0
#: Seconds between two attempts to renew after a failure.
RETRY_PERIOD = 1.0
#: Seconds after which a request about the Lease is given up.
REQUEST_TIMEOUT = 2.0


class LeaderElector:
    """Acquires, renews and releases one Lease.

    Parameters
    ----------
    kube
        The client of the API server.
    namespace
        The namespace of the Lease.
    name
        The name of the Lease.
    identity
        The name under which this process holds the Lease.
    clock
        A function that returns monotonic seconds.
    duration
        The seconds after which a Lease that is not renewed may be taken. The other times are scaled
        with it, so that a leader always stops before another may start.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
        duration: float = LEASE_DURATION,
    ) -> None:
        scale = duration / LEASE_DURATION
        self._duration = duration
        self._renew_period = RENEW_PERIOD * scale
        self._renew_deadline = RENEW_DEADLINE * scale
        self._retry_period = RETRY_PERIOD * scale
        self._kube = kube.with_timeout(REQUEST_TIMEOUT * scale)
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._observed: tuple[str, float] | None = None
        """The version of another's Lease, and when it was first observed."""

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until this process holds the Lease; return False if it was stopped before."""
        while not stop.is_set():
            if self._try_logged():
                log.info("leading as %s", self._identity)
                return True
            stop.wait(self._renew_period)
        return False

    def renew(self, stop: threading.Event) -> bool:
        """Renew the Lease until stopped; return False as soon as it is lost."""
        renewed = self._clock()
        wait = self._renew_period
        while not stop.wait(wait):
            start = self._clock()  # others count from when they observe the renewal, which is later
            wait = self._retry_period
            if self._try_logged():
                renewed, wait = start, self._renew_period
            elif self._observed is not None or self._clock() - renewed > self._renew_deadline:
                log.error("the Lease %s/%s is lost", self._namespace, self._name)
                return False
        return True

    def release(self) -> None:
        """Release the Lease, so that the next leader need not wait."""
        try:
            lease = self._kube.get(names.lease_path(self._namespace, self._name))
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                self._kube.replace(names.lease_path(self._namespace, self._name), lease)
        except ApiError as error:
            log.warning("the Lease was not released: %s", error)

    def _try_logged(self) -> bool:
        try:
            return self.try_acquire_or_renew()
        except ApiError as error:
            log.warning("the Lease %s/%s: %s", self._namespace, self._name, error)
            return False

    def try_acquire_or_renew(self) -> bool:
        """Take or renew the Lease if possible; return whether this process holds it.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        path = names.lease_path(self._namespace, self._name)
        try:
            lease = self._kube.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return self._create()
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(lease):
            return False
        if holder != self._identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec["acquireTime"] = _now()
        spec.update(
            holderIdentity=self._identity,
            leaseDurationSeconds=int(self._duration),
            renewTime=_now(),
        )
        try:
            self._kube.replace(path, lease)
        except ApiError as error:
            if error.status == 409:
                return False  # another process was faster
            raise
        self._observed = None
        return True

    def _expired(self, lease: Json) -> bool:
        version = lease["metadata"]["resourceVersion"]
        now = self._clock()
        if self._observed is None or self._observed[0] != version:
            self._observed = (version, now)
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._duration)
        return now - self._observed[1] > duration

    def _create(self) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._duration),
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }
        try:
            self._kube.create(names.lease_path(self._namespace), lease)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
