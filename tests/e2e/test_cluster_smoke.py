"""The test cluster itself: it must behave like a real one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes.dynamic
import pytest
import yaml
from kubernetes.dynamic.exceptions import UnprocessibleEntityError

from tests.support.cluster import Cluster, environment, settings

api: Any = kubernetes.client  # their types want objects where JSON does
dynamic: Any = kubernetes.dynamic

_CRD = Path(__file__).resolve().parents[2] / "crds" / "selfemo.dev_emotionevolutions.yaml"
_EXAMPLE = _CRD.parents[1] / "examples" / "demo.yaml"


def _until(check: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "the wait took too long"
        time.sleep(0.1)
    return result


def _apply_crd(client: Any) -> None:
    crds = dynamic.DynamicClient(client).resources.get(
        api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
    )
    crd = yaml.safe_load(_CRD.read_text())
    crds.server_side_apply(body=crd, name=crd["metadata"]["name"], field_manager="selfemo-test")

    def established() -> bool:
        conditions = crds.get(name=crd["metadata"]["name"]).to_dict()["status"]["conditions"]
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions or [])

    _until(established, 30)


@pytest.mark.cluster
def test_the_crd_is_established_and_rejects_an_invalid_field_by_its_name(
    control_plane: Cluster, make_namespace: Callable[..., str]
) -> None:
    namespace = make_namespace(control_plane)
    with control_plane.client() as client:
        _apply_crd(client)
        evolutions = dynamic.DynamicClient(client).resources.get(
            api_version="selfemo.dev/v1alpha1", kind="EmotionEvolution"
        )
        evolution = yaml.safe_load(_EXAMPLE.read_text())
        evolution["spec"].setdefault("selfPlay", {})["groupSize"] = 1
        with pytest.raises(UnprocessibleEntityError) as error:
            evolutions.create(body=evolution, namespace=namespace)
    causes = json.loads(error.value.body or "{}")["details"]["causes"]
    assert "spec.selfPlay.groupSize" in {cause["field"] for cause in causes}


@pytest.mark.cluster
def test_the_audit_log_has_each_write_once_with_its_user(
    control_plane: Cluster, make_namespace: Callable[..., str]
) -> None:
    if control_plane.audit_log is None:
        pytest.skip("this cluster has no audit log")
    namespace = make_namespace(control_plane)
    lines = map(json.loads, control_plane.audit_log.read_text().splitlines())
    writes = [
        (line["user"]["username"], line["verb"], line["responseStatus"]["code"])
        for line in lines
        if line["verb"] == "create" and line.get("objectRef", {}).get("name") == namespace
    ]
    assert writes == [("admin", "create", 201)]


@pytest.mark.cluster
def test_the_apiserver_can_be_paused_and_killed(fragile_control_plane: Cluster) -> None:
    cluster = fragile_control_plane
    if cluster.kind != "local":
        pytest.skip("only the API server of a local cluster can be stopped")
    with cluster.client() as client:
        core = api.CoreV1Api(client)
        core.list_namespace(_request_timeout=5)
        cluster.pause_apiserver()
        with pytest.raises(Exception, match="timed out"):
            core.list_namespace(_request_timeout=1)
        cluster.resume_apiserver()
        _until(lambda: core.list_namespace(_request_timeout=20), 20)
        cluster.stop_apiserver()
        with pytest.raises(Exception, match="refused"):
            core.list_namespace(_request_timeout=1)
        cluster.start_apiserver()
        assert core.list_namespace(_request_timeout=20).items


def _restricted(container: dict[str, Any]) -> dict[str, Any]:
    """Return a pod's spec that the restricted standard admits."""
    rights = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container["securityContext"] = {**rights, "readOnlyRootFilesystem": True}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }


