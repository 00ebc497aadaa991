"""The chart on a node: the image is built with buildah, the chart is installed, and tested.

`helm test` runs with and without a tiny evolution.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.integration.chart.helm import CHART, ROOT, Helm, HelmError
from tests.support.cluster import Cluster, ClusterError, binaries, commands, environment
from tests.support.cluster.fixtures import node_cluster
from tests.support.cluster.locks import locked, locked_in_turn, replace_text, this_run

__all__ = ["node_cluster"]

pytestmark = [
    pytest.mark.chart,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("away"),  # the worker of this group is free first
]

api: Any = client  # their types want objects where JSON does
Json = dict[str, Any]
ACCOUNTS = "system:serviceaccount:"
BASE = "localhost/python-base:bookworm"
CONTENT_LABEL = "selfemo.test/made-of"


def _buildah(*command: str, **variables: str) -> str:
    """Run buildah, or a script that runs it; return the error, or an empty text."""
    own = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **variables}
    environment = {**os.environ, **own}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stderr[-3000:] or "failed" if result.returncode else ""


@pytest.fixture(scope="session")
def operator_image() -> str:
    """The operator's image of the checkout in buildah's store; it is built if it is not current."""
    if os.geteuid() != 0:
        pytest.skip("no image: debootstrap needs root")
    try:
        commands.install(print)
    except ClusterError as error:
        pytest.skip(f"no image: {error}")
    return build_operator(ROOT, "localhost", _content_digest())


def build_operator(checkout: Path, registry: str, content: str) -> str:
    """Build the operator's image of a checkout, if buildah's store does not have it.

    Parameters
    ----------
    checkout
        The root of the checkout.
    registry
        The registry in the name of the image.
    content
        What the image is made of. An image with the same content is not built again.

    Returns
    -------
    str
        The name of the image.
    """
    version = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
    image = f"{registry}/selfemo-operator:{version}"
    with locked(binaries.cache_folder() / ".operator-image.lock"):
        if not _inspect(BASE):
            assert not (error := _buildah(f"{ROOT}/images/base/build", BASE)), error
        label = f"{CONTENT_LABEL}={content}"
        if label not in _inspect(image):
            options = {"TOOL": "buildah", "BASE": BASE, "HOST_CERTIFICATES": "1"}
            command = (f"{checkout}/images/build", "operator", "--label", label)
            # without its name, an earlier image would stay until the disk is full
            _buildah("buildah", "rmi", "--force", image)
            assert not (error := _buildah(*command, **options, REGISTRY=registry)), error
    return image


def _inspect(image: str) -> list[str]:
    """Return the name and the labels of an image in buildah's store; empty if it does not exist."""
    command = ["buildah", "inspect", "--type", "image", image]
    environment = {**os.environ, "STORAGE_DRIVER": "vfs"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        return []
    labels = json.loads(result.stdout)["OCIv1"].get("config", {}).get("Labels") or {}
    return [image, *(f"{key}={value}" for key, value in labels.items())]


def _content_digest() -> str:
    """Return a digest of all files of the image, without those of its base."""
    digest = hashlib.sha256()
    places = [ROOT / name for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE")]
    for folder in ("crds", "operator", "jobs", "images"):
        places += sorted((ROOT / folder).rglob("*"))
    for path in places:
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@pytest.fixture(scope="session")
def node_image(operator_image: str, node_cluster: Cluster) -> str:
    """The operator's image on the node; it is imported once in a test run."""
    imported_by = node_cluster.folder / "images" / ".operator-imported-by"
    # a cluster that was taken down and started again has a new kubeconfig
    this_cluster = f"{this_run()} {node_cluster.kubeconfig.stat().st_mtime_ns}"
    with locked(node_cluster.folder / "images" / ".lock"):
        if not imported_by.is_file() or imported_by.read_text() != this_cluster:
            node_cluster.import_image(operator_image)
            replace_text(imported_by, this_cluster)
    return operator_image


@pytest.fixture
def namespace(node_cluster: Cluster, make_namespace: Callable[..., str]) -> str:
    """A namespace under the restricted standard."""
    return make_namespace(node_cluster)


@contextlib.contextmanager
def crd_in_use(cluster: Cluster, *, alone: bool = False) -> Iterator[None]:
    """Hold the CRD, which all releases of the cluster share.

    Parameters
    ----------
    cluster
        The cluster.
    alone
        Whether the CRD of another version is installed in the meantime. Tests that use the CRD of
        the checkout are waited for, and later ones wait.
    """
    with locked_in_turn(cluster.folder / ".crd.lock", alone=alone):
        yield


@pytest.fixture
def install(
    node_image: str, helm4: Helm, node_cluster: Cluster, namespace: str, tmp_path: Path
) -> Iterator[Callable[[Json], Callable[..., str]]]:
    """A function that installs the chart for the namespace; it returns Helm for the release."""

    def run(command: str, *options: str) -> str:
        place = ["selfemo", *options, "--namespace", namespace]
        return helm4.run(command, *place, kubeconfig=node_cluster.kubeconfig, timeout=1500)

    def install_chart(values: Json) -> Callable[..., str]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({"watchNamespaces": [namespace], **values}))
        options = ["--values", str(file), "--take-ownership", "--wait", "--timeout", "900s"]
        # all releases use the CRD: the first installation creates it, the next ones take it over
        with locked(node_cluster.folder / ".install.lock"):
            run("install", str(CHART), *options)
        return run

    with crd_in_use(node_cluster):
        yield install_chart
        run("uninstall", "--ignore-not-found", "--wait")


def denied(cluster: Cluster, namespace: str) -> list[str]:
    """Return the requests for which a namespace's accounts had no right.

    Not those that an admission plugin has refused: in the first seconds of a CRD, the API server
    does not know the kind of an owner yet, and the operator tries again.
    """
    if cluster.audit_log is None:
        return []
    lines = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
    own = [x for x in lines if x["user"]["username"].startswith(f"{ACCOUNTS}{namespace}:")]
    assert own, "the audit log must contain the operator's requests"
    decision = "authorization.k8s.io/decision"
    refused = [x for x in own if x.get("annotations", {}).get(decision) == "forbid"]
    return [f"{x['verb']} {x['requestURI']}" for x in refused]


def test_helm_test_passes_after_the_installation(
    install: Callable[[Json], Callable[..., str]], node_cluster: Cluster, namespace: str
) -> None:
    output = install({})("test", "--logs", "--timeout", "600s")
    assert "ready replicas: 2" in output
    assert "an invalid evolution: rejected" in output
    assert "no evolution was run" in output
    assert denied(node_cluster, namespace) == []


def test_helm_test_runs_a_tiny_evolution(
    install: Callable[[Json], Callable[..., str]], node_cluster: Cluster, namespace: str
) -> None:
    s3 = node_cluster.s3
    if s3 is None:
        pytest.skip("this cluster has no S3 server")
    folder = node_cluster.make_environment()
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    with node_cluster.client() as connection:
        core = api.CoreV1Api(connection)
        core.create_namespaced_secret(namespace, {"metadata": {"name": "s3"}, "stringData": keys})
        claims = environment.claims(folder, namespace)
        for claim in claims:
            if claim["kind"] == "PersistentVolume":
                core.create_persistent_volume(claim)
            else:
                core.create_namespaced_persistent_volume_claim(namespace, claim)
        storage = {
            "uri": f"s3://{s3.bucket}/{namespace}",
            "endpoint": s3.endpoint,
            "pathStyle": True,
            "credentialsSecretRef": {"name": "s3"},
        }
        path = f"{environment.MOUNT}/bin:/usr/bin:/bin"
        pod = {**environment.claimed_pod(), "env": [{"name": "PATH", "value": path}]}
        run = install({"test": {"storage": storage, "podTemplate": pod, "timeoutSeconds": 1300}})
        try:
            output = run("test", "--logs", "--timeout", "1400s")
        except HelmError as error:
            custom = api.CustomObjectsApi(connection)
            place = ("selfemo.dev", "v1alpha1", namespace, "emotionevolutions")
            items = custom.list_namespaced_custom_object(*place)["items"]
            pytest.fail(f"{error}\n{json.dumps([e.get('status') for e in items], indent=1)}")
        finally:
            for claim in claims:
                if claim["kind"] == "PersistentVolume":
                    core.delete_persistent_volume(claim["metadata"]["name"])
    assert "a tiny evolution: MaxGenerationsReached" in output
    assert denied(node_cluster, namespace) == []
