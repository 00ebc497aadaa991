"""A cluster with a private registry, a taint, a quota and a restricted namespace.

An evolution without a `podTemplate` succeeds there with the chart's values alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.e2e.conftest import Json, Kubectl, owned, pod_template, wait_status
from tests.integration.operator.api import wait_for
from tests.support.cluster import S3, Cluster, settings
from tests.support.private_registry import PrivateRegistry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("pods-2"),
]

api: Any = client
TAINT = {"key": "selfemo.test/dedicated", "value": "jobs", "effect": "NoSchedule"}
TOLERATION = {"key": TAINT["key"], "operator": "Equal", "value": TAINT["value"]}
NODE = {"kubernetes.io/hostname": settings.NODE}
#: The operator has two pods in the namespace, and self-play may have several.
QUOTA = {
    "requests.cpu": "2",
    "requests.memory": "8Gi",
    "limits.cpu": "12",
    "limits.memory": "24Gi",
    "pods": "8",
}
RESOURCES = {
    "requests": {"cpu": "250m", "memory": "1Gi"},
    "limits": {"cpu": "2", "memory": "4Gi"},
}
#: The label of the namespace that refuses pods beyond the restricted standard.
RESTRICTED = "pod-security.kubernetes.io/enforce"


class Taint:
    """A taint of the node of the tests, under which other tests' pods wait."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def set(self) -> None:
        self._patch([*self._others(), TAINT])

    def remove(self) -> None:
        self._patch(self._others())

    def _others(self) -> list[Json]:
        node = self._core.read_node(settings.NODE)
        taints = [
            {"key": t.key, "value": t.value, "effect": t.effect} for t in node.spec.taints or []
        ]
        return [taint for taint in taints if taint["key"] != TAINT["key"]]

    def _patch(self, taints: list[Json]) -> None:
        self._core.patch_node(settings.NODE, {"spec": {"taints": taints}})


@pytest.fixture
def taint(node_cluster: Cluster) -> Iterator[Taint]:
    """The taint of the node. It is removed at the end, whatever happens."""
    if node_cluster.kind != "local":
        pytest.skip("the node of another cluster is not tainted")
    with node_cluster.client() as connection:
        taint = Taint(api.CoreV1Api(connection))
        try:
            yield taint
        finally:
            taint.remove()


@pytest.fixture
def registry(node_cluster: Cluster, prepared: S3, namespace: str) -> Iterator[PrivateRegistry]:
    """A registry with the image of the jobs; the namespace has the Secret `registry` for it."""
    archive = node_cluster.folder / "images" / "selfemo-jobs-base-e2e.tar"
    if not archive.is_file():
        pytest.skip(f"this cluster has no archive of the image: {archive}")
    with PrivateRegistry(archive, "team/selfemo-jobs") as registry:
        with node_cluster.client() as connection:
            secret = registry.secret("registry")
            api.CoreV1Api(connection).create_namespaced_secret(namespace, secret)
        yield registry


def values(image: str) -> Json:
    """Return the values of the chart that an administrator writes for such a cluster."""
    environment = pod_template() | {"image": image, "imagePullPolicy": "Always"}
    return {
        "jobs": {
            "serviceAccount": {"imagePullSecrets": ["registry"]},
            "podTemplate": [
                {
                    "template": {
                        **environment,
                        "tolerations": [TOLERATION],
                        "nodeSelector": NODE,
                        "resources": RESOURCES,
                    }
                },
                {"stages": ["Train"], "template": {"labels": {"example.org/stage": "train"}}},
            ],
        },
        "tolerations": [TOLERATION],
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        },
    }


def stage_pods(kubectl: Kubectl) -> dict[str, Json]:
    """Return the pods of the evolution's Jobs by the component of each."""
    selector = f"{names.LABEL_MANAGED_BY}=selfemo"
    items = json.loads(kubectl("get", "pods", "--selector", selector, "--output", "json"))["items"]
    return {item["metadata"]["labels"][names.LABEL_COMPONENT]: item for item in items}


def check_pod(pod: Json, image: str) -> None:
    """Check that a pod has the defaults of the chart."""
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert (
        TOLERATION.items()
        <= next(t for t in spec["tolerations"] if t.get("key") == TAINT["key"]).items()
    )
    assert spec["nodeSelector"] == NODE
    assert container["image"] == image
    assert container["resources"] == RESOURCES
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_ten_lines_succeed_with_values_of_the_chart_alone(
    install: Callable[..., Any],
    kubectl: Kubectl,
    evolution: Callable[..., Json],
    registry: PrivateRegistry,
    taint: Taint,
    node_cluster: Cluster,
    admin: KubeClient,
    namespace: str,
) -> None:
    quota = {"metadata": {"name": "team"}, "spec": {"hard": QUOTA}}
    with node_cluster.client() as connection:
        core = api.CoreV1Api(connection)
        core.create_namespaced_resource_quota(namespace, quota)
        labels = core.read_namespace(namespace).metadata.labels
    assert labels[RESTRICTED] == "restricted"
    taint.set()
    run = install(values(registry.image))
    document = evolution(stopping={"maxGenerations": 1})
    del document["spec"]["podTemplate"]
    document["spec"]["storage"]["whenDeleted"] = "Delete"
    kubectl.apply(document)
    first = wait_for(lambda: running(kubectl), "a pod to run on the tainted node", 300)
    assert first["spec"]["nodeName"] == settings.NODE
    if "PYTEST_XDIST_WORKER" in os.environ:
        taint.remove()  # the pods of tests beside this one wait for it
    status = wait_status(kubectl, lambda s: s.get("completionTime"), "the end", 1200)
    assert status["phase"] == "Succeeded", kubectl("describe", "emo", "small")
    assert status["failures"] == 0

    pods = stage_pods(kubectl)
    assert {"check", "selfplay", "score", "flywheel", "train", "evaluate", "publish"} <= pods.keys()
    for pod in pods.values():
        check_pod(pod, registry.image)
    labeled = [c for c, p in pods.items() if "example.org/stage" in p["metadata"]["labels"]]
    assert labeled == ["train"]
    manifests = [path for path in registry.pulled if "/manifests/" in path]
    assert len(manifests) >= len(pods), "each pod has looked its image up"
    assert registry.refused, "the registry asks for the password"

    assert "no evolution was run" in run("test", "--logs", "--timeout", "600s")
    kubectl("delete", "emo", "small")
    # the purge Job runs with the defaults too, and is deleted once it has succeeded
    wait_for(lambda: owned(admin, namespace) == [], "the data to be removed", seconds=180)


def running(kubectl: Kubectl) -> Json | None:
    """Return a pod of the evolution that runs or has ended, or None."""
    phases = ("Running", "Succeeded")
    pods = stage_pods(kubectl).values()
    return next((pod for pod in pods if pod["status"].get("phase") in phases), None)
