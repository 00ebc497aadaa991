"""Fixtures: a real API server and controller manager, with a fake kubelet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import (
    create_namespace,
    delete_namespace,
    document,
    serve_crd,
    wait_for,
)
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster
from tests.support.cluster.fixtures import control_plane
from tests.support.cluster.locks import locked_in_turn

__all__ = ["control_plane"]

Json = dict[str, Any]


@pytest.fixture(scope="session")
def cluster(control_plane: Cluster) -> Cluster:
    return control_plane


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> KubeClient:
    return administrator(cluster)


def administrator(cluster: Cluster) -> KubeClient:
    """Return a client with an administrator's rights, after applying the CRD."""
    client = KubeClient(connections=16, kubeconfig=str(cluster.kubeconfig))
    serve_crd(client)
    return client


@pytest.fixture
def namespace(cluster: Cluster, kube: KubeClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for the test; its evolutions are deleted afterwards."""
    name = "t-" + request.node.name.lower().replace("_", "-").partition("[")[0][:40].strip("-")
    name = f"{name}-{int(time.time() * 1000) % 1_000_000}"
    alone = "every_namespace" in request.fixturenames
    with cluster_turn(cluster, alone=alone), own_namespace(kube, name) as created:
        yield created


@pytest.fixture
def every_namespace() -> None:
    """Mark a test whose operator serves all namespaces, also those of other workers' tests."""


@contextlib.contextmanager
def cluster_turn(cluster: Cluster, *, alone: bool) -> Iterator[None]:
    """Wait until no test is alone in the cluster; with `alone`, until there is no other test."""
    with locked_in_turn(cluster.folder / ".namespaces.lock", alone=alone):
        yield


@contextlib.contextmanager
def own_namespace(kube: KubeClient, name: str) -> Iterator[str]:
    """Create a namespace; delete its evolutions and the namespace afterwards."""
    yield create_namespace(kube, name)
    for item in kube.get(names.evolutions_path(name))["items"]:
        kube.delete(names.evolution_path((name, item["metadata"]["name"])), item["metadata"]["uid"])
    delete_namespace(kube, name)


@dataclass
class Evolutions:
    """The evolutions of one namespace, as a user handles them."""

    kube: KubeClient
    namespace: str

    def create(self, name: str = "demo", **spec: Any) -> Json:
        # no scheduler: `FakeKubelet` takes the place of a node
        templates = [{"template": {"schedulerName": "none"}}, *spec.pop("podTemplate", [])]
        base: Json = {
            "stopping": {"maxGenerations": 2},
            "overrides": {"failurePolicy": {"backoffSeconds": 0}},
            "podTemplate": templates,
        }
        body = document(name, **{**base, **spec})
        return self.kube.create(names.evolutions_path(self.namespace), body)

    def get(self, name: str = "demo") -> Json:
        return self.kube.get(names.evolution_path((self.namespace, name)))

    def edit(self, name: str = "demo", **spec: Any) -> Json:
        return self.kube.patch(names.evolution_path((self.namespace, name)), {"spec": spec})

    def condition(self, kind: str, name: str = "demo") -> Json:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait(
        self, check: Callable[[Json], Any], what: str, name: str = "demo", **more: Any
    ) -> Json:
        def checked() -> Json | None:
            current = self.get(name)
            return current if check(current.get("status", {})) else None

        evolution: Json = wait_for(checked, what, **more)
        return evolution

    def wait_end(self, name: str = "demo", seconds: float = 180.0) -> Json:
        return self.wait(lambda s: s.get("completionTime"), "the end", name, seconds=seconds)

    def jobs(self) -> list[Json]:
        listed = self.kube.get(names.jobs_path(self.namespace))
        jobs: list[Json] = listed["items"]
        return jobs

    def events(self) -> list[Json]:
        items: list[Json] = self.kube.get(names.core_path(self.namespace, "events"))["items"]
        return [e for e in items if e["involvedObject"]["kind"] == "EmotionEvolution"]


@pytest.fixture
def evolutions(kube: KubeClient, namespace: str) -> Evolutions:
    return Evolutions(kube, namespace)


@pytest.fixture
def kubelet(kube: KubeClient, namespace: str) -> Iterator[FakeKubelet]:
    fake = FakeKubelet(kube, namespace)
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def make_operator(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """A function that starts operators for the test's namespace; they are killed afterwards."""
    with operators(cluster.kubeconfig, namespace, tmp_path) as build:
        yield build


@contextlib.contextmanager
def operators(
    kubeconfig: Path, namespace: str, folder: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Yield a function that starts operators; kill them afterwards, and check their logs."""
    processes: list[OperatorProcess] = []

    def build(*options: str, kubeconfig: Path = kubeconfig, **more: Any) -> OperatorProcess:
        process = OperatorProcess(
            kubeconfig=kubeconfig,
            log=folder / f"operator-{len(processes)}.log",
            options=("--namespace", namespace, "--resync-seconds", "5", *options),
            **more,
        )
        processes.append(process)
        process.start()
        process.wait_ready()
        return process

    try:
        yield build
    finally:
        for process in processes:
            if process.process is not None and process.process.poll() is None:
                process.kill()
    for process in processes:
        assert "Traceback" not in process.text(), process.text()[-4000:]


@pytest.fixture
def operator(make_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    return make_operator()
