"""What a run costs: requests by the API server's audit log, processor time, and memory."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks.job_chains import GENERATIONS
from tests.support.cluster import Cluster
from tests.support.cluster.state import load

#: The user of the measured controller, by which the audit log distinguishes its requests.
USER = "measured-controller"
_COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
_WRITES = ("create", "update", "patch", "delete")
Json = dict[str, Any]


def kubeconfig_of_measured(cluster: Cluster, folder: Path) -> Path:
    """Write a kubeconfig with which the requests of a controller can be counted."""
    state = load(cluster.folder)
    assert state is not None
    path = folder / "measured.kubeconfig"
    return state.authority.kubeconfig(path, state.server, USER, "system:masters")


def process_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mebibytes(pid: int, *, peak: bool = True) -> float:
    """Return the peak of a process's memory, or its memory now."""
    name = "VmHWM" if peak else "VmRSS"
    text = Path(f"/proc/{pid}/status").read_text()
    kibibytes = next(line for line in text.splitlines() if line.startswith(name))
    return int(kibibytes.split()[1]) / 1024


def control_plane_seconds(cluster: Cluster) -> Counter[str]:
    """Return the processor time of each component of the control plane since its start."""
    state = load(cluster.folder)
    assert state is not None
    pids = {name: state.processes.pid(name) for name in _COMPONENTS}
    return Counter({name: process_seconds(pid) for name, pid in pids.items() if pid})


class AuditLog:
    """The requests since a moment.

    Parameters
    ----------
    cluster
        The cluster, which has an audit log.
    """

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.audit_log is not None
        self._path = cluster.audit_log
        self._start = self._path.stat().st_size

    def requests(self) -> list[Json]:
        """Return the entries of the measured controller's requests."""
        with self._path.open() as log:
            log.seek(self._start)
            entries = [json.loads(line) for line in log if USER in line]
        return [
            entry
            for entry in entries
            if entry["user"].get("username") == USER and entry["stage"] == "ResponseComplete"
        ]


def by_kind(entries: list[Json]) -> Counter[str]:
    """Return the number of requests by verb and resource.

    Lists of pods are those of one Job, and those of pods that are alive.
    """
    counts: Counter[str] = Counter()
    for entry in entries:
        reference = entry.get("objectRef", {})
        resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
        kind = f"{entry['verb']} {resource or entry['requestURI'].partition('?')[0]}"
        if kind == "list pods":
            kind += " alive" if "phase!=Succeeded" in unquote(entry["requestURI"]) else " of a Job"
        counts[kind] += 1
    return counts


def writes_by_generation(entries: list[Json]) -> float:
    """Return the write requests for a generation.

    Requests count from the creation of generation 1's first Job to the end of the evolution. Those
    of generation 0 are left out.
    """
    counts: dict[str, int] = {}
    for entry in entries:
        if entry["verb"] not in _WRITES:
            continue
        name = entry.get("objectRef", {}).get("name", "")
        owner = name[:4]
        if owner in counts or name.endswith("-g001-selfplay-1"):
            counts[owner] = counts.get(owner, 0) + 1
    return sum(counts.values()) / max(1, len(counts)) / GENERATIONS
