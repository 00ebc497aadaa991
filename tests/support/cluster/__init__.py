"""A Kubernetes cluster for tests: an existing one, kind, or real components on this machine.

``python -m tests.support.cluster up`` keeps a cluster running between test runs. :func:`ensure`
returns a running cluster, or starts one. The choice is, in this order: ``SELFEMO_TEST_KUBECONFIG``;
``SELFEMO_TEST_CLUSTER`` (``kind`` or ``local``); kind if it and Docker work; a local cluster.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.cluster import environment, images, kind, kwok, local
from tests.support.cluster.errors import ClusterError, Unavailable
from tests.support.cluster.locks import locked, locked_alone
from tests.support.cluster.state import S3, State, load

__all__ = [
    "S3",
    "Cluster",
    "ClusterError",
    "Unavailable",
    "borrowed",
    "ensure",
    "given",
    "state_folder",
    "state_folders",
]

_ROOT = Path(__file__).resolve().parents[3]
Kind = Literal["given", "kind", "local"]


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes
    ----------
    kind
        The kind of the cluster.
    folder
        The folder of the cluster's state.
    kubeconfig
        The kubeconfig of the administrator.
    nodes
        Whether pods run on the cluster.
    s3
        An S3 server that pods can reach. Only a local cluster with a node has one.
    audit_log
        A file with one JSON line for each request to the API server. Only a local cluster has one.
    started
        Whether this call of :func:`ensure` started the cluster.
    """

    kind: Kind
    folder: Path
    kubeconfig: Path
    nodes: bool = True
    s3: S3 | None = None
    audit_log: Path | None = None
    started: bool = False

    def client(self) -> Any:
        """Return an ``ApiClient`` of the ``kubernetes`` package with an administrator's rights."""
        from kubernetes import config

        make: Any = config.new_client_from_config
        return make(str(self.kubeconfig))

    def pause_apiserver(self) -> None:
        """Let the API server hang: it accepts connections and never responds."""
        local.signal_apiserver(self._local(), signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """Resume the API server after `pause_apiserver`."""
        local.signal_apiserver(self._local(), signal.SIGCONT)

    def stop_apiserver(self) -> None:
        """Kill the API server; connections are refused until `start_apiserver`."""
        local.kill_apiserver(self._local())

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it is ready."""
        local.start_apiserver(self._local())

    def back_up(self) -> Path:
        """Copy etcd's data as it is at this moment; return the folder of the copy."""
        return local.back_up(self._local())

    def restore(self, backup: Path) -> None:
        """Start the control plane again with an earlier state of etcd's data.

        Resource versions go back, as after the restoration of a snapshot.
        """
        local.restore(self._local(), backup)

    def start_other_s3(self) -> S3:
        """Start a second S3 server, or start it again with its objects.

        It has the bucket and the keys of the first server, which other tests use.
        """
        return local.start_other_s3(self._local())

    def stop_other_s3(self) -> None:
        """Kill the second S3 server; connections are refused until it is started again."""
        local.kill_other_s3(self._local())

    def start_fake_nodes(self, count: int, stages: Path | None = None) -> None:
        """Add fake nodes, on which kwok simulates pods.

        Parameters
        ----------
        count
            The number of fake nodes. They are named ``kwok-0`` and so on. If there is a real node,
            they have the taint ``kwok.x-k8s.io/node=fake:NoSchedule``.
        stages
            A file with kwok's Stages. None: pods run at once, and those of Jobs succeed.
        """
        kwok.start(self._local(), count, stages)

    def import_image(self, image: str | Path) -> None:
        """Import an image into the node: an archive, or the name of an image in buildah's store."""
        if self.kind == "kind":
            kind.import_image(Path(image))
        else:
            images.import_image(self._local(), image)

    def make_environment(self) -> Path:
        """Install the checkout once in a test run, for pods to mount; see `environment`."""
        self._local()
        return environment.make_environment(self.folder / "python")

    def down(self) -> None:
        """Take the cluster down, unless it existed before."""
        if self.kind == "kind":
            kind.down(self.folder)
        elif self.kind == "local":
            local.down(self.folder)

    def _local(self) -> State:
        state = load(self.folder) if self.kind == "local" else None
        if state is None:
            raise Unavailable(
                f"this requires a local cluster, and the cluster is of kind {self.kind}"
            )
        return state


def state_folder(control_plane_only: bool = False) -> Path:
    """Return the default state folder; `SELFEMO_TEST_CLUSTER_STATE` names another.

    A cluster with a node and a control plane without nodes have different folders, so that a test
    run that needs one does not change the other while another run uses it.
    """
    full, fast, _ = state_folders()
    return fast if control_plane_only else full


def state_folders() -> tuple[Path, Path, Path]:
    """Return the folders of a cluster with a node, of a control plane, and of a fragile one.

    The fragile one is a control plane whose API server tests stop. Only one test run may use it at
    a time.
    """
    if named := os.environ.get("SELFEMO_TEST_CLUSTER_STATE"):
        folder = Path(named).resolve()
        return folder, folder, folder.with_name(f"{folder.name}-fragile")
    build = _ROOT / "build"
    return build / "cluster", build / "control-plane", build / "control-plane-fragile"


def given() -> Path | None:
    """Return the kubeconfig of an existing cluster to use, or None."""
    path = os.environ.get("SELFEMO_TEST_KUBECONFIG")
    return Path(path).resolve() if path else None


def ensure(
    control_plane_only: bool,
    folder: Path | None = None,
    kubeconfig: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
    *,
    keep: bool = True,
) -> Cluster:
    """Return a running cluster; start one if there is none.

    Parameters
    ----------
    control_plane_only
        Whether a control plane without nodes is enough.
    folder
        The folder of the cluster's state. None: the default folder.
    kubeconfig
        The kubeconfig of an existing cluster to use.
    report
        A function that is called with a line of text for each step that takes time.
    keep
        Whether the cluster keeps running when the last :func:`borrowed` ends.

    Raises
    ------
    Unavailable
        If this machine does not meet the requirements.
    ClusterError
        If the cluster cannot be started.
    """
    folder = (folder or state_folder(control_plane_only)).resolve()
    if kubeconfig := kubeconfig or given():
        if not kubeconfig.is_file():
            raise ClusterError(f"the kubeconfig {kubeconfig} does not exist")
        return Cluster("given", folder, kubeconfig)
    before = load(folder)
    if before is None and _use_kind():
        started = kind.up(folder, report)
        return Cluster("kind", folder, folder / "kubeconfig", started=started)
    state = local.up(folder, not control_plane_only, keep, report)
    return Cluster(
        "local",
        folder,
        state.kubeconfig,
        nodes=state.nodes,
        s3=state.s3,
        audit_log=state.audit_log,
        started=before is None,
    )


@contextlib.contextmanager
def borrowed(control_plane_only: bool, folder: Path | None = None) -> Iterator[Cluster]:
    """Use a cluster together with other test runs; the last one takes it down, unless it is kept.

    Parameters
    ----------
    control_plane_only
        Whether a control plane without nodes is enough.
    folder
        The folder of the cluster's state. None: the default folder.

    Raises
    ------
    Unavailable
        If this machine does not meet the requirements.
    ClusterError
        If the cluster cannot be started.
    """
    folder = folder or state_folder(control_plane_only)
    users = State(folder).users
    cluster = None
    try:
        with locked(users, shared=True):
            cluster = ensure(control_plane_only, folder, keep=False)
            yield cluster
    finally:
        with locked_alone(users) as alone:
            state = load(folder)
            if alone and state is not None and not state.kept:
                local.down(folder)
            elif alone and cluster is not None and cluster.kind == "kind" and cluster.started:
                kind.down(folder)


def _use_kind() -> bool:
    choice = os.environ.get("SELFEMO_TEST_CLUSTER", "")
    if choice not in {"", "kind", "local"}:
        raise ClusterError(f"SELFEMO_TEST_CLUSTER is {choice!r}; it must be kind or local")
    return choice == "kind" or (not choice and kind.works())
