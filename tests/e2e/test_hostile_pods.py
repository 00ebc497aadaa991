"""Resources that try to get more than a restricted pod, where the namespace forbids nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.e2e.conftest import Json, Kubectl, owned
from tests.integration.chart.restricted import violations
from tests.integration.operator.api import wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("pods-2"),
]

ENFORCED = "pod-security.kubernetes.io/enforce"
ROOT = {"runAsUser": 0, "runAsNonRoot": False}


def init(**fields: Any) -> Json:
    return {"initContainers": [{"name": "setup", "image": "localhost/none:0", **fields}]}


def volume(**source: Any) -> Json:
    return {"volumes": [{"name": "root", **source}]}


#: Templates that are refused, by the name of the evolution.
REFUSED: dict[str, Json] = {
    "host-path": volume(hostPath={"path": "/"}),
    "null-beside": volume(emptyDir=None, hostPath={"path": "/", "type": None}),
    "git-repo": volume(gitRepo={"repository": "https://example.org/r.git"}),
    "inline-csi": volume(csi={"driver": "inline.example.org"}),
    "privileged": init(securityContext={"privileged": True, "runAsUser": None}),
    "root": {"securityContext": ROOT},
    "host-port": init(restartPolicy="Always", ports=[{"containerPort": 80, "hostPort": 80}]),
    "capabilities": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"], "drop": None}}},
}
#: Templates that change nothing about the restrictions.
WITHOUT_EFFECT: dict[str, Json] = {
    "nulls": {
        "securityContext": {
            "runAsNonRoot": None,
            "seccompProfile": {"type": None},
            "allowPrivilegeEscalation": None,
            "capabilities": {"drop": None},
            "privileged": None,
        }
    },
    "empty-maps": {"securityContext": {"capabilities": {}, "seccompProfile": {}}},
}


class PodRecorder(threading.Thread):
    """Records every pod of an evolution in a namespace, however short it lives."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        super().__init__(daemon=True)
        self._kube = kube
        self._path = names.core_path(namespace, "pods")
        self._stop_request = threading.Event()
        self.pods: dict[str, Json] = {}

    def run(self) -> None:
        version = "0"
        while not self._stop_request.is_set():
            query = {
                "labelSelector": names.JOB_SELECTOR,
                "resourceVersion": version,
                "timeoutSeconds": "5",
            }
            try:
                for event in self._kube.watch(self._path, query, 30.0):
                    item = event["object"]
                    version = item["metadata"].get("resourceVersion", "0")
                    if item.get("kind") == "Pod":
                        self.pods[item["metadata"]["name"]] = item
            except ApiError:
                version = "0"

    def stop(self) -> None:
        self._stop_request.set()
        self.join(40)

    def of(self, evolution: str) -> list[Json]:
        pods = [*self.pods.values()]
        return [p for p in pods if p["metadata"]["labels"][names.LABEL_EVOLUTION] == evolution]

    def has_started(self, evolution: str) -> bool:
        containers = [
            c for p in self.of(evolution) for c in p["status"].get("containerStatuses", [])
        ]
        return any("waiting" not in container["state"] for container in containers)


@pytest.fixture
def recorder(admin: KubeClient, namespace: str) -> Iterator[PodRecorder]:
    """A recorder, in a namespace where Pod Security forbids nothing."""
    label = {"metadata": {"labels": {ENFORCED: "privileged"}}}
    admin.patch(f"/api/v1/namespaces/{namespace}", label)
    recorder = PodRecorder(admin, namespace)
    recorder.start()
    yield recorder
    recorder.stop()


def test_ten_hostile_resources_start_no_pod_beyond_the_restricted_standard(
    install: Callable[..., Any],
    evolution: Callable[..., Json],
    kubectl: Kubectl,
    admin: KubeClient,
    namespace: str,
    recorder: PodRecorder,
) -> None:
    """While they run, when they are edited, and when they are deleted with their data."""
    install({})
    path = names.evolutions_path(namespace)
    for name, template in {**REFUSED, **WITHOUT_EFFECT}.items():
        document = evolution(stopping={"maxGenerations": 1})
        document["metadata"]["name"] = name
        document["spec"]["storage"]["whenDeleted"] = "Delete"
        document["spec"]["podTemplate"].append({"template": template})
        # not with `kubectl apply`, which removes nulls
        admin.create(path, document)

    def stalled(name: str) -> bool:
        status = admin.get(names.evolution_path((namespace, name))).get("status", {})
        messages = [c["message"] for c in status.get("conditions", []) if c["type"] == "Stalled"]
        return any("is beyond the restricted Pod Security standard" in m for m in messages)

    wait_for(lambda: all(map(stalled, REFUSED)), "all to be refused")
    wait_for(lambda: all(map(recorder.has_started, WITHOUT_EFFECT)), "a pod of each", 300)
    purge_jobs = {j["metadata"]["labels"][names.LABEL_EVOLUTION] for j in jobs(admin, namespace)}
    assert purge_jobs == WITHOUT_EFFECT.keys(), "a refused evolution has no purge Job"
    forbidden = kubectl._run(
        *("label", "namespace", namespace, "--overwrite", "--dry-run=server"),
        f"{ENFORCED}=restricted",
    )
    assert forbidden.returncode == 0, forbidden.stderr
    assert "violate" not in forbidden.stderr, "the API server's own verdict on these pods"
    # the last edit of the one is hostile, and nothing comes between it and the deletion
    edited = [{"template": REFUSED["host-path"]}]
    admin.patch(names.evolution_path((namespace, "nulls")), {"spec": {"podTemplate": edited}})
    kubectl("delete", "emo", "--all")
    wait_for(lambda: owned(admin, namespace) == [], "all objects to be deleted", seconds=300)
    recorder.stop()
    for pod in recorder.pods.values():
        assert list(violations(pod["spec"])) == [], pod["metadata"]["name"]
    started = {name: components(recorder.of(name)) for name in {**REFUSED, **WITHOUT_EFFECT}}
    assert not any(started[name] for name in REFUSED), started
    assert names.PURGE not in started["nulls"], started
    assert names.PURGE in started["empty-maps"], started


def components(pods: list[Json]) -> set[str]:
    return {pod["metadata"]["labels"][names.LABEL_COMPONENT] for pod in pods}


def jobs(kube: KubeClient, namespace: str) -> list[Json]:
    """Return the purge Jobs of a namespace."""
    selector = f"{names.JOB_SELECTOR},{names.LABEL_COMPONENT}={names.PURGE}"
    items: list[Json] = kube.get(names.jobs_path(namespace), {"labelSelector": selector})["items"]
    return items
