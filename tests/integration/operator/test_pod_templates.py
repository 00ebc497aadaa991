"""Pods with every field of `podTemplate`, as a real API server sees them. Nothing is created."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from selfemo_api.schema.crd import structural
from selfemo_api.spec import PodTemplate
from selfemo_api.stages import Stage
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest
from selfemo_operator.controller.objects.pod_gate import PodRejected
from selfemo_operator.controller.objects.settings import JobSettings
from tests.unit.operator.controller.kube_objects import action_of, evolution_of

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
#: The server checks everything, rejects unknown fields, and stores nothing.
DRY_RUN = "?dryRun=All&fieldValidation=Strict"
SELECTOR = {"matchLabels": {"app.kubernetes.io/name": "selfemo"}}
#: Fields that name objects which must exist when a pod is created.
NAMED = ("serviceAccountName", "priorityClassName", "runtimeClassName")
EVERY_FIELD: Json = {
    "image": "registry.example.org/jobs:rocm",
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry.keys"}],
    "labels": {"example.org/team": "emotion"},
    "annotations": {"example.org/note": "text"},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "amd.com/gpu", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}
                ]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": SELECTOR,
        }
    ],
    "priorityClassName": "high.priority",
    "schedulerName": "volcano",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "stages.team",
    "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["s3.internal"]}],
    "dnsConfig": {"nameservers": ["192.0.2.53"], "options": [{"name": "ndots", "value": "1"}]},
    "terminationGracePeriodSeconds": 600,
    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
    "initContainers": [
        {
            "name": "fetch",
            "image": "registry.example.org/fetch:1",
            "envFrom": [{"secretRef": {"name": "mirror.keys"}}],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        },
        {
            "name": "proxy",
            "image": "registry.example.org/proxy:1",
            "restartPolicy": "Always",
            "ports": [{"containerPort": 3128}],
            "securityContext": {"readOnlyRootFilesystem": False},
        },
    ],
    "volumes": [
        {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "ca", "configMap": {"name": "ca"}},
    ],
    "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "env": [{"name": "HTTPS_PROXY", "value": "http://localhost:3128"}],
    "envFrom": [{"secretRef": {"name": "team.keys"}}, {"configMapRef": {"name": "settings"}}],
    "resources": {
        "requests": {"cpu": "4"},
        "limits": {"memory": "8Gi"},
        "claims": [{"name": "gpu"}],
    },
    "securityContext": {
        "fsGroupChangePolicy": "OnRootMismatch",
        "runAsUser": None,
        "capabilities": {},
        "seccompProfile": None,
    },
}


def jobs_of(template: Json, settings: JobSettings, **spec: Any) -> list[Json]:
    """Return the Job of each stage, and the purge Job, with a template for all of them."""
    evolution = evolution_of(podTemplate=[{"template": template}], **spec)
    action = action_of(evolution)
    jobs = [purge_manifest(evolution, settings)]
    for stage in Stage:
        config = action.config.model_copy(update={"stage": stage})
        jobs.append(job_manifest(evolution, type(action)(stage.slug, 1, config), settings))
    return jobs


def dry_run_pod(kube: KubeClient, namespace: str, job: Json) -> None:
    """Let the server admit or reject a pod of a Job, without the objects that it names."""
    template = copy.deepcopy(job["spec"]["template"])
    for name in NAMED:
        template["spec"].pop(name, None)
    metadata = {"name": "pod", "namespace": namespace, **template["metadata"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kube.create(names.core_path(namespace, "pods") + DRY_RUN, body)


def is_part(part: Any, whole: Any) -> bool:
    """Return whether the server kept everything of a value; it adds defaults."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(is_part, part, whole))
    return bool(part == whole)


def test_every_field_reaches_the_pods_of_all_jobs(kube: KubeClient, namespace: str) -> None:
    assert EVERY_FIELD.keys() == structural(PodTemplate)["properties"].keys()
    settings = JobSettings(image="i")
    for job in jobs_of(EVERY_FIELD, settings, resources={"accelerator": ""}):
        job["metadata"] |= {"namespace": namespace}
        kept = kube.create(names.jobs_path(namespace) + DRY_RUN, job)
        assert is_part(job["spec"]["template"]["spec"], kept["spec"]["template"]["spec"])


@pytest.mark.parametrize("user", [0, 65532])
@pytest.mark.parametrize("accelerator", ["nvidia.com/mig-1g.10gb", "amd.com/gpu"])
def test_pods_are_admitted_by_the_restricted_standard(
    kube: KubeClient, namespace: str, user: int, accelerator: str
) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
    settings = JobSettings(image="i", run_as_user=user)
    for template in ({}, EVERY_FIELD):
        for job in jobs_of(template, settings, resources={"accelerator": accelerator}):
            dry_run_pod(kube, namespace, job)
    loose = {"initContainers": [{"name": "i", "image": "i", "securityContext": {"runAsUser": 0}}]}
    evolution = evolution_of(podTemplate=[{"template": loose}])
    with pytest.raises(PodRejected):
        purge_manifest(evolution, settings)
    allowed = JobSettings(image="i", run_as_user=user, host_access=True)
    with pytest.raises(ApiError, match="violates PodSecurity"):
        dry_run_pod(kube, namespace, purge_manifest(evolution, allowed))


def evolution(secret: str, entries: list[Json]) -> Json:
    """Return a resource with what every resource needs, a Secret and some templates."""
    sources = [
        {"name": use.lower(), "uri": "file:///demo.jsonl", "use": use}
        for use in ("SelfPlay", "Evaluation")
    ]
    return {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "demo"},
        "spec": {
            "model": {"uri": "file:///model"},
            "dataset": {"labels": ["joy", "anger"], "sources": sources},
            "storage": {"uri": "s3://bucket/runs", "credentialsSecretRef": {"name": secret}},
            "podTemplate": entries,
        },
    }


def test_the_crd_keeps_every_field(kube: KubeClient, namespace: str) -> None:
    """Maps of a template are passed on unread, with their nulls."""
    entries: list[Json] = [
        {"template": EVERY_FIELD},
        {"stages": list(Stage), "template": {"image": "i"}},
    ]
    path = names.evolutions_path(namespace) + DRY_RUN
    kept = kube.create(path, evolution("minio.creds", entries))
    assert kept["spec"]["podTemplate"] == entries
    with pytest.raises(ApiError, match=r"credentialsSecretRef\.name"):
        kube.create(path, evolution("minio..creds", entries))
    with pytest.raises(ApiError, match=r"podTemplate\[0\]\.template\.hostNetwork"):
        kube.create(path, evolution("minio.creds", [{"template": {"hostNetwork": True}}]))
