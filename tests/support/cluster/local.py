"""A local cluster on this machine: start, repair, and complete removal."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.cluster import (
    binaries,
    cgroups,
    commands,
    controlplane,
    images,
    kernel,
    mounts,
    network,
    node,
    runtime,
    s3,
    settings,
)
from tests.support.cluster.errors import ClusterError, Unavailable
from tests.support.cluster.locks import locked, locked_alone
from tests.support.cluster.probes import Api
from tests.support.cluster.processes import Component, wait_until
from tests.support.cluster.state import S3, State, load

_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_NODE = ("kubelet", "kube-proxy", "coredns", "versitygw", "pause")
_OTHER_RUN_SECONDS = 300  # below the limit of a test
_LONGEST_FOLDER = 60  # it contains sockets of the kubelet and the runtime: at most 107 characters


def up(folder: Path, nodes: bool, kept: bool, report: Callable[[str], None]) -> State:
    """Start a cluster, or the parts of it that do not run.

    Parameters
    ----------
    folder
        The folder of the cluster's state.
    nodes
        Whether the cluster has a node. A cluster with a node keeps it.
    kept
        Whether the cluster keeps running when the last test run that uses it ends.
    report
        A function that is called with a line of text for each step that takes time.
    """
    folder = folder.resolve()
    with locked(folder / ".lock"):
        state = load(folder) or _new(folder)
        nodes = nodes or state.nodes
        if nodes:
            _check_node(state)
        binaries.programs(_CONTROL_PLANE, report)
        if nodes:
            binaries.programs(_NODE, report)
            commands.install(report)
        state.nodes, state.kept = nodes, kept or state.kept
        state.choose_ports()
        if nodes:
            state.s3 = s3.describe(state)
        state.save()  # first, so that `down` works after any error
        if nodes:
            network.make(state)
            kernel.prepare(state)
        _start(state, *controlplane.components(state))
        if nodes:
            _start_node(state)
    return state


def down(folder: Path) -> bool:
    """Take a cluster down and remove its data; logs, images and the Python environment stay.

    Returns
    -------
    bool
        Whether there was a cluster.
    """
    folder = folder.resolve()
    with locked(folder / ".lock"):
        state = load(folder)
        if state is None:
            return False
        # Killing is enough: no data is kept, and the cgroups and mounts are known.
        state.processes.kill(state.processes.names())
        if state.nodes:
            cgroups.kill()
            runtime.remove(state)
            network.remove(state)
            kernel.restore(state)
            cgroups.remove()
        mounts.remove_tree(state.data)
        state.kubeconfig.unlink(missing_ok=True)
        state.record.unlink()
    return True


def status(folder: Path) -> list[str]:
    """Return a line for the cluster, and a line for each of its processes."""
    state = load(folder.resolve())
    if state is None:
        return ["down"]
    processes = state.processes
    answering = Api(state.server, state.authority).ready()
    lines = [f"{'up' if answering else 'not answering'}: {state.server}"]
    if state.nodes:
        lines.append(f"node {settings.NODE}: {'ready' if node.ready(state) else 'not ready'}")
    for name in processes.names():
        pid = processes.pid(name)
        lines.append(f"{name}: {f'pid {pid}' if pid else 'ended'}")
    return lines


def signal_apiserver(state: State, number: signal.Signals) -> None:
    """Send a signal to the API server's process."""
    state.processes.signal(controlplane.APISERVER, number)


def kill_apiserver(state: State) -> None:
    """Kill the API server as a crash would."""
    state.processes.kill([controlplane.APISERVER])


def start_apiserver(state: State) -> None:
    """Start the API server (again) and wait until it is ready."""
    _start(state, controlplane.apiserver(state))


def back_up(state: State) -> Path:
    """Copy etcd's data as it is at this moment; return the folder of the copy."""
    backup = state.data / "etcd-backup"
    mounts.remove_tree(backup)
    state.processes.signal(controlplane.ETCD, signal.SIGSTOP)
    try:
        shutil.copytree(state.data / "etcd", backup)
    finally:
        state.processes.signal(controlplane.ETCD, signal.SIGCONT)
    return backup


def restore(state: State, backup: Path) -> None:
    """Start the control plane again with an earlier state of etcd's data."""
    components = controlplane.components(state)
    state.processes.kill([component.name for component in components])
    mounts.remove_tree(state.data / "etcd")
    shutil.copytree(backup, state.data / "etcd")
    _start(state, *components)


def kill_other_s3(state: State) -> None:
    """Kill the second S3 server; its objects stay."""
    state.processes.kill([s3.OTHER])


def start_other_s3(state: State) -> S3:
    """Start the second S3 server (again) and wait until it is ready."""
    assert state.s3 is not None
    _start(state, s3.component(state, s3.OTHER))
    return replace(state.s3, endpoint=s3.endpoint(state, s3.OTHER))


def _new(folder: Path) -> State:
    for old in ("data", "logs", "pids"):
        mounts.remove_tree(folder / old)
    (folder / "logs").mkdir(parents=True)
    return State(folder)


def _check_node(state: State) -> None:
    if os.geteuid() != 0:
        raise Unavailable(
            "a node requires root; without root use --control-plane-only, --kubeconfig, or kind"
        )
    if len(str(state.folder)) > _LONGEST_FOLDER:
        raise ClusterError(f"the path {state.folder} is too long for sockets: use --state")
    _take_bridge(state.folder)
    runtime.check_free(state)


def _take_bridge(folder: Path) -> None:
    """Take down the cluster of another checkout that left its bridge behind.

    A test run that was killed takes nothing down. One that is still running is waited for.
    """
    owner = network.owner()
    if owner in {None, folder} or (other := load(owner)) is None:
        return
    command = f"python -m tests.support.cluster down --state {owner}"

    def unused() -> bool:
        with locked_alone(other.users) as alone:
            return alone

    wait_until(unused, f"the test run that uses {owner} ({command})", _OTHER_RUN_SECONDS)
    with locked(other.users):
        if other.kept and any(map(other.processes.pid, other.processes.names())):
            raise ClusterError(f"another test cluster is kept and uses the bridge: {command}")
        down(owner)


def _start(state: State, *components: Component) -> None:
    """Start components in order; those that later ones depend on are waited for."""
    for component in components:
        state.processes.start(component)
        if component.name in {"etcd", controlplane.APISERVER, "containerd"}:
            state.processes.wait(component)
    for component in components:
        state.processes.wait(component)


def _start_node(state: State) -> None:
    cgroups.make()
    _start(state, runtime.component(state))
    images.ensure_images(state)
    api = Api(state.server, state.authority)
    objects = {**node.manifests(), **node.dns_service(state)}
    for path, manifest in objects.items():
        if api.get(path) is None:
            api.apply(path, manifest)
    _start(state, *node.components(state))
    wait_until(lambda: node.ready(state), f"node {settings.NODE} to become ready")
