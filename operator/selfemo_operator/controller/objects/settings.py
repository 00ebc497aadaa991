"""What the operator is told when it is started; each default with its reason."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobSettings:
    """What stage Jobs take from the installation rather than from an evolution."""

    image: str
    """The jobs image; `spec.podTemplate` may name another."""
    pull_policy: str = "IfNotPresent"
    """The image is large, and its tags do not move."""
    service_account: str = ""
    """Account of stage pods, which need no rights. Empty: the namespace's default."""
    ttl_seconds: int = 86_400
    """Finished Jobs go after a day: their results are in the status long before, and their logs
    are worth a look the next morning."""
    metrics_port: int = 0
    """Where stage pods show their progress while they run. 0: nowhere, since only a Prometheus
    with a PodMonitor asks."""
    host_access: bool = False
    """Whether `spec.podTemplate` may use the node's files or run with privilege."""


@dataclass(frozen=True)
class Settings:
    """How the operator runs."""

    jobs: JobSettings
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve. Empty: all."""
    lease_namespace: str = ""
    """Where the Lease lies. Empty: no election, for a single operator started by hand."""
    lease_name: str = "selfemo-operator"
    identity: str = field(default_factory=lambda: os.environ.get("POD_NAME") or _by_hand())
    """Who holds the Lease; the pod's name, which no two pods share."""
    health_port: int = 8081
    metrics_port: int = 8080
    resync_seconds: float = 60.0
    """How long a lost event can go unseen; a list of 500 evolutions a minute is cheap."""
    concurrency: int = 32
    """Evolutions reconciled at once. A pass waits for the API server most of its time: with eight,
    500 evolutions begun at once waited three times as long; with more than 32 no less."""


def _by_hand() -> str:
    """Return a name of this process alone: two may be started by hand on one machine."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
