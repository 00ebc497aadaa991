"""A real API server, controller-manager and garbage collector; pods end without running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_api import labels
from selfemo_operator.cluster import names
from selfemo_operator.cluster.rest import ApiError, Rest
from tests.cluster import Cluster
from tests.cluster.fixtures import control_plane
from tests.operator.pods import Pods
from tests.operator.process import OperatorProcess

__all__ = ["control_plane"]

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


@pytest.fixture(scope="session")
def cluster(control_plane: Cluster) -> Cluster:
    return control_plane


@pytest.fixture(scope="session")
def rest(cluster: Cluster) -> Rest:
    """An administrator's connection, with the CRD applied."""
    found = Rest(connections=16, kubeconfig=str(cluster.kubeconfig))
    crd = yaml.safe_load((ROOT / "crds" / "selfemo.dev_emotionevolutions.yaml").read_text())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = crd["metadata"]["name"]
    try:
        found.create(path, crd)
    except ApiError as error:
        assert error.status == 409, error
        version = found.get(f"{path}/{name}")["metadata"]["resourceVersion"]
        crd["metadata"]["resourceVersion"] = version
        found.replace(f"{path}/{name}", crd)
    wait_for(lambda: _served(found), "the CRD to be served")
    return found


def _served(rest: Rest) -> bool:
    try:
        rest.get(names.schema_path())
        rest.get(names.evolutions_path(None))
    except ApiError:
        return False
    return True


def wait_for(check: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Return what a check returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@pytest.fixture
def namespace(rest: Rest, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; its evolutions are deleted afterwards."""
    name = "t-" + request.node.name.lower().replace("_", "-").partition("[")[0][:40].strip("-")
    name += f"-{int(time.time() * 1000) % 1_000_000}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    rest.create("/api/v1/namespaces", body)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(lambda: _there(rest, account), "the default service account")
    yield name
    for item in rest.get(names.evolutions_path(name))["items"]:
        rest.delete(names.evolution_path((name, item["metadata"]["name"])), item["metadata"]["uid"])
    rest.delete(
        f"/api/v1/namespaces/{name}", rest.get(f"/api/v1/namespaces/{name}")["metadata"]["uid"]
    )


def _there(rest: Rest, path: str) -> bool:
    try:
        rest.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


@dataclass
class Evolutions:
    """Evolutions in one namespace, as a person handles them."""

    rest: Rest
    namespace: str

    def create(self, name: str = "demo", **spec: Any) -> Json:
        source = {"name": "demo", "uri": "file:///demo.jsonl", "format": "JSONL"}
        base: Json = {
            "model": {"uri": "file:///model"},
            "dataset": {
                "labels": list(labels.MELD),
                "selfPlay": [source],
                "evaluation": [source],
            },
            "storage": {"uri": "s3://bucket/runs"},
            "evolution": {"maxGenerations": 2},
            "training": {"gpusPerNode": 0, "precision": "Float32"},
            "failurePolicy": {"backoffSeconds": 0},
        }
        # no scheduler: `Pods` takes the place of the node
        templates = dict(spec.pop("podTemplate", {}))
        templates["shared"] = {"schedulerName": "none", **templates.get("shared", {})}
        base["podTemplate"] = templates
        body = {
            "apiVersion": "selfemo.dev/v1alpha1",
            "kind": "EmotionEvolution",
            "metadata": {"name": name},
            "spec": {**base, **spec},
        }
        return self.rest.create(names.evolutions_path(self.namespace), body)

    def get(self, name: str = "demo") -> Json:
        return self.rest.get(names.evolution_path((self.namespace, name)))

    def edit(self, name: str = "demo", **spec: Any) -> Json:
        return self.rest.merge(names.evolution_path((self.namespace, name)), {"spec": spec})

    def condition(self, kind: str, name: str = "demo") -> Json:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait(
        self, check: Callable[[Json], Any], what: str, name: str = "demo", **more: Any
    ) -> Json:
        def there() -> Json | None:
            found = self.get(name)
            return found if check(found.get("status", {})) else None

        found: Json = wait_for(there, what, **more)
        return found

    def wait_end(self, name: str = "demo", seconds: float = 90.0) -> Json:
        return self.wait(lambda s: s.get("completionTime"), "the end", name, seconds=seconds)

    def jobs(self) -> list[Json]:
        listed = self.rest.get(names.jobs_path(self.namespace))
        jobs: list[Json] = listed["items"]
        return jobs

    def events(self) -> list[Json]:
        items: list[Json] = self.rest.get(names.core_path(self.namespace, "events"))["items"]
        return [e for e in items if e["involvedObject"]["kind"] == "EmotionEvolution"]


@pytest.fixture
def evolutions(rest: Rest, namespace: str) -> Evolutions:
    return Evolutions(rest, namespace)


@pytest.fixture
def pods(rest: Rest, namespace: str) -> Iterator[Pods]:
    found = Pods(rest, namespace)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def make_operator(
    cluster: Cluster, rest: Rest, namespace: str, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Start operators of the test's namespace; they are ended afterwards."""
    made: list[OperatorProcess] = []

    def build(*options: str, kubeconfig: Path | None = None, **more: Any) -> OperatorProcess:
        found = OperatorProcess(
            kubeconfig=kubeconfig or cluster.kubeconfig,
            log=tmp_path / f"operator-{len(made)}.log",
            options=("--namespace", namespace, "--resync-seconds", "5", *options),
            **more,
        )
        made.append(found)
        found.start()
        found.wait_ready()
        return found

    yield build
    for found in made:
        if found.process is not None and found.process.poll() is None:
            found.kill()
    for found in made:
        assert "Traceback" not in found.text(), found.text()[-4000:]


@pytest.fixture
def operator(make_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    return make_operator()
