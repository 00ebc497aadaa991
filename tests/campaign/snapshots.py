"""A snapshot of etcd's data, and its restore: the cluster goes back in time."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.cluster import Cluster, ensure
from tests.support.cluster.state import State, load

_ALL = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")


def take(cluster: Cluster, to: Path) -> None:
    """Copy etcd's data; the control plane is away for a moment."""
    state = _state(cluster)
    state.processes.kill(["etcd"])
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(state.data / "etcd", to)
    _start(cluster)


def restore(cluster: Cluster, source: Path) -> None:
    """Put a copy of etcd's data in the place of the present data, and start the control plane."""
    state = _state(cluster)
    state.processes.kill(_ALL)
    shutil.rmtree(state.data / "etcd")
    shutil.copytree(source, state.data / "etcd")
    _start(cluster)


def _start(cluster: Cluster) -> None:
    ensure(True, cluster.folder, keep=False)


def _state(cluster: Cluster) -> State:
    state = load(cluster.folder)
    if state is None:
        raise ValueError(f"{cluster.folder} has no cluster")
    return state
