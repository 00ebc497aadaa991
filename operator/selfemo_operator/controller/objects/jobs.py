"""The objects that the operator creates: stage Jobs and the Service of training nodes. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from selfemo_api.api_model import API_VERSION, KIND, ApiModel
from selfemo_api.contract import (
    ENV_METRICS_PORT,
    ENV_RENDEZVOUS,
    ENV_WORK,
    PURGE_MODULE,
    ExitCode,
    PurgeConfig,
    StageConfig,
)
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec, PodTemplates, StorageSpec
from selfemo_api.stage_resources import gpus_per_pod, pods_of
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.pod_template import merged, templates_of
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.planner.types import CreateJob

Json = dict[str, Any]

CONFIG_FOLDER = "/etc/selfemo"
#: Where the nodes of a training meet; torch's own default port.
RENDEZVOUS_PORT = 29400
#: Nobody: the same number as in the images.
USER = 65532
#: A training step and a checkpoint of a large model.
GRACE_SECONDS = 120
#: Where a pod may write, told to those who write there; and quiet.
_PLACES = {
    ENV_WORK: "/work",
    "HOME": "/cache/home",
    "XDG_CACHE_HOME": "/cache",
    "HF_HOME": "/cache/huggingface",
    "VLLM_CACHE_ROOT": "/cache/vllm",
    "TRITON_CACHE_DIR": "/cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
    "VLLM_NO_USAGE_STATS": "1",
    "TQDM_DISABLE": "1",  # the log is JSON lines
}
#: The Job's own bound comes after the planner's: it holds while no operator runs.
DEADLINE_SLACK = 60


def needs_service(config: StageConfig) -> bool:
    """Return whether a stage's pods must find each other."""
    return config.stage is Stage.TRAIN and config.spec.training.nodes > 1


def job_manifest(evolution: EmotionEvolution, action: CreateJob, settings: JobSettings) -> Json:
    """Return a stage's Job.

    What the stage does follows from the spec pinned for the generation (in ``action.config``);
    where it runs (`podTemplate`, `queue`, `deadlines`) from the spec as it is now.
    """
    config = action.config
    labels = names.stage_labels(evolution, config.stage, action.attempt)
    pods = pods_of(config.spec, config.stage)
    template = pod_template(evolution, action, labels, settings)
    spec: Json = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": 0,  # the planner tries again, under a new name
        "podReplacementPolicy": "Failed",  # never two pods of one index
        "podFailurePolicy": {"rules": _failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": template,
    }
    active = evolution.spec.deadlines.stage_active_seconds
    if active is not None:
        spec["activeDeadlineSeconds"] = active + DEADLINE_SLACK
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": action.name,
            "namespace": evolution.metadata.namespace,
            "labels": {**labels, **_queue_labels(evolution.spec)},
            "annotations": {names.ANNOTATION_TEMPLATE: template_hash(evolution, config.stage)},
            "ownerReferences": [owner(evolution)],
        },
        "spec": spec,
    }


def pod_template(
    evolution: EmotionEvolution, action: CreateJob, labels: dict[str, str], settings: JobSettings
) -> Json:
    """Return a stage's pod, with `spec.podTemplate` merged in."""
    config = action.config
    module, gpus = config.stage.module, gpus_per_pod(config.spec, config.stage)
    container = {
        **_container(module, _environment(evolution, action, settings), gpus, settings),
        **_ports(settings),
    }
    pod = _pod(config, labels, container, settings)
    if needs_service(config):
        pod["spec"]["subdomain"] = names.nodes_service(evolution.metadata.name)
    return merged(pod, evolution.spec.pod_template, config.stage)


def purge_manifest(evolution: EmotionEvolution, settings: JobSettings) -> Json:
    """Return the Job that removes a run's data once its evolution is gone.

    It is suspended, and has no owner: it must outlive the evolution. What places its pod is
    `podTemplate.shared`.
    """
    metadata, spec = evolution.metadata, evolution.spec
    config = PurgeConfig(run=evolution.run, storage=spec.storage)
    labels = names.purge_labels(evolution)
    container = _container(PURGE_MODULE, _plain(_PLACES) + _credentials(spec.storage), 0, settings)
    shared = PodTemplates(shared=spec.pod_template.shared)
    pod = merged(_pod(config, labels, container, settings), shared, Stage.EVALUATE)
    job: Json = {
        "suspend": True,
        "podFailurePolicy": {"rules": _failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.purge_name(metadata.name, metadata.uid),
            "namespace": metadata.namespace,
            "labels": labels,
            "annotations": {names.ANNOTATION_TEMPLATE: _hash(job)},
        },
        "spec": job,
    }


