"""Problems on a real node: a missing image, an evicted pod, an outage of S3; and the rights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from selfemo_operator.controller.kube.client import KubeClient
from tests.e2e.conftest import Json, Kubectl, owned, s3_client, wait_status
from tests.integration.operator.api import wait_for
from tests.support.cluster import S3, Cluster

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("pods-2"),
]

FIRST = "small-g000-evaluate-1"
api: Any = client


@pytest.fixture
def short(install: Callable[..., Any], evolution: Callable[..., Json]) -> Json:
    """One generation of the example, under the installed chart."""
    install({})
    return evolution(stopping={"maxGenerations": 1}, failurePolicy={"backoffSeconds": 2})


def _messages(status: Json) -> str:
    return " ".join(c["message"] for c in status.get("conditions", []))


def _running_pod(kubectl: Kubectl, job: str, other_than: str = "", seconds: int = 300) -> str:
    """Wait until a pod of a Job runs; return its name."""
    selector = f"batch.kubernetes.io/job-name={job}"

    def running() -> str | None:
        listed = kubectl("get", "pods", "--selector", selector, "--output", "json")
        pods = [p for p in json.loads(listed)["items"] if p["status"]["phase"] == "Running"]
        return next((n for p in pods if (n := p["metadata"]["name"]) != other_than), None)

    name: str = wait_for(running, f"a pod of {job} to run", seconds)
    return name


def test_a_missing_image_is_reported_until_an_edit(short: Json, kubectl: Kubectl) -> None:
    place = short["spec"]["podTemplate"][0]["template"]
    image, place["image"] = place["image"], "localhost/none:0"
    kubectl.apply(short)
    status = wait_status(kubectl, lambda s: "none:0" in _messages(s), "the image in a condition")
    assert "ErrImage" in _messages(status) or "ImagePull" in _messages(status)
    place["image"] = image
    kubectl.apply(short)
    status = wait_status(kubectl, lambda s: s.get("history"), "generation 0 after the fix")
    assert status["failures"] == 0


def test_the_data_is_removed_if_the_spec_requires_it(
    short: Json, kubectl: Kubectl, node_cluster: Cluster, admin: KubeClient, namespace: str
) -> None:
    short["spec"]["storage"]["whenDeleted"] = "Delete"
    kubectl.apply(short)
    wait_status(kubectl, lambda s: s.get("history"), "generation 0")
    s3 = node_cluster.s3
    assert s3 is not None
    bucket, _, folder = short["spec"]["storage"]["uri"].removeprefix("s3://").partition("/")
    uid = kubectl.get("emo/small")["metadata"]["uid"]
    run = {"Bucket": bucket, "Prefix": f"{folder}/{namespace}/small-{uid[:8]}/"}
    assert s3_client(s3).list_objects_v2(**run)["KeyCount"] > 0
    kubectl("delete", "emo", "small")  # generation 1 has started: its pod has two minutes to end
    wait_for(lambda: owned(admin, namespace) == [], "all objects to be deleted", seconds=180)
    assert s3_client(s3).list_objects_v2(**run)["KeyCount"] == 0


def test_an_evicted_pod_is_created_again_and_does_not_count_as_failure(
    short: Json, kubectl: Kubectl, node_cluster: Cluster, namespace: str
) -> None:
    kubectl.apply(short)
    pod = _running_pod(kubectl, FIRST)
    # before its first log line a stage does not handle SIGTERM, and may finish in the grace period
    wait_for(lambda: kubectl("logs", pod), "its first log line")
    with node_cluster.client() as connection:  # as `kubectl drain` does
        eviction = {"metadata": {"name": pod, "namespace": namespace}}
        api.CoreV1Api(connection).create_namespaced_pod_eviction(pod, namespace, eviction)
    _running_pod(kubectl, FIRST, other_than=pod)
    status = wait_status(kubectl, lambda s: s.get("history"), "generation 0")
    assert status["history"][0]["outcome"] == "Baseline"
    assert status["failures"] == 0
    jobs = [j["metadata"]["name"] for j in kubectl.get("jobs")["items"]]
    assert f"{FIRST[:-1]}2" not in jobs, "the Job controller creates the pod again"


def test_an_outage_of_s3_of_a_minute(
    short: Json, kubectl: Kubectl, node_cluster: Cluster, other_s3: S3
) -> None:
    short["spec"]["storage"]["endpoint"] = other_s3.endpoint
    kubectl.apply(short)
    _running_pod(kubectl, FIRST)
    node_cluster.stop_other_s3()
    try:
        time.sleep(60)
    finally:
        node_cluster.start_other_s3()
    status = wait_status(kubectl, lambda s: s.get("completionTime"), "the end", 900)
    assert status["phase"] == "Succeeded", _messages(status)
    assert [g["generation"] for g in status["history"]] == [0, 1]


def test_the_operator_has_only_the_rights_that_it_needs(
    install: Callable[..., Any], kubectl: Kubectl, namespace: str
) -> None:
    install({})
    account = f"system:serviceaccount:{namespace}:selfemo"
    assert kubectl.can(account, "create", "jobs.batch")
    assert kubectl.can(account, "update", "emotionevolutions.selfemo.dev", "--subresource=status")
    assert kubectl.can(account, "list", "pods")
    assert not kubectl.can(account, "create", "jobs.batch", "--namespace=default")
    assert not kubectl.can(account, "list", "pods", "--namespace=kube-system")
    for verb in ("get", "list", "watch", "create", "delete"):
        assert not kubectl.can(account, verb, "secrets"), verb
    for kind in ("pods", "configmaps", "serviceaccounts", "roles.rbac.authorization.k8s.io"):
        assert not kubectl.can(account, "create", kind), kind
    for part in ("exec", "attach", "portforward"):
        for verb in ("get", "create"):
            assert not kubectl.can(account, verb, "pods", f"--subresource={part}"), part
    assert not kubectl.can(account, "get", "pods", "--subresource=log")
    assert not kubectl.can(account, "update", "emotionevolutions.selfemo.dev"), "only users may"
