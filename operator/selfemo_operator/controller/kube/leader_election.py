"""Leader election by a Lease, as client-go does it.

Of two operators one works. Another's Lease is taken over once it has not been renewed for its
duration *by this machine's own clock since it last changed*: clocks of two machines are never
compared.
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

#: client-go's usual figures: a dead leader is replaced within a quarter of a minute.
DURATION = 15.0
RENEW_EVERY = 3.0
#: A leader that could not renew for this long stops, before another may start: at the worst one
#: more wait (RETRY) and one more try (two requests) come on top.
GIVE_UP = 9.0
RETRY = 1.0
#: A request about the Lease that is not answered by then is given up.
REQUEST = 2.0


class Elector:
    """Takes, renews and gives back one Lease.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube.within(REQUEST)
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seen: tuple[str, float] | None = None
        """Version of another's Lease, and when it was first seen."""

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until the Lease is ours; False where the stop came first."""
        while not stop.is_set():
            if self._tried():
                log.info("leading as %s", self._identity)
                return True
            stop.wait(RENEW_EVERY)
        return False

    def keep(self, stop: threading.Event) -> bool:
        """Renew until stopped; False as soon as the Lease is lost."""
        renewed = self._clock()
        wait = RENEW_EVERY
        while not stop.wait(wait):
            began = self._clock()  # the others count from when they see it, which is no earlier
            wait = RETRY
            if self._tried():
                renewed, wait = began, RENEW_EVERY
            elif self._seen is not None or self._clock() - renewed > GIVE_UP:
                log.error("the Lease %s/%s is lost", self._namespace, self._name)
                return False
        return True

    def release(self) -> None:
        """Give the Lease back, so that the next leader need not wait."""
        try:
            lease = self._kube.get(names.lease_path(self._namespace, self._name))
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                self._kube.replace(names.lease_path(self._namespace, self._name), lease)
        except ApiError as error:
            log.warning("the Lease was not given back: %s", error)

    def _tried(self) -> bool:
        try:
            return self.try_once()
        except ApiError as error:
            log.warning("the Lease %s/%s: %s", self._namespace, self._name, error)
            return False

    def try_once(self) -> bool:
        """Take or renew the Lease if it may be; return whether it is ours. Raises ApiError."""
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
            holderIdentity=self._identity, leaseDurationSeconds=int(DURATION), renewTime=_now()
        )
        try:
            self._kube.replace(path, lease)
        except ApiError as error:
            if error.status == 409:
                return False  # somebody was quicker
            raise
        self._seen = None
        return True

    def _expired(self, lease: Json) -> bool:
        version = lease["metadata"]["resourceVersion"]
        now = self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        duration = float(lease["spec"].get("leaseDurationSeconds") or DURATION)
        return now - self._seen[1] > duration

    def _create(self) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
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
