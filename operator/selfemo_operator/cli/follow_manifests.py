"""The objects that follow promotions of a served model: a CronJob and its rights. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfemo_api.api_model import GROUP
from selfemo_api.evolution import EmotionEvolution
from selfemo_operator.cli import serve_follow
from selfemo_operator.cli.serve_follow import follow_target
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.base_pod import restricted_pod
from selfemo_operator.controller.objects.pod_template import RESTRICTED_CONTAINER
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]

COMPONENT = "serve-follow"


@dataclass(frozen=True, kw_only=True)
class Follower:
    """The CronJob that follows promotions."""

    image: str
    """The image of the operator."""
    pull_secrets: list[Json]
    """The Secrets for pulling it, as in a pod."""
    schedule: str
    """When it looks for a promotion, as a schedule of cron."""
    kserve: bool
    """Whether the model is served by KServe."""


def object_labels(evolution: EmotionEvolution, component: str) -> dict[str, str]:
    """Return the labels by which users and network policies select the objects of a server.

    They are not those of stage pods, which the operator watches.

    Parameters
    ----------
    evolution
        The evolution.
    component
        What the object does: ``serve`` or ``serve-follow``.
    """
    return {
        names.LABEL_NAME: f"selfemo-{component}",
        names.LABEL_COMPONENT: component,
        names.LABEL_MANAGED_BY: "kubectl-selfemo",
        names.LABEL_EVOLUTION: evolution.metadata.name,
    }


def object_metadata(evolution: EmotionEvolution, component: str) -> Json:
    """Return the metadata of an object of a server.

    Parameters
    ----------
    evolution
        The evolution.
    component
        What the object does: ``serve`` or ``serve-follow``.
    """
    return {
        "name": f"{evolution.metadata.name}-{component}",
        "namespace": evolution.metadata.namespace,
        "labels": object_labels(evolution, component),
    }


def follow_manifests(
    evolution: EmotionEvolution, settings: JobSettings, follower: Follower
) -> list[Json]:
    """Return a CronJob that follows promotions, with the least rights it needs.

    Parameters
    ----------
    evolution
        The evolution.
    settings
        The settings of its stage Jobs.
    follower
        What is followed, and how often.
    """
    metadata = object_metadata(evolution, COMPONENT)
    name, namespace = evolution.metadata.name, evolution.metadata.namespace
    target = follow_target((namespace, name), kserve=follower.kserve)
    rules = [
        {
            "apiGroups": [GROUP],
            "resources": [names.PLURAL],
            "resourceNames": [name],
            "verbs": ["get"],
        },
        {
            "apiGroups": [target.group],
            "resources": [target.resource],
            "resourceNames": [target.name],
            "verbs": ["get", "patch"],
        },
    ]
    account = {"kind": "ServiceAccount", "name": metadata["name"], "namespace": namespace}
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": metadata["name"],
    }
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [account],
        },
        _cron_job(evolution, settings, follower, metadata),
    ]


def _cron_job(
    evolution: EmotionEvolution, settings: JobSettings, follower: Follower, metadata: Json
) -> Json:
    command = ["python", "-m", serve_follow.__name__, evolution.metadata.name]
    command += ["--namespace", evolution.metadata.namespace]
    container = {
        "name": "follow",
        "image": follower.image,
        "imagePullPolicy": settings.pull_policy,
        "command": [*command, "--kserve"] if follower.kserve else command,
        "resources": {
            "requests": {"cpu": "10m", "memory": "128Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": dict(RESTRICTED_CONTAINER),
    }
    pod = restricted_pod(container, settings)
    pod |= {
        "restartPolicy": "Never",
        "serviceAccountName": metadata["name"],
        "automountServiceAccountToken": True,
        "volumes": [],
    }
    if follower.pull_secrets:
        pod["imagePullSecrets"] = follower.pull_secrets
    job = {
        "backoffLimit": 0,  # the next one follows soon
        "activeDeadlineSeconds": 120,
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": follower.schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": job},
        },
    }
