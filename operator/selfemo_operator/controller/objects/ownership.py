"""Which Jobs and pods belong to whom. Labels are not enough: everyone may set them. Pure."""

from __future__ import annotations

from typing import Any

from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import is_purge_job

Json = dict[str, Any]


def job_uid(pod: Json) -> str | None:
    """Return the uid of the Job that controls a pod, or None if no Job does.

    Anyone who may create a pod can set the label with the uid. A pod whose owner reference names a
    Job as its controller is counted by the Job controller as well.

    Parameters
    ----------
    pod
        A pod, as the API server returns it.

    Examples
    --------
    >>> owner = {"kind": "Job", "uid": "1", "controller": True}
    >>> job_uid({"metadata": {"ownerReferences": [owner]}})
    '1'
    >>> job_uid({"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "1"}}})
    """
    for owner in pod["metadata"].get("ownerReferences", []):
        if owner.get("kind") == "Job" and owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return None


def is_sealed(job: Json) -> bool:
    """Return whether the operator has created this very Job as a purge Job.

    The API server gives each Job a uid. The operator writes it onto the Job after it has created
    it, so a copy, or a Job that a backup tool restored, is told from the original.

    Parameters
    ----------
    job
        A purge Job, as the API server returns it.
    """
    return not is_foreign(job) and bool(_annotations(job).get(names.ANNOTATION_JOB))


def is_foreign(job: Json) -> bool:
    """Return whether a Job with the name of a purge Job is not the operator's.

    Parameters
    ----------
    job
        A Job with the name of a purge Job, as the API server returns it.
    """
    metadata, annotations = job["metadata"], _annotations(job)
    return (
        bool(metadata.get("ownerReferences"))
        or not is_purge_job(job)
        or names.ANNOTATION_TEMPLATE not in annotations
        or annotations.get(names.ANNOTATION_JOB, metadata["uid"]) != metadata["uid"]
    )


def _annotations(job: Json) -> dict[str, str]:
    annotations: dict[str, str] = job["metadata"].get("annotations") or {}
    return annotations
