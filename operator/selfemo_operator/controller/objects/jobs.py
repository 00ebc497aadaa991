"""Builds the objects that the operator creates: Jobs, and the Service of training nodes. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from selfemo_api.api_model import API_VERSION, KIND, ApiModel
from selfemo_api.contract import (
    ENV_GRACE,
    ENV_JOB_UID,
    ENV_METRICS_PORT,
    ENV_RENDEZVOUS,
    PURGE_MODULE,
    ExitCode,
    PurgeConfig,
    StageConfig,
)
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec, PodTemplateEntry
from selfemo_api.stage_resources import gpus_per_pod, pods_of
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.base_pod import (
    ENVIRONMENT,
    GRACE_SECONDS,
    credentials,
    device_limits,
    restricted_container,
    restricted_pod,
    variables,
)
from selfemo_operator.controller.objects.deadlines import (
    PURGE_SECONDS,
    active_deadline,
    deadline_text,
)
from selfemo_operator.controller.objects.pod_gate import gated_pod
from selfemo_operator.controller.objects.pod_template import templates_of
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.planner.types import CreateJob

Json = dict[str, Any]

CONFIG_FOLDER = "/etc/selfemo"
CONFIG_VOLUME = "config"
#: The variables that the operator sets for each Job.
JOB_VARIABLES = (ENV_GRACE, ENV_JOB_UID, ENV_METRICS_PORT, ENV_RENDEZVOUS)
#: The port of the rendezvous of the training nodes, torch's default.
RENDEZVOUS_PORT = 29400


def needs_service(config: StageConfig) -> bool:
    """Return whether a stage's pods must find each other by name."""
    return config.stage is Stage.TRAIN and config.spec.resources.nodes > 1


def job_manifest(evolution: EmotionEvolution, action: CreateJob, settings: JobSettings) -> Json:
    """Return the Job of a stage.

    What the stage does is taken from the spec that is pinned for the generation
    (``action.config``). Where it runs (`podTemplate`, `resources.accelerator`, `queue`,
    `deadlines`) is taken from the current spec, above the defaults of the installation.

    Parameters
    ----------
    evolution
        The evolution, with its current spec.
    action
        The planner's action, with the stage's configuration.
    settings
        The settings of stage Jobs.
    """
    config = action.config
    labels = names.stage_labels(evolution, config.stage, action.attempt)
    pods = pods_of(config.spec, config.stage)
    template = pod_template(evolution, action, labels, settings)
    spec: Json = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": 0,  # the planner retries, with a Job of another name
        "podReplacementPolicy": "Failed",  # never two pods of one index
        "podFailurePolicy": {"rules": _failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": template,
    }
    active = active_deadline(evolution.spec.deadlines.stage_active_seconds)
    if active is not None:
        spec["activeDeadlineSeconds"] = active
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": action.name,
            "namespace": evolution.metadata.namespace,
            "labels": {**_labels_for_job(template), **labels, **_queue_labels(evolution.spec)},
            "annotations": {
                names.ANNOTATION_TEMPLATE: template_hash(
                    evolution, config.stage, settings.pod_template
                ),
                names.ANNOTATION_DEADLINE: deadline_text(active),
            },
            "ownerReferences": [owner(evolution)],
        },
        "spec": spec,
    }


def _labels_for_job(template: Json) -> dict[str, str]:
    """Return the labels of a pod that its Job has too, for policies that require them on Jobs.

    The label of a queue would hand the Job over to another controller.
    """
    labels: dict[str, str] = template["metadata"]["labels"]
    return {name: value for name, value in labels.items() if name != names.LABEL_QUEUE}


