"""Keeps ready, and lets go, the Job that removes a run's data once its evolution is deleted.

The Job is made, suspended, before the first stage, and resumed when the evolution is gone. So the
evolution needs no finalizer (with which a deletion can hang), the operator no right to change
evolutions, and nothing is forgotten while no operator runs: the Job itself is the note.
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
from selfemo_operator.controller.objects.job_status import job_state
from selfemo_operator.controller.objects.jobs import purge_manifest
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.planner.types import JobState

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: How soon to look again for pods that still end: they have two minutes, and most take seconds.
AGAIN = timedelta(seconds=5)


class Purger:
    """Sees to the removal of data.

    Parameters
    ----------
    rest, view, settings
        As for the reconciler.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: JobSettings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings

    def keep(self, key: Key, evolution: EmotionEvolution) -> None:
        """Make a living evolution's Job what its spec asks for: there, or not. Raises ApiError."""
        name = names.purge_name(evolution.metadata.name, evolution.metadata.uid)
        found = [j for j in self._cache.purges(key) if j["metadata"]["name"] == name]
        wanted = None
        if evolution.spec.storage.when_deleted is WhenDeleted.DELETE:
            wanted = purge_manifest(evolution, self._settings)
        for job in found:
            if wanted is None or _template(job) != _template(wanted):
                self._delete(job)
                found = []
        if wanted is not None and not found:
            try:
                self._cache.put_job(self._kube.create(names.jobs_path(key[0]), wanted))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise  # the one that is there is seen by the watch

    def collect(self, key: Key, living: str | None) -> datetime | None:
        """Let the Jobs of deleted evolutions work; return when to look again. Raises ApiError.

        Parameters
        ----------
        living
            Uid of the evolution that has the name now.
        """
        again = None
        for job in self._cache.purges(key):
            state = job_state(job)
            if job["metadata"]["labels"][names.LABEL_UID] == living:
                continue
            if state is JobState.SUCCEEDED:
                self._delete(job)
            elif state is JobState.SUSPENDED and self._is_gone(key, job):
                if self._has_pods(job):
                    again = datetime.now(UTC) + AGAIN
                    continue
                path = names.job_path((key[0], job["metadata"]["name"]))
                log.info("%s/%s is deleted: its data goes", *key)
                self._cache.put_job(self._kube.merge(path, {"spec": {"suspend": False}}))
        return again

    def _is_gone(self, key: Key, job: Json) -> bool:
        """Ask the API server itself: the picture may be young, and data does not come back."""
        uid = job["metadata"]["labels"][names.LABEL_UID]
        try:
            found: Json = self._kube.get(names.evolution_path(key))
        except ApiError as error:
            # where not the object but the whole kind is missing, the message names no object
            if error.status == 404 and f'"{key[1]}" not found' in error.message:
                return True
            raise
        return bool(found["metadata"]["uid"] != uid)

    def _has_pods(self, job: Json) -> bool:
        """Return whether a stage may still write."""
        metadata = job["metadata"]
        query = {"labelSelector": f"{names.LABEL_UID}={metadata['labels'][names.LABEL_UID]}"}
        pods = self._kube.get(names.core_path(metadata["namespace"], "pods"), query)
        return bool(pods.get("items"))

    def _delete(self, job: Json) -> None:
        metadata = job["metadata"]
        path = names.job_path((metadata["namespace"], metadata["name"]))
        self._kube.delete(path, metadata["uid"])
        self._cache.drop_job(job)


def _template(job: Json) -> str | None:
    found: str | None = job["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
    return found
