"""Runs the same chains under Argo Workflows' controller, whose binary is given.

A chain is a Workflow with one step for each stage. Its pods have the requests, the annotation with
the configuration, and the node selector of our stages. Argo Workflows creates pods and no Jobs, so
a stage ends here when its pod has succeeded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.bare_client import LONGEST, USER_THREADS
from benchmarks.control_plane import (
    AuditLog,
    by_kind,
    kubeconfig_of_measured,
    mebibytes,
    process_seconds,
)
from benchmarks.job_chains import STAGES, JobTimes, Load, latencies, percentiles
from tests.integration.operator.api import create_namespace
from tests.support.cluster import Cluster

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names

_GROUP, _VERSION = "argoproj.io", "v1alpha1"
#: The kinds that the controller watches, with their plurals and scopes.
_KINDS = {
    "Workflow": ("workflows", "Namespaced"),
    "WorkflowTemplate": ("workflowtemplates", "Namespaced"),
    "CronWorkflow": ("cronworkflows", "Namespaced"),
    "ClusterWorkflowTemplate": ("clusterworkflowtemplates", "Cluster"),
    "WorkflowTaskSet": ("workflowtasksets", "Namespaced"),
    "WorkflowTaskResult": ("workflowtaskresults", "Namespaced"),
    "WorkflowArtifactGCTask": ("workflowartifactgctasks", "Namespaced"),
    "WorkflowEventBinding": ("workfloweventbindings", "Namespaced"),
}
_WITH_STATUS = ("WorkflowTaskSet", "WorkflowArtifactGCTask")
_NODE_NAME = "workflows.argoproj.io/node-name"
#: With it a pod says itself that it has reported its outputs. No container of these pods runs, so
#: none can create the object that otherwise says so.
_REPORTED = {"workflows.argoproj.io/report-outputs-completed": "true"}
#: The controller's own probe.
_HEALTH = "http://127.0.0.1:6060/healthz"
#: Settings with which it is fastest on these loads: many workers, and no limit of its own on
#: requests. Without them it makes 20 requests in a second.
_OPTIONS = ("--workflow-workers=32", "--pod-cleanup-workers=8", "--qps=300", "--burst=600")
#: The size of the configuration that each of our pods has in an annotation.
_CONFIG_BYTES = 6000
Json = dict[str, Any]


class PodTimes(JobTimes):
    """When a watch first reported the pod of each step, and first reported that it succeeded."""

    def path(self, namespace: str) -> str:
        """Return the path of the pods of a namespace."""
        return names.core_path(namespace, "pods")

    def describe(self, item: Json) -> tuple[str, bool]:
        """Return the name of a pod's step, and whether the pod has succeeded."""
        step = item["metadata"].get("annotations", {}).get(_NODE_NAME, item["metadata"]["name"])
        name, _, rest = step.partition("[")
        return f"{name}-{rest.partition(']')[0]}", item["status"].get("phase") == "Succeeded"