def _run_job(client: Any, namespace: str, spec: dict[str, Any], completions: int) -> list[str]:
    """Run an Indexed Job with the name `pair`; return its termination messages by index."""
    job = {
        "completionMode": "Indexed",
        "completions": completions,
        "parallelism": completions,
        "backoffLimit": 0,
        "template": {"metadata": {"labels": {"run": "pair"}}, "spec": spec},
    }
    batch = api.BatchV1Api(client)
    core = api.CoreV1Api(client)
    batch.create_namespaced_job(namespace, {"metadata": {"name": "pair"}, "spec": job})

    def ended() -> bool:
        conditions = batch.read_namespaced_job_status("pair", namespace).status.conditions or []
        return any(c.type in {"Complete", "Failed"} and c.status == "True" for c in conditions)

    _until(ended, 120)
    pods = core.list_namespaced_pod(namespace, label_selector="run=pair").items
    by_index = {
        int(pod.metadata.labels["batch.kubernetes.io/job-completion-index"]): pod for pod in pods
    }
    messages = []
    for index in sorted(by_index):
        terminated = by_index[index].status.container_statuses[0].state.terminated
        messages.append(f"{terminated.exit_code} {terminated.message}")
    return messages


def _container(namespace: str, *command: str) -> dict[str, Any]:
    return {
        "name": "main",
        "image": settings.BASE_IMAGE,
        "imagePullPolicy": "Never",
        "command": list(command),
        "env": [{"name": "NAMESPACE", "value": namespace}],
    }


@pytest.mark.e2e
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("pods-2")
def test_two_pods_of_a_restricted_job_find_each_other_by_name(
    node_cluster: Cluster, make_namespace: Callable[..., str]
) -> None:
    namespace = make_namespace(node_cluster)
    script = """
    log=/dev/termination-log
    if [ "$JOB_COMPLETION_INDEX" = 0 ]; then
      echo -n "served as $(id -u)" > $log
      echo "hello from $(hostname)" | nc -l -p 8080
      exit
    fi
    try=0
    until nc -w 10 pair-0.pair.$NAMESPACE.svc 8080 > $log; do
      try=$((try + 1)); [ $try = 50 ] && exit 1; sleep 0.2
    done
    """
    service = {
        "metadata": {"name": "pair"},
        "spec": {
            "clusterIP": "None",
            "selector": {"run": "pair"},
            "publishNotReadyAddresses": True,
        },
    }
    pod = {**_restricted(_container(namespace, "/bin/sh", "-c", script)), "subdomain": "pair"}
    with node_cluster.client() as client:
        api.CoreV1Api(client).create_namespaced_service(namespace, service)
        messages = _run_job(client, namespace, pod, 2)
    assert messages == ["0 served as 65532", "0 hello from pair-0\n"]


@pytest.mark.e2e
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("pods-2")
def test_a_restricted_pod_runs_the_checkout_with_the_mounted_python(
    node_cluster: Cluster, make_namespace: Callable[..., str]
) -> None:
    """The pod imports the project, and reaches the API server and the S3 server."""
    if node_cluster.s3 is None:
        pytest.skip("the node of this cluster is not this machine")
    folder = node_cluster.make_environment()
    namespace = make_namespace(node_cluster)
    script = """
import socket, sys, urllib.request
import selfemo_api, kopf
api = socket.create_connection(("kubernetes.default", 443), timeout=10).getpeername()[0]
s3 = urllib.request.urlopen(sys.argv[1] + "/healthz", timeout=10).status
open("/dev/termination-log", "w").write(f"{selfemo_api.__file__} {api} {s3}")
"""
    python = environment.claimed_pod()
    command = (f"{environment.MOUNT}/bin/python", "-c", script, node_cluster.s3.endpoint)
    container = _container(namespace, *command)
    container["volumeMounts"] = python["volumeMounts"]
    pod = {**_restricted(container), "volumes": python["volumes"]}
    with node_cluster.client() as client, contextlib.ExitStack() as cleanup:
        core = api.CoreV1Api(client)
        for manifest in environment.claims(folder, namespace):
            if manifest["kind"] == "PersistentVolume":
                core.create_persistent_volume(manifest)
                cleanup.callback(core.delete_persistent_volume, manifest["metadata"]["name"])
            else:
                core.create_namespaced_persistent_volume_claim(namespace, manifest)
        messages = _run_job(client, namespace, pod, 1)
    assert len(messages) == 1
    assert messages[0].startswith(f"0 {environment.MOUNT}/lib/python3.")
    assert messages[0].endswith(f"/selfemo_api/__init__.py {settings.API_SERVICE} 200")
