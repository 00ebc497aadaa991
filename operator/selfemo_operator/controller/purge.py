"""Creates the Job that removes an evolution's data, and starts it once the evolution is deleted.

The Job is created suspended, before the first stage, and resumed when the evolution is gone. So the
evolution needs no finalizer (which can block a deletion), and the operator needs no right to change
evolutions. A deletion is not missed while no operator runs: the suspended Job is the record of it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import WhenDeleted
from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.host_access import host_access_error
from selfemo_operator.controller.objects.job_status import job_state
from selfemo_operator.controller.objects.jobs import purge_manifest
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.planner.types import JobState

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The time after which pods that are still ending are listed again. They may take two minutes, and
#: most take seconds.
POD_POLL_INTERVAL = timedelta(seconds=5)


class Purger:
    """Manages the purge Jobs.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache of the watched objects.
    settings
        The settings of the operator's Jobs.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: JobSettings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings

    def sync_job(self, key: Key, evolution: EmotionEvolution) -> None:
        """Create, replace or delete the purge Job of an evolution, as its spec requires.

        An evolution whose `podTemplate` is refused has no purge Job: its pod would have what was
        refused.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        evolution
            The evolution, which has not been deleted.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        name = names.purge_job_name(evolution.metadata.name, evolution.metadata.uid)
        existing = [j for j in self._cache.purge_jobs(key) if j["metadata"]["name"] == name]
        required = None
        refused = not self._settings.host_access and host_access_error(evolution.spec.pod_template)
        if evolution.spec.storage.when_deleted is WhenDeleted.DELETE and not refused:
            required = purge_manifest(evolution, self._settings)
        for job in existing:
            if required is None or _template_hash(job) != _template_hash(required):
                self._delete(job)
                existing = []
        if required is not None and not existing:
            try:
                self._cache.store_job(self._kube.create(names.jobs_path(key[0]), required))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise  # the watch delivers a Job that exists already

    def reconcile_orphans(self, key: Key, current_uid: str | None) -> datetime | None:
        """Start the purge Jobs of deleted evolutions, and delete those that have succeeded.

        Parameters
        ----------
        key
            The namespace and name of the evolutions.
        current_uid
            The uid of the evolution that has the name now, or None.

        Returns
        -------
        datetime or None
            The time at which to reconcile again because pods are still ending.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached.
        """
        requeue_at = None
        for job in self._cache.purge_jobs(key):
            state = job_state(job)
            if job["metadata"]["labels"][names.LABEL_UID] == current_uid:
                continue
            if state is JobState.SUCCEEDED:
                self._delete(job)
            elif state is JobState.SUSPENDED and self._is_deleted(key, job):
                if self._has_pods(job):
                    requeue_at = datetime.now(UTC) + POD_POLL_INTERVAL
                    continue
                path = names.job_path((key[0], job["metadata"]["name"]))
                log.info("%s/%s was deleted: its data is being removed", *key)
                self._cache.store_job(self._kube.patch(path, {"spec": {"suspend": False}}))
        return requeue_at

    def _is_deleted(self, key: Key, job: Json) -> bool:
        """Return whether the evolution of a purge Job is gone, according to the API server.

        The cache may not yet be complete, and removed data cannot be restored.
        """
        uid = job["metadata"]["labels"][names.LABEL_UID]
        try:
            evolution: Json = self._kube.get(names.evolution_path(key))
        except ApiError as error:
            # If the whole kind is missing instead of the object, the message names no object.
            if error.status == 404 and f'"{key[1]}" not found' in error.message:
                return True
            raise
        return bool(evolution["metadata"]["uid"] != uid)

    def _has_pods(self, job: Json) -> bool:
        """Return whether a stage of the evolution may still write."""
        metadata = job["metadata"]
        query = {"labelSelector": f"{names.LABEL_UID}={metadata['labels'][names.LABEL_UID]}"}
        pods = self._kube.get(names.core_path(metadata["namespace"], "pods"), query)
        return bool(pods.get("items"))

    def _delete(self, job: Json) -> None:
        metadata = job["metadata"]
        path = names.job_path((metadata["namespace"], metadata["name"]))
        self._kube.delete(path, metadata["uid"])
        self._cache.remove_job(job)


def _template_hash(job: Json) -> str | None:
    annotation: str | None = job["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
    return annotation
