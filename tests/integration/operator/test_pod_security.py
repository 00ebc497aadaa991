"""The gate of all pods, held against the Pod Security admission of a real API server.

Nothing is created: the API server only answers whether it would admit a pod.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfemo_api.stages import Stage
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest
from selfemo_operator.controller.objects.pod_gate import PodRejected, pod_refusal
from selfemo_operator.controller.objects.settings import JobSettings
from tests.unit.operator.controller.kube_objects import action_of, evolution_of

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
LOOSE = JobSettings(image="i", host_access=True)
STRICT = JobSettings(image="i")

# Templates ---------------------------------------------------------------------------------------

#: Sources of volumes, each with a value that the API server accepts.
VOLUMES: dict[str, Json] = {
    "configMap": {"name": "c"},
    "downwardAPI": {"items": []},
    "emptyDir": {},
    "ephemeral": {
        "volumeClaimTemplate": {
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
        }
    },
    "persistentVolumeClaim": {"claimName": "c"},
    "projected": {"sources": []},
    "secret": {"secretName": "s"},
    "image": {"reference": "registry.example.org/data:1"},
    "awsElasticBlockStore": {"volumeID": "v"},
    "azureDisk": {"diskName": "d", "diskURI": "/subscriptions/s"},
    "azureFile": {"secretName": "s", "shareName": "n"},
    "cephfs": {"monitors": ["m"]},
    "cinder": {"volumeID": "v"},
    "csi": {"driver": "inline.example.org"},
    "fc": {"targetWWNs": ["w"], "lun": 1},
    "flexVolume": {"driver": "example.org/flex"},
    "flocker": {"datasetName": "d"},
    "gcePersistentDisk": {"pdName": "p"},
    "gitRepo": {"repository": "https://example.org/r.git"},
    "glusterfs": {"endpoints": "e", "path": "p"},
    "hostPath": {"path": "/"},
    "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:t", "lun": 0},
    "nfs": {"server": "s", "path": "/"},
    "photonPersistentDisk": {"pdID": "p"},
    "portworxVolume": {"volumeID": "v"},
    "quobyte": {"registry": "r:1", "volume": "v"},
    "rbd": {"monitors": ["m"], "image": "i"},
    "scaleIO": {"gateway": "g", "system": "s", "volumeName": "v", "secretRef": {"name": "s"}},
    "storageos": {"volumeName": "v"},
    "vsphereVolume": {"volumePath": "p"},
    "notYetInvented": {"path": "/"},
}
#: Settings of a security context, restricted and loose, of the right type and not.
SETTINGS: dict[str, list[Any]] = {
    "runAsUser": [0, 1000, 65532],
    "runAsGroup": [0, 1000],
    "runAsNonRoot": [True, False],
    "privileged": [True, False],
    "allowPrivilegeEscalation": [True, False],
    "readOnlyRootFilesystem": [True, False],
    "procMount": ["Default", "Unmasked"],
    "capabilities": [
        {},
        {"drop": ["ALL"]},
        {"drop": ["NET_RAW"], "add": None},
        {"drop": None},
        {"add": ["NET_BIND_SERVICE"]},
        {"add": ["SYS_ADMIN"], "drop": ["ALL"]},
        {"add": []},
    ],
    "seccompProfile": [
        {},
        {"type": None},
        {"type": "RuntimeDefault"},
        {"type": "Unconfined"},
        {"type": "Localhost", "localhostProfile": "p.json"},
    ],
    "appArmorProfile": [{"type": "RuntimeDefault"}, {"type": "Unconfined"}],
    "seLinuxOptions": [
        {"level": "s0:c1"},
        {"type": "spc_t"},
        {"type": "container_t"},
        {"user": "u"},
    ],
    "sysctls": [
        [],
        [{"name": "kernel.shm_rmid_forced", "value": "1"}],
        [{"name": "kernel.msgmax", "value": "1"}],
    ],
    "windowsOptions": [{}, {"hostProcess": True}, {"runAsUserName": "ContainerUser"}],
    "fsGroup": [0, 1000],
    "supplementalGroups": [[0], [1000]],
    "hostUsers": [False],
    "RunAsUser": [0],
    "Privileged": [True],
    "notYetInvented": [True, {"deep": [None, {"er": None}]}],
}


def maybe_null(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy, strategy)


security_contexts = st.lists(st.sampled_from(sorted(SETTINGS)), max_size=3, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries(
        {name: maybe_null(st.sampled_from(SETTINGS[name])) for name in chosen}
    )
)
volumes = st.lists(
    st.tuples(st.sampled_from([*VOLUMES, "hostPath"]), st.sampled_from([None, *VOLUMES])).map(
        lambda pair: {
            "name": f"v-{pair[0].lower()}",
            **({pair[1]: None} if pair[1] else {}),
            pair[0]: VOLUMES[pair[0]],
        }
    ),
    max_size=2,
    unique_by=lambda volume: volume["name"],
)
handlers = st.sampled_from(
    [
        {"httpGet": {"port": 80}},
        {"httpGet": {"port": 80, "host": ""}},
        {"httpGet": {"port": 80, "host": "10.0.0.1"}},
        {"tcpSocket": {"port": 80, "host": "169.254.169.254"}},
        {"exec": {"command": ["true"]}, "httpGet": None},
    ]
)
init_containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["one", "two"]), "image": st.just("i")},
        optional={
            "securityContext": maybe_null(security_contexts),
            "ports": st.sampled_from(
                [None, [{"containerPort": 80}], [{"containerPort": 80, "hostPort": 80}]]
            ),
            "restartPolicy": st.just("Always"),
            "livenessProbe": maybe_null(handlers),
            "lifecycle": maybe_null(handlers.map(lambda handler: {"preStop": handler})),
            "notYetInvented": st.just({"privileged": True}),
        },
    ),
    max_size=2,
    unique_by=lambda container: container["name"],
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "securityContext": maybe_null(security_contexts),
        "volumes": maybe_null(volumes),
        "initContainers": maybe_null(init_containers),
        "annotations": st.sampled_from(
            [
                None,
                {"example.org/note": "text"},
                {"container.apparmor.security.beta.kubernetes.io/stage": "unconfined"},
                {"container.apparmor.security.beta.kubernetes.io/stage": "runtime/default"},
            ]
        ),
    },
)
entries = st.lists(
    st.fixed_dictionaries({"template": templates}, optional={"stages": st.just(["Train"])}),
    min_size=1,
    max_size=3,
)

# The two judges ----------------------------------------------------------------------------------


def jobs_of(pod_template: list[Json], job_settings: JobSettings) -> list[Json]:
    """Return the purge Job and the Job of the training. Raises PodRejected."""
    evolution = evolution_of(podTemplate=pod_template)
    action = action_of(evolution)
    train = action.config.model_copy(update={"stage": Stage.TRAIN})
    return [
        purge_manifest(evolution, job_settings),
        job_manifest(evolution, type(action)("n", 1, train), job_settings),
    ]


def is_accepted(pod_template: list[Json]) -> bool:
    try:
        jobs_of(pod_template, STRICT)
    except PodRejected:
        return False
    return True


def answer(kube: KubeClient, namespace: str, job: Json) -> str:
    """Return what the API server would do with a pod of a Job: admit, forbid, or reject it."""
    template = job["spec"]["template"]
    metadata = {"name": "pod", "namespace": namespace, **template["metadata"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    try:
        kube.create(names.core_path(namespace, "pods") + "?dryRun=All", body)
    except ApiError as error:
        if error.status == 403:
            assert "violates PodSecurity" in error.message
            return "forbidden"
        assert error.status in (400, 422), error
        return "invalid"
    return "admitted"


@pytest.fixture
def restricted(kube: KubeClient, namespace: str) -> str:
    """The test's namespace, in which the API server enforces the restricted standard."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
    return namespace


