"""What is kept about a local cluster: its folder, and `cluster.json` in it."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import settings
from tests.support.cluster.certificates import Authority
from tests.support.cluster.locks import replace_text
from tests.support.cluster.processes import Processes

_PORTS = range(20000, 30000)  # below those the kernel gives to outgoing connections
_USES = (
    "etcd",
    "etcd-peer",
    "apiserver",
    "controller-manager",
    "scheduler",
    "kubelet",
    "kubelet-health",
    "proxy-health",
    "proxy-metrics",
    "dns",
    "dns-health",
    "s3",
    "s3-other",
    "kwok",
)


@dataclass(frozen=True)
class S3:
    """The cluster's S3 server, as its pods and this machine reach it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


@dataclass
class State:
    """A cluster's folder and what is recorded there.

    Attributes
    ----------
    nodes
        Whether it has a node, or the control plane only.
    ports
        The port of each use, chosen once.
    s3
        Its S3 server; only with a node.
    kept
        Whether it stays up when the last test run that uses it ends.
    undo
        The kernel's settings as they were.
    """

    folder: Path
    nodes: bool = False
    kept: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    s3: S3 | None = None
    undo: dict[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        """Held while the cluster is changed."""
        return self.folder / ".lock"

    @property
    def users(self) -> Path:
        """Held, together with others, by each test run that uses the cluster."""
        return self.folder / ".users"

    @property
    def record(self) -> Path:
        """The file that says what is there; other programs may read it."""
        return self.folder / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON line for each answered request."""
        return self.folder / "logs" / "audit.jsonl"

    @property
    def data(self) -> Path:
        """What ends with the cluster."""
        return self.folder / "data"

    @property
    def authority(self) -> Authority:
        """The cluster's certificates."""
        return Authority(self.data / "pki")

    @property
    def processes(self) -> Processes:
        """The cluster's processes."""
        return Processes(self.folder)

    @property
    def host(self) -> str:
        """The address that its servers listen on."""
        return settings.HOST if self.nodes else settings.LOOPBACK

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.host}:{self.ports['apiserver']}"

    def choose_ports(self) -> None:
        """Choose what is free now; a cluster that has its ports keeps them."""
        missing = [use for use in _USES if use not in self.ports]
        candidates = random.sample(_PORTS, 500)
        for use in missing:
            while not _free(port := candidates.pop()):
                pass
            self.ports[use] = port

    def save(self) -> None:
        """Write the record."""
        s3 = self.s3 and {
            "endpoint": self.s3.endpoint,
            "bucket": self.s3.bucket,
            "accessKey": self.s3.access_key,
            "secretKey": self.s3.secret_key,
        }
        record = {
            "kind": "local",
            "nodes": self.nodes,
            "kept": self.kept,
            "kubeconfig": str(self.kubeconfig),
            "server": self.server,
            "auditLog": str(self.audit_log),
            "s3": s3,
            "ports": self.ports,
            "undo": self.undo,
        }
        replace_text(self.record, json.dumps(record, indent=1), 0o600)


def load(folder: Path) -> State | None:
    """Return what is recorded in a folder, or None where there is no cluster."""
    state = State(folder.resolve())
    try:
        found: dict[str, Any] = json.loads(state.record.read_text())
    except FileNotFoundError:
        return None
    state.nodes, state.ports, state.undo = found["nodes"], found["ports"], found["undo"]
    state.kept = found.get("kept", True)
    if s3 := found["s3"]:
        state.s3 = S3(s3["endpoint"], s3["bucket"], s3["accessKey"], s3["secretKey"])
    return state


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((settings.LOOPBACK, port))
        except OSError:
            return False
    return True