def _pod(config: ApiModel, labels: dict[str, str], container: Json, settings: JobSettings) -> Json:
    """Return a pod that meets the restricted standard, with its configuration as an annotation."""
    text = json.dumps(config.to_json(), separators=(",", ":"), ensure_ascii=False)
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(),
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {
        "metadata": {"labels": labels, "annotations": {names.ANNOTATION_CONFIG: text}},
        "spec": spec,
    }


def service_manifest(evolution: EmotionEvolution) -> Json:
    """Return the headless Service under which an evolution's training pods have names."""
    metadata = evolution.metadata
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.nodes_service(metadata.name),
            "namespace": metadata.namespace,
            "labels": {
                names.LABEL_NAME: "selfemo",
                names.LABEL_MANAGED_BY: "selfemo",
                names.LABEL_EVOLUTION: metadata.name,
            },
            "ownerReferences": [owner(evolution)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # they meet before they are ready
            "selector": {
                names.LABEL_UID: metadata.uid,
                names.LABEL_COMPONENT: Stage.TRAIN.slug,
            },
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def owner(evolution: EmotionEvolution) -> Json:
    """Return the owner reference by which the garbage collector deletes what is left."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": evolution.metadata.name,
        "uid": evolution.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(evolution: EmotionEvolution, stage: Stage) -> str:
    """Return the hash of what places a stage's pods: a Job that has not started follows an edit."""
    said = {
        "podTemplate": [t.to_json() for _, t in templates_of(evolution.spec.pod_template, stage)],
        "queue": evolution.spec.queue.to_json() if evolution.spec.queue else None,
        "stage": stage.value,
    }
    return _hash(said)


def _hash(said: Json) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _container(module: str, env: list[Json], gpus: int, settings: JobSettings) -> Json:
    return {
        "name": names.CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", module, "--config", f"{CONFIG_FOLDER}/config.json"],
        "env": env,
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "work", "mountPath": "/work"},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def _ports(settings: JobSettings) -> Json:
    """Return the port by whose name the chart's PodMonitor finds stage pods."""
    if not settings.metrics_port:
        return {}
    return {"ports": [{"name": "metrics", "containerPort": settings.metrics_port}]}


def _volumes() -> list[Json]:
    """Return the pod's volumes. A template may replace `work` and `cache`, e.g. by a claim."""
    field = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_CONFIG}']"}
    return [
        {
            "name": "config",
            "downwardAPI": {"items": [{"path": "config.json", "fieldRef": field}]},
        },
        {"name": "work", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # NCCL and vLLM's workers share memory; Docker's default of 64 MiB is too little
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]


def _environment(
    evolution: EmotionEvolution, action: CreateJob, settings: JobSettings
) -> list[Json]:
    config = action.config
    plain = dict(_PLACES)
    if settings.metrics_port:
        plain[ENV_METRICS_PORT] = str(settings.metrics_port)
    if needs_service(config):
        service = names.nodes_service(evolution.metadata.name)
        first = f"{action.name}-0.{service}.{evolution.metadata.namespace}"
        plain[ENV_RENDEZVOUS] = f"{first}.svc:{RENDEZVOUS_PORT}"
    return _plain(plain) + _credentials(config.spec.storage)


def _plain(values: dict[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _credentials(storage: StorageSpec) -> list[Json]:
    """Return references to the keys: the kubelet reads the Secret, the operator never does."""
    if storage.credentials_secret_ref is None:
        return []
    secret = storage.credentials_secret_ref.name
    keys = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": optional}},
        }
        for key, optional in keys.items()
    ]


def _queue_labels(spec: EvolutionSpec) -> dict[str, str]:
    if spec.queue is None:
        return {}
    labels = {names.LABEL_QUEUE: spec.queue.name}
    if spec.queue.priority_class is not None:
        labels[names.LABEL_QUEUE_PRIORITY] = spec.queue.priority_class
    return labels


def _failure_rules() -> list[Json]:
    """Return what a pod's failure means to its Job.

    A pod that was preempted or drained is made again at once. Bad input ends the Job: no other try
    can help.
    """
    return [
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": names.CONTAINER,
                "operator": "In",
                "values": [int(ExitCode.BAD_INPUT)],
            },
        },
    ]
