"""The objects with which an evolution's best model is served on a cluster. Pure.

They are printed for a user to apply, and no controller of selfemo owns them. The pods run where the
stage Evaluate runs: `podTemplate`, the defaults of the installation, accelerator and credentials
are those of its pods.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import StorageSpec
from selfemo_api.stage_resources import gpus_per_pod
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import Best
from selfemo_operator.cli.follow_manifests import (
    Follower,
    follow_manifests,
    object_labels,
    object_metadata,
)
from selfemo_operator.cli.serve_follow import ANNOTATION_GENERATION, generation_text
from selfemo_operator.cli.serve_pod import pod_where_evaluate_runs
from selfemo_operator.cli.yaml_output import yaml_text
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.base_pod import (
    ENVIRONMENT,
    credentials,
    device_limits,
    restricted_container,
    restricted_pod,
    variables,
)
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.local.state import RunnerError

Json = dict[str, Any]

#: The port of the server in its pod, and of the Service.
PORT = 8000
COMPONENT = "serve"
_CONTAINER = "vllm"
#: The name that KServe gives a container, and by which it finds that of the model.
_KSERVE_CONTAINER = "kserve-container"
#: Seconds for a copy of a large model and its load.
_START_SECONDS = 3600
_PERIOD_SECONDS = 10


#: A new pod answers before an old one is ended.
_STRATEGY: Json = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
}


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a user chooses about the server."""

    replicas: int = 1
    """The number of pods."""
    image: str = ""
    """The image of the pods, which replaces that of `podTemplate`. Empty: as the stage Evaluate."""
    kserve: bool = False
    """Whether it is an InferenceService of KServe. Otherwise it is a Deployment with a Service."""
    api_key_secret: str = ""
    """The Secret whose key `api-key` clients must send. Empty: clients need no key."""
    follow_image: str = ""
    """The image of the operator, if the server is to follow each promotion."""
    schedule: str = "*/5 * * * *"
    """When the server looks for a promotion, as a schedule of cron."""


def job_settings(jobs: Sequence[Json], image: str = "") -> JobSettings:
    """Return the settings with which the operator starts the stages of an evolution.

    Parameters
    ----------
    jobs
        The stage Jobs of the evolution. Those of the stage Evaluate are the best source.
    image
        An image that replaces that of the Jobs.

    Raises
    ------
    RunnerError
        If there is neither a Job nor an image.
    """

    def rank(job: Json) -> tuple[bool, str]:
        metadata = job["metadata"]
        stage = metadata.get("labels", {}).get(names.LABEL_COMPONENT)
        return stage == Stage.EVALUATE.slug, metadata.get("creationTimestamp", "")

    if not jobs and not image:
        raise RunnerError(
            "no stage Job exists any longer whose image could be used: specify --image"
        )
    if not jobs:
        return JobSettings(image=image)
    pod = max(jobs, key=rank)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    return JobSettings(
        image=image or container["image"],
        pull_policy=container.get("imagePullPolicy", "IfNotPresent"),
        service_account=pod.get("serviceAccountName", ""),
        run_as_user=pod.get("securityContext", {}).get("runAsUser", 0),
    )


def operator_image(jobs_image: str) -> str:
    """Return the image of the operator that is released with an image of the stages.

    Parameters
    ----------
    jobs_image
        The image of the stages.

    Raises
    ------
    RunnerError
        If the name does not tell.

    Examples
    --------
    >>> operator_image("registry:5000/team/selfemo-jobs-cpu:0.2.0")
    'registry:5000/team/selfemo-operator:0.2.0'
    """
    image = re.sub(r"(^|/)selfemo-jobs(-cpu)?(?=:|$)", r"\1selfemo-operator", jobs_image)
    if image == jobs_image:
        raise RunnerError(
            f"the operator image cannot be inferred from {jobs_image}: specify it with "
            "--operator-image"
        )
    return image


def manifests_text(objects: Sequence[Json]) -> str:
    """Return objects as the documents of a YAML text.

    Parameters
    ----------
    objects
        The objects.
    """
    plain = json.loads(json.dumps(objects))  # without parts in common: YAML would refer to them
    return yaml_text(plain, width=1000)


def serve_manifests(
    evolution: EmotionEvolution, settings: JobSettings, options: ServeOptions
) -> list[Json]:
    """Return the objects that serve the best model of an evolution.

    Parameters
    ----------
    evolution
        The evolution, with its status.
    settings
        The settings of its stage Jobs: image, account and user; templates, and whether the pods
        may have access to the node.
    options
        What the user chooses.

    Raises
    ------
    RunnerError
        If no generation has been evaluated yet, or the pods would go beyond the restricted Pod
        Security standard, and they may not.
    """
    if options.kserve:
        objects = [_inference_service(evolution, settings, options)]
    else:
        objects = [_deployment(evolution, settings, options), _service(evolution)]
    if not options.follow_image:
        return objects
    server = _pod(evolution, settings, options, _CONTAINER)["spec"]
    follower = Follower(
        image=options.follow_image,
        pull_secrets=server.get("imagePullSecrets", []),
        schedule=options.schedule,
        kserve=options.kserve,
    )
    return objects + follow_manifests(evolution, settings, follower)


