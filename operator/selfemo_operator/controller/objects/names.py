"""Names, labels and API paths of the objects that the operator reads and writes."""

from __future__ import annotations

from selfemo_api.api_model import API_VERSION, GROUP, VERSION
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage

PLURAL = "emotionevolutions"
#: The value of `spec.managedBy` that names this operator.
MANAGER = f"{GROUP}/operator"
CONTAINER = "stage"
#: The component label of the Job that removes the data of a deleted evolution.
PURGE = "purge"
#: The end of a purge Job's name. Names of stage Jobs end with the number of the attempt.
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
#: The name of a pod's Job; the Job controller sets this label.
LABEL_JOB_NAME = "batch.kubernetes.io/job-name"
#: The uid of a pod's Job; the Job controller sets this label.
LABEL_JOB_UID = "batch.kubernetes.io/controller-uid"
#: The stage's configuration, which is mounted into the pod as a file.
ANNOTATION_CONFIG = f"{GROUP}/config"
#: The hash of the parts of `spec.podTemplate` and `spec.queue` that apply to the pod.
ANNOTATION_TEMPLATE = f"{GROUP}/template"
#: The uid of a purge Job, on the Job itself. A Job that was copied or restored has another uid.
ANNOTATION_JOB = f"{GROUP}/job-uid"
#: A random text by which a process knows a purge Job that it has created, until its uid is on it.
ANNOTATION_CREATION = f"{GROUP}/creation"
#: The resource version of the evolution that a purge Job was last synchronized with.
ANNOTATION_SEEN = f"{GROUP}/seen-version"
#: On a Job: the deadline in seconds that the operator has asked for, or :data:`NO_DEADLINE`. A
#: policy of the cluster may have set another one, which stays.
ANNOTATION_DEADLINE = f"{GROUP}/deadline"
NO_DEADLINE = "none"

#: Who suspended a stage Job that is, or was, suspended.
ANNOTATION_SUSPENDED = f"{GROUP}/suspended-by"
#: Values of it: this operator, because the evolution is suspended; none, since it runs again; or
#: another controller, which then decides when the Job runs.
BY_OPERATOR, BY_NONE, BY_ANOTHER = "operator", "none", "another"

#: The label selector of the Jobs and pods that the operator watches.
JOB_SELECTOR = f"{LABEL_MANAGED_BY}=selfemo,{LABEL_NAME}=selfemo"

Key = tuple[str, str]
"""The namespace and the name of an object."""


def stage_labels(evolution: EmotionEvolution, stage: Stage, attempt: int) -> dict[str, str]:
    """Return the labels of a stage's Job and pods.

    Parameters
    ----------
    evolution
        The evolution, in the generation of the stage.
    stage
        The stage.
    attempt
        The number of the attempt, from 1.
    """
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
    """Return the labels of the purge Job of an evolution, and of its pod."""
    return {
        LABEL_NAME: "selfemo",
        LABEL_COMPONENT: PURGE,
        LABEL_MANAGED_BY: "selfemo",
        LABEL_EVOLUTION: evolution.metadata.name,
        LABEL_UID: evolution.metadata.uid,
    }


def purge_job_name(evolution: str, uid: str) -> str:
    """Return the name of an evolution's purge Job.

    It contains a part of the uid: a later evolution of the same name has another purge Job.

    >>> purge_job_name("demo", "0123456789ab")
    'demo-01234567-purge'
    """
    return f"{evolution}-{uid[:8]}{PURGE_SUFFIX}"


def nodes_service_name(evolution: str) -> str:
    """Return the name of the headless Service through which training pods find each other."""
    return f"{evolution}-nodes"


def evolutions_path(namespace: str | None) -> str:
    """Return the path of the list of evolutions.

    Parameters
    ----------
    namespace
        The namespace. None: the list of all namespaces.

    Examples
    --------
    >>> evolutions_path("team")
    '/apis/selfemo.dev/v1alpha1/namespaces/team/emotionevolutions'
    """
    return f"/apis/{API_VERSION}/{_prefix(namespace)}{PLURAL}"


def evolution_path(key: Key) -> str:
    """Return the path of one evolution."""
    return f"{evolutions_path(key[0])}/{key[1]}"


def jobs_path(namespace: str | None) -> str:
    """Return the path of the list of Jobs; None: of all namespaces."""
    return f"/apis/batch/v1/{_prefix(namespace)}jobs"


def job_path(key: Key) -> str:
    """Return the path of one Job."""
    return f"{jobs_path(key[0])}/{key[1]}"


def core_path(namespace: str | None, plural: str) -> str:
    """Return the path of a list of the core API, such as pods, services or events."""
    return f"/api/v1/{_prefix(namespace)}{plural}"


def lease_path(namespace: str, name: str = "") -> str:
    """Return the path of a Lease; without a name, of the list of Leases."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return f"{path}/{name}" if name else path


def schema_path() -> str:
    """Return the path of the served OpenAPI schema, which every account may read."""
    return f"/openapi/v3/apis/{GROUP}/{VERSION}"


def _prefix(namespace: str | None) -> str:
    return f"namespaces/{namespace}/" if namespace else ""