def pod_template(
    evolution: EmotionEvolution, action: CreateJob, labels: dict[str, str], settings: JobSettings
) -> Json:
    """Return the pod template of a stage, with the defaults and `spec.podTemplate` applied.

    Parameters
    ----------
    evolution
        The evolution, with its current spec.
    action
        The planner's action, with the stage's configuration.
    labels
        The labels of the pod.
    settings
        The settings of stage Jobs.
    """
    config = action.config
    module, environment = config.stage.module, _environment(evolution, action, settings)
    limits = device_limits(evolution.spec, gpus_per_pod(config.spec, config.stage))
    container = {
        **_container(module, environment, limits, settings),
        **_ports(settings),
    }
    pod = _pod(config, labels, container, settings)
    if needs_service(config):
        pod["spec"]["subdomain"] = names.nodes_service_name(evolution.metadata.name)
    return gated_pod(pod, evolution.spec.pod_template, config.stage, settings)


def purge_manifest(evolution: EmotionEvolution, settings: JobSettings) -> Json:
    """Return the purge Job, which removes an evolution's data once the evolution is deleted.

    The Job is suspended, and it has no owner because it must outlive the evolution. Its pod is not
    permitted to remove anything: see :func:`permitted_config`. The entries of `podTemplate` for all
    stages apply to the pod, and so do those of the installation's defaults.

    Parameters
    ----------
    evolution
        The evolution, with its current spec.
    settings
        The settings of the operator's Jobs.

    Raises
    ------
    PodRejected
        If `podTemplate` goes beyond the restricted Pod Security standard.
    """
    metadata, spec = evolution.metadata, evolution.spec
    config = PurgeConfig(run=evolution.run, storage=spec.storage)
    labels = names.purge_labels(evolution)
    uid = {"fieldRef": {"fieldPath": f"metadata.labels['{names.LABEL_JOB_UID}']"}}
    environment = [
        *variables(ENVIRONMENT),
        {"name": ENV_JOB_UID, "valueFrom": uid},
        *credentials(spec.storage),
    ]
    container = _container(PURGE_MODULE, environment, {}, settings)
    base = _pod(config, labels, container, settings)
    pod = gated_pod(base, spec.pod_template, None, settings)
    job: Json = {
        "suspend": True,
        "activeDeadlineSeconds": PURGE_SECONDS,  # it counts from when the Job is resumed
        "podFailurePolicy": {"rules": _failure_rules()},
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.purge_job_name(metadata.name, metadata.uid),
            "namespace": metadata.namespace,
            "labels": {**_labels_for_job(pod), **labels},
            "annotations": {
                names.ANNOTATION_TEMPLATE: _hash(job),
                names.ANNOTATION_SEEN: metadata.resource_version,
            },
        },
        "spec": job,
    }


def permitted_config(job: Json) -> str:
    """Return the configuration of a purge Job's pod with the permission to remove the data.

    Parameters
    ----------
    job
        The purge Job, as the API server returns it.

    Raises
    ------
    ValidationError
        If the annotation of the pod is not a configuration.
    """
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    config = PurgeConfig.model_validate_json(annotations[names.ANNOTATION_CONFIG])
    return _text(config.model_copy(update={"permitted_job": job["metadata"]["uid"]}))


def _text(config: ApiModel) -> str:
    return json.dumps(config.to_json(), separators=(",", ":"), ensure_ascii=False)


def _pod(config: ApiModel, labels: dict[str, str], container: Json, settings: JobSettings) -> Json:
    """Return a pod of the restricted Pod Security standard; an annotation configures it."""
    spec = {"restartPolicy": "Never", **restricted_pod(container, settings)}
    spec["volumes"] = [_config_volume(), *spec["volumes"]]
    return {
        "metadata": {"labels": labels, "annotations": {names.ANNOTATION_CONFIG: _text(config)}},
        "spec": spec,
    }


def service_manifest(evolution: EmotionEvolution) -> Json:
    """Return the headless Service that gives an evolution's training pods their DNS names."""
    metadata = evolution.metadata
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.nodes_service_name(metadata.name),
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
            "publishNotReadyAddresses": True,  # the pods find each other before they are ready
            "selector": {
                names.LABEL_UID: metadata.uid,
                names.LABEL_COMPONENT: Stage.TRAIN.slug,
            },
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def owner(evolution: EmotionEvolution) -> Json:
    """Return the owner reference by which the garbage collector deletes an object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": evolution.metadata.name,
        "uid": evolution.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(
    evolution: EmotionEvolution, stage: Stage, defaults: Sequence[PodTemplateEntry] = ()
) -> str:
    """Return the hash of the settings that place a stage's pods.

    With it the operator notices an edit of the evolution or of the installation's defaults, and
    replaces a Job that has not started. A Job that runs is left alone.

    Parameters
    ----------
    evolution
        The evolution, with its current spec.
    stage
        The stage.
    defaults
        The defaults of the installation.
    """
    content = {
        "podTemplate": _contents(evolution.spec.pod_template, stage),
        "queue": evolution.spec.queue.to_json() if evolution.spec.queue else None,
        "accelerator": evolution.spec.resources.accelerator,
        "stage": stage.value,
    }
    if applied := _contents(defaults, stage):
        content["defaults"] = applied  # without any, the hash is that of operators before them
    return _hash(content)


def _contents(entries: Sequence[PodTemplateEntry], stage: Stage) -> list[Json]:
    """Return the templates that apply to a stage."""
    return [template.to_json() for _, template in templates_of(entries, stage)]


def _hash(content: Json) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _container(module: str, env: list[Json], limits: dict[str, str], settings: JobSettings) -> Json:
    container = restricted_container(names.CONTAINER, settings)
    config = {"name": CONFIG_VOLUME, "mountPath": CONFIG_FOLDER, "readOnly": True}
    return {
        **container,
        "command": ["python", "-m", module, "--config", f"{CONFIG_FOLDER}/config.json"],
        "env": env,
        "resources": {"limits": limits} if limits else {},
        "volumeMounts": [config, *container["volumeMounts"]],
    }


def _ports(settings: JobSettings) -> Json:
    """Return the named port that the chart's PodMonitor selects."""
    if not settings.metrics_port:
        return {}
    return {"ports": [{"name": "metrics", "containerPort": settings.metrics_port}]}


def _config_volume() -> Json:
    """Return the volume with the stage's configuration: the pod's annotation as a file."""
    field = {"fieldPath": f"metadata.annotations['{names.ANNOTATION_CONFIG}']"}
    return {
        "name": CONFIG_VOLUME,
        "downwardAPI": {"items": [{"path": "config.json", "fieldRef": field}]},
    }


def _environment(
    evolution: EmotionEvolution, action: CreateJob, settings: JobSettings
) -> list[Json]:
    config = action.config
    grace = _grace_seconds(evolution.spec, config.stage, settings)
    values = {**ENVIRONMENT, ENV_GRACE: str(grace)}
    if settings.metrics_port:
        values[ENV_METRICS_PORT] = str(settings.metrics_port)
    if needs_service(config):
        service = names.nodes_service_name(evolution.metadata.name)
        first = f"{action.name}-0.{service}.{evolution.metadata.namespace}"
        values[ENV_RENDEZVOUS] = f"{first}.svc:{RENDEZVOUS_PORT}"
    return variables(values) + credentials(config.spec.storage)


def _grace_seconds(spec: EvolutionSpec, stage: Stage, settings: JobSettings) -> int:
    """Return the time that a stage's pod has to end: that of the last template with one."""
    entries = [*settings.pod_template, *spec.pod_template]
    times = [t.termination_grace_period_seconds for _, t in templates_of(entries, stage)]
    return next((time for time in reversed(times) if time is not None), GRACE_SECONDS)


def _queue_labels(spec: EvolutionSpec) -> dict[str, str]:
    if spec.queue is None:
        return {}
    labels = {names.LABEL_QUEUE: spec.queue.name}
    if spec.queue.priority_class is not None:
        labels[names.LABEL_QUEUE_PRIORITY] = spec.queue.priority_class
    return labels


def _failure_rules() -> list[Json]:
    """Return how the Job controller handles a failed pod.

    A pod that was preempted or drained is created again at once. Bad input fails the Job, because
    a retry cannot succeed.
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
