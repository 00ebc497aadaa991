"""The state of a local cluster: its folder, and `cluster.json` in it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import settings
from tests.support.cluster.certificates import Authority
from tests.support.cluster.locks import replace_text
from tests.support.cluster.processes import Processes

_PORTS = range(20000, 30000)  # below the ports of outgoing connections
_RESERVED: list[int] = []  # files that stay open: their locks end with the process
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
    """The S3 server of the cluster, for pods and for this machine."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str


@dataclass
class State:
    """The folder of a cluster, with its recorded state.

    Attributes
    ----------
    folder
        The folder of the cluster's state.
    nodes
        Whether the cluster has a node.
    kept
        Whether the cluster keeps running when the last test run that uses it ends.
    ports
        The port of each use, chosen once.
    s3
        The S3 server. Only a cluster with a node has one.
    undo
        The previous kernel settings.
    """

    folder: Path
    nodes: bool = False
    kept: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    s3: S3 | None = None
    undo: dict[str, str] = field(default_factory=dict)

    @property
    def lock(self) -> Path:
        """The lock that is held while the cluster is changed."""
        return self.folder / ".lock"

    @property
    def users(self) -> Path:
        """The shared lock that each test run holds while it uses the cluster."""
        return self.folder / ".users"

    @property
    def record(self) -> Path:
        """The file with the recorded state, which other programs may read."""
        return self.folder / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The audit log, with one JSON line for each request."""
        return self.folder / "logs" / "audit.jsonl"

    @property
    def data(self) -> Path:
        """The folder that is removed with the cluster."""
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
        """Choose free ports; a cluster keeps the ports that it has."""
        missing = [use for use in _USES if use not in self.ports]
        candidates = random.sample(_PORTS, 500)
        for use in missing:
            while not (_free(port := candidates.pop()) and reserve(port)):
                pass
            self.ports[use] = port

    def save(self) -> None:
        """Write the recorded state."""
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
    """Return the recorded state of a folder, or None without a cluster."""
    state = State(folder.resolve())
    try:
        record: dict[str, Any] = json.loads(state.record.read_text())
    except FileNotFoundError:
        return None
    state.nodes, state.ports, state.undo = record["nodes"], record["ports"], record["undo"]
    state.kept = record.get("kept", True)
    if s3 := record["s3"]:
        state.s3 = S3(s3["endpoint"], s3["bucket"], s3["accessKey"], s3["secretKey"])
    return state


def reserve(port: int) -> bool:
    """Keep other test processes on this machine from choosing a port, until this process ends.

    Clusters that start at the same time choose their ports before their programs listen on them.
    """
    folder = Path(tempfile.gettempdir()) / "selfemo-test-ports"
    folder.mkdir(exist_ok=True)
    file = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _RESERVED.append(file)
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((settings.LOOPBACK, port))
        except OSError:
            return False
    return True
