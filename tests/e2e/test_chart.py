"""The whole way: image built by buildah, chart installed on a node, `helm test` with and without a
tiny evolution.
"""

from __future__ import annotations

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

from tests.integration.chart.helm import CHART, ROOT, Helm, Refused
from tests.support.cluster import Cluster, ClusterError, binaries, commands, environment
from tests.support.cluster.fixtures import node_cluster
from tests.support.cluster.locks import locked, replace_text, this_run

__all__ = ["node_cluster"]

pytestmark = [
    pytest.mark.chart,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("away"),  # that worker is free first
]

api: Any = client  # their types want objects where JSON does
Json = dict[str, Any]
ACCOUNTS = "system:serviceaccount:"
BASE = "localhost/python-base:bookworm"
MADE_OF = "selfemo.test/made-of"


def _buildah(*command: str, **variables: str) -> str:
    """Run buildah, or one of our scripts that does; return an empty text or what went wrong."""
    own = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **variables}
    environment = {**os.environ, **own}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr[-3000:] or "failed" if done.returncode else ""


@pytest.fixture(scope="session")
def operator_image() -> str:
    """The operator's image as the checkout is now, in buildah's store; built if it is another."""
    if os.geteuid() != 0:
        pytest.skip("no image: debootstrap needs root")
    try:
        commands.install(print)
    except ClusterError as error:
        pytest.skip(f"no image: {error}")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = f"localhost/selfemo-operator:{version}"
    with locked(binaries.cache_folder() / ".operator-image.lock"):
        if not _inspect(BASE):
            assert not (wrong := _buildah(f"{ROOT}/images/base/build", BASE)), wrong
        label = f"{MADE_OF}={_made_of()}"
        if label not in _inspect(image):
            options = {"TOOL": "buildah", "BASE": BASE, "HOST_CERTIFICATES": "1"}
            command = (f"{ROOT}/images/build", "operator", "--label", label)
            assert not (wrong := _buildah(*command, **options)), wrong
    return image


def _inspect(image: str) -> list[str]:
    """Return the labels of an image in buildah's store, with that it is there; or nothing."""
    command = ["buildah", "inspect", "--type", "image", image]
    environment = {**os.environ, "STORAGE_DRIVER": "vfs"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    labels = json.loads(done.stdout)["OCIv1"].get("config", {}).get("Labels") or {}
    return [image, *(f"{key}={value}" for key, value in labels.items())]


def _made_of() -> str:
    """Return a digest of all that goes into the image but its base."""
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
    """The operator's image on the node; put there once a test run."""
    put_there_by = node_cluster.folder / "images" / ".operator-put-there-by"
    # a cluster that was taken down and brought up again has a new kubeconfig
    now = f"{this_run()} {node_cluster.kubeconfig.stat().st_mtime_ns}"
    with locked(node_cluster.folder / "images" / ".lock"):
        if not put_there_by.is_file() or put_there_by.read_text() != now:
            node_cluster.import_image(operator_image)
            replace_text(put_there_by, now)
    return operator_image


@pytest.fixture
def namespace(node_cluster: Cluster, make_namespace: Callable[..., str]) -> str:
    """A namespace under the restricted standard."""
    return make_namespace(node_cluster)


@pytest.fixture
def install(
    node_image: str, helm4: Helm, node_cluster: Cluster, namespace: str, tmp_path: Path
) -> Iterator[Callable[[Json], Callable[..., str]]]:
    """Install the chart for the namespace alone; returns Helm for the release."""

    def run(command: str, *options: str) -> str:
        place = ["selfemo", *options, "--namespace", namespace]
        return helm4.run(command, *place, kubeconfig=node_cluster.kubeconfig, timeout=900)

    def up(values: Json) -> Callable[..., str]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({"watchNamespaces": [namespace], **values}))
        options = ["--values", str(file), "--take-ownership", "--wait", "--timeout", "300s"]
        # the CRD is every release's: the first installation makes it, the next one takes it over
        with locked(node_cluster.folder / ".install.lock"):
            run("install", str(CHART), *options)
        return run

    yield up
    run("uninstall", "--ignore-not-found", "--wait")


def denied(cluster: Cluster, namespace: str) -> list[str]:
    """Return what accounts of a namespace asked the API server for without a right to it."""
    if cluster.audit_log is None:
        return []
    lines = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
    mine = [x for x in lines if x["user"]["username"].startswith(f"{ACCOUNTS}{namespace}:")]
    assert mine, "the audit log must hold the operator's requests"
    return [f"{x['verb']} {x['requestURI']}" for x in mine if x["responseStatus"]["code"] == 403]


def test_it_is_installed_and_tested(
    install: Callable[[Json], Callable[..., str]], node_cluster: Cluster, namespace: str
) -> None:
    said = install({})("test", "--logs", "--timeout", "180s")
    assert "ready replicas: 2" in said
    assert "an invalid evolution: rejected" in said
    assert "no evolution was run" in said
    assert denied(node_cluster, namespace) == []


def test_a_tiny_evolution_runs(
    install: Callable[[Json], Callable[..., str]], node_cluster: Cluster, namespace: str
) -> None:
    s3 = node_cluster.s3
    if s3 is None:
        pytest.skip("this cluster brings no S3 server")
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
        run = install({"test": {"storage": storage, "podTemplate": pod, "timeoutSeconds": 600}})
        try:
            said = run("test", "--logs", "--timeout", "800s")
        except Refused as error:
            custom = api.CustomObjectsApi(connection)
            place = ("selfemo.dev", "v1alpha1", namespace, "emotionevolutions")
            found = custom.list_namespaced_custom_object(*place)["items"]
            pytest.fail(f"{error}\n{json.dumps([e.get('status') for e in found], indent=1)}")
        finally:
            for claim in claims:
                if claim["kind"] == "PersistentVolume":
                    core.delete_persistent_volume(claim["metadata"]["name"])
    assert "a tiny evolution: MaxGenerationsReached" in said
    assert denied(node_cluster, namespace) == []
