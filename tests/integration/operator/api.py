"""Requests to an API server that tests and benchmarks of the operator use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from selfemo_api import dataset_labels
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names

ROOT = Path(__file__).resolve().parents[3]
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_NAMESPACES = "/api/v1/namespaces"
Json = dict[str, Any]


def write_kubeconfig(url: str, to: Path) -> Path:
    """Write a kubeconfig for a proxy that needs no credentials; return its path."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
    }
    to.write_text(yaml.safe_dump(config))
    return to


def wait_for(check: Callable[[], Any], what: str, seconds: float = 60.0, every: float = 0.1) -> Any:
    """Return the result of a check once it is true.

    Parameters
    ----------
    check
        The function that is called repeatedly.
    what
        What is waited for, for the error message.
    seconds
        The longest time to wait.
    every
        The seconds between two calls.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = check()
        if result:
            return result
        time.sleep(every)
    raise AssertionError(f"waited {seconds:g} s for {what}")


def serve_crd(kube: KubeClient) -> None:
    """Apply the CRD of the checkout, and wait until it is served."""
    crd = yaml.safe_load((ROOT / "crds" / "selfemo.dev_emotionevolutions.yaml").read_text())
    name = crd["metadata"]["name"]
    try:
        kube.create(_CRDS, crd)
    except ApiError as error:
        assert error.status == 409, error
        version = kube.get(f"{_CRDS}/{name}")["metadata"]["resourceVersion"]
        crd["metadata"]["resourceVersion"] = version
        kube.replace(f"{_CRDS}/{name}", crd)
    wait_for(lambda: _served(kube), "the CRD to be served")


def _served(kube: KubeClient) -> bool:
    try:
        kube.get(names.schema_path())
        kube.get(names.evolutions_path(None))
    except ApiError:
        return False
    return True


def create_namespace(kube: KubeClient, name: str) -> str:
    """Create a namespace, and wait until pods can be created in it."""
    kube.create(_NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = f"{_NAMESPACES}/{name}/serviceaccounts/default"
    wait_for(lambda: _exists(kube, account), "the default service account")
    return name


def delete_namespace(kube: KubeClient, name: str) -> None:
    """Delete a namespace and its objects in the background."""
    path = f"{_NAMESPACES}/{name}"
    kube.delete(path, kube.get(path)["metadata"]["uid"])


def namespaces(kube: KubeClient) -> list[str]:
    """Return the names of all namespaces."""
    return [item["metadata"]["name"] for item in kube.get(_NAMESPACES)["items"]]


def _exists(kube: KubeClient, path: str) -> bool:
    try:
        kube.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def document(name: str, **spec: Any) -> Json:
    """Return an evolution with a minimal spec that is valid without a GPU."""
    source = {"name": "demo", "uri": "file:///demo.jsonl", "format": "JSONL"}
    base: Json = {
        "model": {"uri": "file:///model"},
        "dataset": {
            "labels": list(dataset_labels.MELD),
            "sources": [
                {**source, "name": "train", "use": "SelfPlay"},
                {**source, "use": "Evaluation"},
            ],
        },
        "storage": {"uri": "s3://bucket/runs"},
        "recipe": "tests-v1",
        "resources": {"gpusPerNode": 0},
    }
    return {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }
