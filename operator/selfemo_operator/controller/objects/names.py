"""Names, labels and API paths of what the operator reads and writes."""

from __future__ import annotations

from selfemo_api.api_model import API_VERSION, GROUP, VERSION
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage

PLURAL = "emotionevolutions"
CONTAINER = "stage"
#: Component of the Job that removes a deleted run's data.
PURGE = "purge"
#: No stage Job's name ends so: theirs end with the number of the attempt.
PURGE_SUFFIX = f"-{PURGE}"

#: Labels of stage Jobs and their pods.
LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_EVOLUTION = f"{GROUP}/evolution"
LABEL_UID = f"{GROUP}/evolution-uid"
LABEL_GENERATION = f"{GROUP}/generation"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
#: The uid of the Job whose pod it is: the Job controller's label.
LABEL_JOB_UID = "batch.kubernetes.io/controller-uid"
#: The stage's configuration, which the pod reads as a file.
ANNOTATION_CONFIG = f"{GROUP}/config"
#: Hash of what `spec.podTemplate` and `spec.queue` made of the pod.
ANNOTATION_TEMPLATE = f"{GROUP}/template"

#: The Jobs that the operator watches; the API server filters them.
JOB_SELECTOR = f"{LABEL_MANAGED_BY}=selfemo,{LABEL_NAME}=selfemo"

Key = tuple[str, str]
"""Namespace and name."""


def stage_labels(evolution: EmotionEvolution, stage: Stage, attempt: int) -> dict[str, str]:
    """Return the labels of a stage's Job and pods."""
    metadata = evolution.metadata
    return {
        LABEL_NAME: "selfemo",
        LABEL_COMPONENT: stage.slug,
        LABEL_MANAGED_BY: "selfemo",
        LABEL_EVOLUTION: metadata.name,
        LABEL_UID: metadata.uid,
        LABEL_GENERATION: f"{evolution.status.generation:03d}",
        LABEL_ATTEMPT: str(attempt),
    }


def purge_labels(evolution: EmotionEvolution) -> dict[str, str]:
    """Return the labels of the Job that removes an evolution's data, and of its pod."""
    return {
        LABEL_NAME: "selfemo",
        LABEL_COMPONENT: PURGE,
        LABEL_MANAGED_BY: "selfemo",
        LABEL_EVOLUTION: evolution.metadata.name,
        LABEL_UID: evolution.metadata.uid,
    }


def purge_name(evolution: str, uid: str) -> str:
    """Return the name of that Job: an evolution made anew under the same name has another."""
    return f"{evolution}-{uid[:8]}{PURGE_SUFFIX}"


def nodes_service(evolution: str) -> str:
    """Return the name of the headless Service by which training pods find each other."""
    return f"{evolution}-nodes"


def evolutions_path(namespace: str | None) -> str:
    """Return the path of the list of evolutions; None: in all namespaces."""
    return f"/apis/{API_VERSION}/{_in(namespace)}{PLURAL}"


def evolution_path(key: Key) -> str:
    """Return the path of one evolution."""
    return f"{evolutions_path(key[0])}/{key[1]}"


def jobs_path(namespace: str | None) -> str:
    """Return the path of the list of Jobs."""
    return f"/apis/batch/v1/{_in(namespace)}jobs"


def job_path(key: Key) -> str:
    """Return the path of one Job."""
    return f"{jobs_path(key[0])}/{key[1]}"


def core_path(namespace: str | None, plural: str) -> str:
    """Return the path of a list of the core API: pods, services, events."""
    return f"/api/v1/{_in(namespace)}{plural}"


def lease_path(namespace: str, name: str = "") -> str:
    """Return the path of a Lease, or of their list."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return f"{path}/{name}" if name else path


def schema_path() -> str:
    """Return the path of the schema that the API server serves; everybody may read it."""
    return f"/openapi/v3/apis/{GROUP}/{VERSION}"


def _in(namespace: str | None) -> str:
    return f"namespaces/{namespace}/" if namespace else ""
