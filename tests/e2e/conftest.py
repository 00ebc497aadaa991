"""Fixtures for a real node: the chart's operator, real stages in pods, and a real S3 server."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kubernetes import client

from selfemo_api.recipes.recipe import merged, with_overrides
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.e2e.test_chart import install, namespace, node_image, operator_image
from tests.integration.chart.conftest import helm4
from tests.integration.local.conftest import base_model
from tests.integration.operator.api import wait_for
from tests.support.cluster import S3, Cluster, environment
from tests.support.cluster.binaries import program
from tests.support.cluster.fixtures import (
    control_plane,
    fragile_control_plane,
    make_namespace,
    node_cluster,
)

__all__ = [
    "base_model",
    "control_plane",
    "fragile_control_plane",
    "helm4",
    "install",
    "make_namespace",
    "namespace",
    "node_cluster",
    "node_image",
    "operator_image",
]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "kubernetes-small.yaml"
api: Any = client
Json = dict[str, Any]


@pytest.fixture(scope="session")
def python_environment(node_cluster: Cluster) -> Path:
    """The Python environment of the jobs, from the checkout. An image of it would have six GB."""
    return node_cluster.make_environment()


@pytest.fixture(scope="session")
def stored(node_cluster: Cluster, base_model: Path) -> str:
    """A prefix in the cluster's S3 with a warm-started tiny model and the demo's dialogues."""
    if node_cluster.s3 is None:
        pytest.skip("this cluster has no S3 server")
    prefix = f"s3://{node_cluster.s3.bucket}/e2e-{secrets.token_hex(4)}"
    store(node_cluster.s3, prefix, base_model)
    return prefix


@pytest.fixture
def other_s3(node_cluster: Cluster, stored: str, base_model: Path) -> Iterator[S3]:
    """A second S3 server with the objects of `stored`, which a test may stop."""
    server = node_cluster.start_other_s3()
    store(server, stored, base_model)
    yield server
    node_cluster.stop_other_s3()


def store(s3: S3, prefix: str, model: Path) -> None:
    """Upload a model and the demo's dialogues to a prefix."""
    storage = s3_client(s3)
    key = prefix.removeprefix(f"s3://{s3.bucket}/")
    for path in sorted(model.iterdir()):
        storage.upload_file(str(path), s3.bucket, f"{key}/model/{path.name}")
    for path in sorted((ROOT / "examples" / "demo").glob("*.jsonl")):
        storage.upload_file(str(path), s3.bucket, f"{key}/demo/{path.name}")


def s3_client(s3: S3) -> Any:
    """Return a client of the cluster's S3 with an administrator's rights."""
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )


@dataclass
class Kubectl:
    """kubectl in one namespace, as a user runs it."""

    kubeconfig: Path
    namespace: str

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        result = self._run(*words, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def get(self, what: str) -> Json:
        document: Json = json.loads(self("get", what, "--output", "json"))
        return document

    def apply(self, document: Json) -> None:
        self("apply", "--filename", "-", stdin=json.dumps(document))

    def can(self, account: str, *words: str) -> bool:
        """Return whether an account has a right; a `--namespace` in the arguments takes effect."""
        result = self._run("auth", "can-i", *words, "--as", account)
        assert result.stdout.strip() in ("yes", "no"), result.stderr
        return result.stdout.strip() == "yes"

    def _run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program("kubectl")), "--namespace", self.namespace, *words],
            env={
                "KUBECONFIG": str(self.kubeconfig),
                "KUBECACHEDIR": f"{tempfile.gettempdir()}/selfemo-kube-cache",
            },
            input=stdin,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def kubectl(node_cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(node_cluster.kubeconfig, namespace)


@pytest.fixture
def admin(node_cluster: Cluster) -> KubeClient:
    return KubeClient(connections=4, kubeconfig=str(node_cluster.kubeconfig))


@pytest.fixture
def prepared(node_cluster: Cluster, python_environment: Path, namespace: str) -> Iterator[S3]:
    """The S3 server; the namespace has its keys, and claims on the environment of the jobs."""
    s3 = node_cluster.s3
    if s3 is None:
        pytest.skip("this cluster has no S3 server")
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    claims = environment.claims(python_environment, namespace)
    with node_cluster.client() as connection:
        core = api.CoreV1Api(connection)
        core.create_namespaced_secret(namespace, {"metadata": {"name": "s3"}, "stringData": keys})
        for claim in claims:
            if claim["kind"] == "PersistentVolume":
                core.create_persistent_volume(claim)
            else:
                core.create_namespaced_persistent_volume_claim(namespace, claim)
        try:
            yield s3
        finally:
            for claim in claims:
                if claim["kind"] == "PersistentVolume":
                    core.delete_persistent_volume(claim["metadata"]["name"])


@pytest.fixture
def evolution(prepared: S3, stored: str, namespace: str) -> Callable[..., Json]:
    """A function that builds an evolution from the example, with changes of its settings."""

    def build(**changes: Json) -> Json:
        document: Json = yaml.safe_load(EXAMPLE.read_text().replace("s3://selfemo", stored))
        spec = document["spec"] | {"recipe": "tests-v1", "model": {"uri": f"{stored}/model"}}
        train, dev = spec["dataset"].pop("sources")
        spec["dataset"] = {
            "labels": spec["dataset"]["labels"],
            "sources": [{**train, "offset": 60}, {**dev, "limit": 8}],
        }
        spec["storage"] |= {"uri": f"{stored}/{namespace}", "endpoint": prepared.endpoint}
        settings: Json = {
            "selfPlay": {"dialogues": 10},
            "flywheel": {"minReward": -1.0},
            "training": {
                "optimizer": {"learningRate": 1e-5},
                "batchSize": 32,
                "microBatchSize": 16,
                "deepspeed": {"zeroStage": 2},
            },
            "evaluation": {"bootstrap": 1000},
            "stopping": {"maxGenerations": 2},
            "podTemplate": [{"template": pod_template()}],
        }
        document["spec"] = with_overrides(merged({**spec, **settings}, changes))
        return document

    return build


def pod_template() -> Json:
    """Return the part of a pod template that runs the stages with the mounted environment."""
    path = f"{environment.MOUNT}/bin:/usr/bin:/bin"
    env = [{"name": "PATH", "value": path}, {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}]
    return {**environment.claimed_pod(), "env": env}


def wait_status(
    kubectl: Kubectl,
    check: Callable[[Json], Any],
    what: str,
    seconds: int = 300,
    name: str = "small",
) -> Json:
    """Wait until the status of an evolution fulfills a check; return the status."""

    def checked() -> Json | None:
        status: Json = kubectl.get(f"emo/{name}").get("status", {})
        return status if check(status) else None

    try:
        result: Json = wait_for(checked, what, seconds, every=1)
    except AssertionError as error:
        details = kubectl("describe", "emo", name) + kubectl("get", "pods", "--output", "wide")
        raise AssertionError(f"{error}: {details}") from error
    return result


def owned(kube: KubeClient, namespace: str) -> list[str]:
    """Return the objects of evolutions in a namespace."""
    query = {"labelSelector": f"{names.LABEL_MANAGED_BY}=selfemo"}
    paths = [names.jobs_path(namespace)]
    paths += [names.core_path(namespace, plural) for plural in ("pods", "services")]
    lists = [(path, kube.get(path, query)["items"]) for path in paths]
    return [f"{path}: {item['metadata']['name']}" for path, items in lists for item in items]