def model_uri(evolution: EmotionEvolution, *, follow: bool) -> str:
    """Return the manifest of the model that the pods load.

    Parameters
    ----------
    evolution
        The evolution, with its status.
    follow
        Whether it is the manifest of the best model at any time. Otherwise it is that of the
        generation that is the best one now.

    Raises
    ------
    RunnerError
        If no generation has been evaluated yet.
    """
    best, run = _best(evolution), evolution.status.uri
    if follow:
        return f"{run}/best/manifest.json"
    return f"{run}/{stage_prefix(best.generation, Stage.EVALUATE)}/manifest.json"


def _best(evolution: EmotionEvolution) -> Best:
    """Return the best generation. Raises RunnerError if there is none yet."""
    status, metadata = evolution.status, evolution.metadata
    if status.best is None or status.uri is None:
        raise RunnerError(
            f"{metadata.namespace}/{metadata.name} has no best model yet: wait until its "
            "generation 0 has been evaluated"
        )
    return status.best


def _selector(evolution: EmotionEvolution) -> dict[str, str]:
    labels = object_labels(evolution, COMPONENT)
    return {name: labels[name] for name in (names.LABEL_NAME, names.LABEL_EVOLUTION)}


def _deployment(evolution: EmotionEvolution, settings: JobSettings, options: ServeOptions) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": object_metadata(evolution, COMPONENT),
        "spec": {
            "replicas": options.replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _START_SECONDS + 60,
            "selector": {"matchLabels": _selector(evolution)},
            "strategy": _STRATEGY,
            "template": _pod(evolution, settings, options, _CONTAINER),
        },
    }


def _service(evolution: EmotionEvolution) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(evolution, COMPONENT),
        "spec": {
            "selector": _selector(evolution),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


def _inference_service(
    evolution: EmotionEvolution, settings: JobSettings, options: ServeOptions
) -> Json:
    pod = _pod(evolution, settings, options, _KSERVE_CONTAINER)
    metadata = object_metadata(evolution, COMPONENT)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            **metadata,
            # a Deployment: the mode of Knative has no shared memory and no start of an hour
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "minReplicas": options.replicas,
                "maxReplicas": options.replicas,
                "deploymentStrategy": _STRATEGY,
                **pod["metadata"],
                **pod["spec"],
            }
        },
    }


def _pod(
    evolution: EmotionEvolution, settings: JobSettings, options: ServeOptions, container_name: str
) -> Json:
    spec = evolution.spec
    limits = device_limits(spec, gpus_per_pod(spec, Stage.EVALUATE))
    container = {
        **restricted_container(container_name, settings),
        "command": ["python", "-m", "selfemo_jobs.use_commands", "serve"],
        "args": _arguments(evolution, options),
        "env": variables(ENVIRONMENT) + credentials(spec.storage) + _api_key(options),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"limits": limits} if limits else {},
        **_probes(),
    }
    pod = {
        "metadata": {
            "labels": object_labels(evolution, COMPONENT),
            "annotations": {ANNOTATION_GENERATION: generation_text(_best(evolution).generation)},
        },
        "spec": restricted_pod(container, settings),
    }
    pod = pod_where_evaluate_runs(pod, settings, spec.pod_template)
    if options.image:
        pod["spec"]["containers"][0]["image"] = options.image
    return pod


def _arguments(evolution: EmotionEvolution, options: ServeOptions) -> list[str]:
    """Return the arguments of `selfemo serve`. Those of the engine are in the model's folder."""
    uri = model_uri(evolution, follow=bool(options.follow_image))
    arguments = [uri, "--host=all", f"--port={PORT}", f"--name={evolution.metadata.name}"]
    return [*arguments, *_storage_arguments(evolution.spec.storage)]


def _storage_arguments(storage: StorageSpec) -> list[str]:
    arguments = []
    if storage.endpoint is not None:
        arguments.append(f"--endpoint={storage.endpoint}")
    if storage.region is not None:
        arguments.append(f"--region={storage.region}")
    return [*arguments, "--path-style"] if storage.path_style else arguments


def _api_key(options: ServeOptions) -> list[Json]:
    if not options.api_key_secret:
        return []
    key = {"name": options.api_key_secret, "key": "api-key"}
    return [{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": key}}]


def _probes() -> Json:
    """Return the probes: vLLM's /health answers once the model is loaded, while the engine runs."""
    check: Json = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    every: Json = {**check, "periodSeconds": _PERIOD_SECONDS}
    return {
        "startupProbe": {**every, "failureThreshold": _START_SECONDS // _PERIOD_SECONDS},
        "readinessProbe": {**check, "periodSeconds": 5},
        "livenessProbe": {**every, "failureThreshold": 6},
    }
