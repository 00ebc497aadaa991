"""A Kubernetes cluster for tests: a given one, kind, or the real thing on this machine.

``python -m tests.support.cluster up`` keeps one up between test runs; :func:`ensure` takes it,
or brings one up. What decides which, in this order: ``SELFEMO_TEST_KUBECONFIG``;
``SELFEMO_TEST_CLUSTER`` (``kind`` or ``local``); kind where it and Docker work; the real thing.
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
    """A cluster that is up.

    Attributes
    ----------
    kind
        Where it comes from.
    folder
        Its state folder.
    kubeconfig
        The administrator's.
    nodes
        Whether pods run on it.
    s3
        An S3 server that its pods reach; a local cluster with a node has one.
    audit_log
        One JSON line for each request that the API server answered; a local cluster has one.
    started
        Whether this call of :func:`ensure` brought it up.
    """

    kind: Kind
    folder: Path
    kubeconfig: Path
    nodes: bool = True
    s3: S3 | None = None
    audit_log: Path | None = None
    started: bool = False

    def client(self) -> Any:
        """Return an ``ApiClient`` of the ``kubernetes`` package, as administrator."""
        from kubernetes import config

        make: Any = config.new_client_from_config
        return make(str(self.kubeconfig))

    def pause_apiserver(self) -> None:
        """Let the API server hang: connections are taken and never answered."""
        local.signal_apiserver(self._local(), signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """Go on after `pause_apiserver`."""
        local.signal_apiserver(self._local(), signal.SIGCONT)

    def stop_apiserver(self) -> None:
        """Kill the API server; connections are refused until `start_apiserver`."""
        local.kill_apiserver(self._local())

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it is ready."""
        local.start_apiserver(self._local())

    def start_other_s3(self) -> S3:
        """Start a second S3 server, or start it again with what it held.

        It has the bucket and the keys of the first, which is never stopped: other tests use it.
        """
        return local.start_other_s3(self._local())

    def stop_other_s3(self) -> None:
        """Kill the second S3 server; connections are refused until it is started again."""
        local.kill_other_s3(self._local())

    def start_fake_nodes(self, count: int, stages: Path | None = None) -> None:
        """Add nodes on which kwok pretends to run pods.

        Parameters
        ----------
        count
            How many there are then; they are named ``kwok-0`` and so on, and beside a real node
            they are tainted ``kwok.x-k8s.io/node=fake:NoSchedule``.
        stages
            A file of kwok's Stages; without one, pods run at once and those of Jobs succeed.
        """
        kwok.start(self._local(), count, stages)

    def import_image(self, image: str | Path) -> None:
        """Put an image on the node: an archive, or the name of an image in buildah's store."""
        if self.kind == "kind":
            kind.import_image(Path(image))
        else:
            images.import_image(self._local(), image)

    def make_environment(self) -> Path:
        """Install the checkout, once a test run, for pods to mount; see `environment`."""
        self._local()
        return environment.make_environment(self.folder / "python")

    def down(self) -> None:
        """Take it down, unless it was given."""
        if self.kind == "kind":
            kind.down(self.folder)
        elif self.kind == "local":
            local.down(self.folder)

    def _local(self) -> State:
        state = load(self.folder) if self.kind == "local" else None
        if state is None:
            raise Unavailable(f"only a local cluster can do that; this one is {self.kind}")
        return state


def state_folder(control_plane_only: bool = False) -> Path:
    """Return the state folder where none is named (`SELFEMO_TEST_CLUSTER_STATE`).

    A cluster with a node has one and a control plane alone another: a test run that wants the one
    must not change the other under a run that uses it.
    """
    full, fast, _ = state_folders()
    return fast if control_plane_only else full


def state_folders() -> tuple[Path, Path, Path]:
    """Return the folders of a cluster with a node, of a control plane alone, and of a fragile one.

    A fragile one is a control plane whose API server tests stop: nobody else may use it meanwhile.
    """
    if named := os.environ.get("SELFEMO_TEST_CLUSTER_STATE"):
        folder = Path(named).resolve()
        return folder, folder, folder.with_name(f"{folder.name}-fragile")
    build = _ROOT / "build"
    return build / "cluster", build / "control-plane", build / "control-plane-fragile"


def given() -> Path | None:
    """Return the kubeconfig of a cluster that is to be used as it is."""
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
    """Return a cluster that is up; bring one up where there is none.

    Parameters
    ----------
    control_plane_only
        No pods will run. A cluster with a node serves as well.
    folder
        Its state folder.
    kubeconfig
        A cluster that is to be used as it is.
    report
        Called with a line for each thing that takes time.
    keep
        It stays up when the last :func:`borrowed` ends.

    Raises
    ------
    Unavailable
        If this machine lacks what it needs.
    ClusterError
        If something went wrong.
    """
    folder = (folder or state_folder(control_plane_only)).resolve()
    if kubeconfig := kubeconfig or given():
        if not kubeconfig.is_file():
            raise ClusterError(f"there is no kubeconfig at {kubeconfig}")
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
    """Use a cluster together with other test runs; the last takes it down, unless it is kept.

    Parameters
    ----------
    control_plane_only
        No pods will run.
    folder
        Its state folder, where it is not the usual one.

    Raises
    ------
    Unavailable
        If this machine lacks what it needs.
    ClusterError
        If something went wrong.
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
    asked = os.environ.get("SELFEMO_TEST_CLUSTER", "")
    if asked not in {"", "kind", "local"}:
        raise ClusterError(f"SELFEMO_TEST_CLUSTER is {asked!r}; it may be kind or local")
    return asked == "kind" or (not asked and kind.works())