def agreement(kube: KubeClient, namespace: str, examples: int) -> Counter[tuple[bool, str]]:
    """Compare both judges; return how often each pair of answers occurred."""
    counts: Counter[tuple[bool, str]] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(entries)
    def compare(pod_template: list[Json]) -> None:
        accepted = is_accepted(pod_template)
        for job in jobs_of(pod_template, LOOSE):
            ours = pod_refusal(job["spec"]["template"], STRICT) == ""
            theirs = answer(kube, namespace, job)
            counts[ours, theirs] += 1
            assert not (ours and theirs == "forbidden"), "Pod Security forbids what ours accepts"
            assert not (accepted and not ours), "the gate lets through what its judge refuses"

    compare()
    return counts


def test_no_pod_is_accepted_that_pod_security_forbids(kube: KubeClient, restricted: str) -> None:
    counts = agreement(kube, restricted, 40)
    assert counts[True, "admitted"], counts
    assert counts[False, "forbidden"], counts


@pytest.mark.slow
def test_no_pod_of_many_is_accepted_that_pod_security_forbids(
    kube: KubeClient, restricted: str
) -> None:
    counts = agreement(kube, restricted, 2000)
    assert counts[True, "admitted"] > 100, counts
    assert counts[False, "forbidden"] > 100, counts


def test_the_judges_agree_about_each_source_of_volumes(kube: KubeClient, restricted: str) -> None:
    """The gate alone refuses inline CSI volumes, and what the API server does not know."""
    stricter = set()
    for source, value in VOLUMES.items():
        volume = {"name": "v", source: value}
        (purge, _) = jobs_of([{"template": {"volumes": [volume]}}], LOOSE)
        refused = pod_refusal(purge["spec"]["template"], STRICT) != ""
        theirs = answer(kube, restricted, purge)
        assert refused or theirs != "forbidden", source
        if refused and theirs == "admitted":
            stricter.add(source)
    assert stricter == {"csi", "notYetInvented"}


def test_nulls_and_empty_maps_undo_nothing(kube: KubeClient, restricted: str) -> None:
    """The API server keeps nulls in the maps of a template, since their schema is not known."""
    undone: Json = dict.fromkeys(SETTINGS)
    for context in (undone, {**undone, "capabilities": {}, "seccompProfile": {"type": None}}):
        init = {"name": "i", "image": "i", "securityContext": context}
        pod_template = [{"template": {"securityContext": context, "initContainers": [init]}}]
        for job in jobs_of(pod_template, STRICT):
            assert answer(kube, restricted, job) == "admitted"