def run_peer(cluster: Cluster, kube: KubeClient, load: Load, binary: Path) -> Json:
    """Run chains under the controller and return its figures, as those of the operator.

    Parameters
    ----------
    cluster
        The cluster.
    kube
        The client of its API server.
    load
        The number of chains, and when they begin.
    binary
        The controller.
    """
    _serve_crds(kube)
    namespace = create_namespace(kube, f"bench-peer-{load.count}-{int(time.time())}")
    settings = {"metricsConfig": "enabled: false\n", "telemetryConfig": "enabled: false\n"}
    metadata = {"name": "workflow-controller-configmap"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": settings}
    kube.create(names.core_path(namespace, "configmaps"), body)
    with tempfile.TemporaryDirectory() as folder:
        process = _start(cluster, namespace, binary, Path(folder))
        try:
            return _run(cluster, kube, load, namespace, process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _run(cluster: Cluster, kube: KubeClient, load: Load, namespace: str, pid: int) -> Json:
    times, stop = PodTimes(), threading.Event()
    threading.Thread(target=times.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(2)
    audit, cpu_before = AuditLog(cluster), process_seconds(pid)
    begin_times: dict[str, float] = {}
    start = time.monotonic()
    path = f"/apis/{_GROUP}/{_VERSION}/namespaces/{namespace}/workflows"

    def create(name: str) -> None:
        begin_times[name] = time.monotonic()
        kube.create(path, _workflow(name))

    with ThreadPoolExecutor(USER_THREADS) as pool:
        load.begin(create, pool)
    times.wait(load.count * STAGES, LONGEST)
    _wait_until_ended(kube, path, load.count)
    wall = time.monotonic() - start
    memory, cpu = mebibytes(pid), process_seconds(pid) - cpu_before
    time.sleep(3)  # for the last lines of the audit log
    stop.set()
    requests = by_kind(audit.requests())
    return {
        "wall": wall,
        **percentiles(latencies(times, begin_times, _steps_of)),
        "requests": {kind: count / load.count for kind, count in sorted(requests.items())},
        "memory": memory,
        "cpu": cpu,
    }


def _steps_of(name: str) -> list[str]:
    return [f"{name}-{number}" for number in range(STAGES)]


def _workflow(name: str) -> Json:
    step = {"name": "stage", "template": "stage"}
    labels = {names.LABEL_COMPONENT: "train", names.LABEL_GENERATION: "0"}
    return {
        "apiVersion": f"{_GROUP}/{_VERSION}",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": "chain",
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "templates": [
                {"name": "chain", "steps": [[step] for _ in range(STAGES)]},
                {
                    "name": "stage",
                    "metadata": {
                        "labels": labels,
                        "annotations": {**_REPORTED, "config": "x" * _CONFIG_BYTES},
                    },
                    "container": {
                        "image": "selfemo/jobs:test",
                        "command": ["python"],
                        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}},
                    },
                },
            ],
        },
    }


def _wait_until_ended(kube: KubeClient, path: str, count: int) -> None:
    for _ in range(600):
        items: list[Json] = []
        list_objects(items.append, kube, path, {})
        phases = [item.get("status", {}).get("phase") for item in items]
        if failed := [phase for phase in phases if phase in ("Failed", "Error")]:
            raise RuntimeError(f"{len(failed)} Workflows have failed")
        if phases.count("Succeeded") == count:
            return
        time.sleep(0.5)
    raise TimeoutError("not all Workflows have ended")


def _start(cluster: Cluster, namespace: str, binary: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the controller and wait until it is ready."""
    kubeconfig = kubeconfig_of_measured(cluster, folder)
    command = [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--namespace={namespace}",
        "--namespaced",
        f"--managed-namespace={namespace}",
        "--executor-image=argoexec",
        "--loglevel=warn",
        *_OPTIONS,
    ]
    environment = {**os.environ, "LEADER_ELECTION_DISABLE": "true"}
    log = folder / "controller.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(_HEALTH, timeout=2):
                return process
        except (URLError, OSError):
            time.sleep(0.5)
    process.kill()
    sys.exit(f"the peer controller did not become ready:\n{log.read_text()[-3000:]}")


def _serve_crds(kube: KubeClient) -> None:
    """Serve the kinds of Argo Workflows, without a schema."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind, (plural, scope) in _KINDS.items():
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version: Json = {
            "name": _VERSION,
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": schema},
        }
        if kind in _WITH_STATUS:
            version["subresources"] = {"status": {}}
        spec = {
            "group": _GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [version],
        }
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{_GROUP}"},
            "spec": spec,
        }
        try:
            kube.create(path, crd)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    for plural, _ in _KINDS.values():
        _wait_served(kube, f"/apis/{_GROUP}/{_VERSION}/{plural}")


def _wait_served(kube: KubeClient, path: str) -> None:
    for _ in range(300):
        try:
            kube.get(path)
        except ApiError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"{path} is not served")
