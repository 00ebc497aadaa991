"""Creates the Job that removes an evolution's data, and starts it once the evolution is deleted.

The Job is created suspended, before the first stage, and resumed when the evolution is gone. So the
evolution needs no finalizer (which can block a deletion), and the operator needs no right to change
evolutions. A deletion is not missed while no operator runs: the suspended Job is the record of it.

Removed data cannot be restored. These rules make sure that nothing is removed by mistake:

- The last spec decides, even if it was edited just before the deletion. The operator reads the
  state that the evolution had when it was deleted from the API server's history of watch events,
  and lets the Job follow it. Only if no operator ran, and the history no longer reaches back, does
  the last spec that an operator has seen decide.
- The Job has no permission to remove anything until the operator starts it. The permission is
  written in the request that starts it, under the version of the Job that was checked. It names the
  Job's uid, and the pod compares it with its own. So a Job that was started by hand, copied, or
  restored from a backup removes nothing.
- The operator starts only a Job that it has created itself. It writes the uid of each Job onto the
  Job, and a copy has another uid. If an operator ended before it wrote the uid, and the history has
  the deletion of the evolution, the Job is replaced.
- The pod is judged as the API server has it, before it is started.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import WhenDeleted
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import job_state
from selfemo_operator.controller.objects.jobs import permitted_config, purge_manifest
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.ownership import is_foreign, is_sealed
from selfemo_operator.controller.objects.pod_gate import PodRejected, pod_refusal, refusal
from selfemo_operator.controller.objects.purge_jobs import (
    HELD,
    creation,
    is_current,
    is_permitted,
    is_purged,
    is_required,
    may_write,
    seen_version,
)
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.reconcile.deletion_history import DeletionHistory
from selfemo_operator.controller.reconcile.purge_reports import PurgeReports
from selfemo_operator.planner.types import JobState

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The time after which pods that are still ending are listed again. They may take two minutes, and
#: most take seconds.
POD_POLL_INTERVAL = timedelta(seconds=5)
#: How often the Job of a living evolution is replaced after somebody else has started it. Once is
#: somebody's mistake; a controller starts each Job, and the last one then stays.
MOST_REPLACEMENTS = 3
#: Validates an object, also by admission, and creates none.
_DRY_RUN = "?dryRun=All"
#: The reason of the error if a Job of this name belongs to somebody else.
OTHER_OWNER = "OtherOwner"


class Purger:
    """Manages the purge Jobs.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache of the watched objects.
    settings
        The settings of the operator.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: Settings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._reports = PurgeReports(kube, settings.identity)
        #: The random texts of Jobs that this process has created, until their uids are on them.
        #: They are known before the request, whose reply may be lost.
        self._created: set[str] = set()
        #: By uid of the evolution: how often its Job was replaced because it was started.
        self._replaced: Counter[str] = Counter()
        self._history = DeletionHistory(kube, cache.deleted)

    def sync_job(self, key: Key, evolution: EmotionEvolution, *, living: bool = True) -> None:
        """Create, replace or delete the purge Job of an evolution, as its spec requires.

        An evolution whose `podTemplate` is refused has no purge Job: its pod would have what was
        refused.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        evolution
            The evolution. If it has been deleted, this is its last state.
        living
            Whether the evolution has not been deleted.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached, or with the reason
            :data:`OTHER_OWNER` if the Job of this name belongs to somebody else.
        """
        uid = evolution.metadata.uid
        existing, required = self._cached(key, uid), self._required(evolution)
        if existing is not None and is_foreign(existing):
            if required is not None:
                raise _other_owner(existing)
            return
        if existing is not None and (required is None or not is_current(existing, required)):
            if required is not None:
                if living and self._is_started_by_others(existing, required):
                    return
                self._check(key, required)
            self._delete(existing)
            existing = None
        if required is not None and existing is None:
            self._create(key, required)
        elif required is not None and existing is not None:
            self._record_version(key, existing, required)

    def _is_started_by_others(self, job: Json, required: Json) -> bool:
        """Return whether a Job stays although it was started: a controller starts each one.

        It removes nothing, and it is replaced at the deletion.
        """
        if not is_required(job, required) or not is_sealed(job):
            return False
        uid = job["metadata"]["labels"][names.LABEL_UID]
        self._replaced[uid] += 1
        return self._replaced[uid] > MOST_REPLACEMENTS

    def _check(self, key: Key, required: Json) -> None:
        """Let the API server judge a Job before the one that it replaces is deleted.

        Raises
        ------
        ApiError
            If the API server rejects the Job. The old one then stays, and so does the data's end.
        """
        try:
            self._kube.create(names.jobs_path(key[0]) + _DRY_RUN, required)
        except ApiError as error:
            if error.reason != "AlreadyExists":  # that is judged last
                raise

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
        for cached in self._cache.purge_jobs(key):
            uid, state = cached["metadata"]["labels"][names.LABEL_UID], job_state(cached)
            if uid == current_uid or state not in (JobState.SUCCEEDED, JobState.FAILED, *HELD):
                continue
            is_own = not is_foreign(cached) and creation(cached) in self._created
            # the evolution may have been deleted before the uid was written
            job = self._seal(key, cached) if is_own else cached
            if not is_sealed(job):
                if self._is_interrupted(key, job):
                    requeue_at = self._purge(key, job) or requeue_at
                else:
                    self._reports.copied(key, job)
            elif state is JobState.SUCCEEDED:
                self._delete(job)
            elif self._is_deleted(key, uid) and not self._was_started(job):
                requeue_at = self._purge(key, job) or requeue_at
        return requeue_at

    def _purge(self, key: Key, job: Json) -> datetime | None:
        """Let the purge Job of a deleted evolution follow its last spec, and start it.

        Returns
        -------
        datetime or None
            The time at which to try again because pods are still ending, or because the last spec
            may still become known.
        """
        uid = job["metadata"]["labels"][names.LABEL_UID]
        last = self._history.last_state(key, uid, seen_version(job))
        if last is not None:
            self._follow(key, job, last)
        elif self._history.is_awaited(uid):
            return datetime.now(UTC) + POD_POLL_INTERVAL
        current = self._cached(key, uid)
        if current is None:
            return None
        if self._has_pods(current):
            return datetime.now(UTC) + POD_POLL_INTERVAL
        self._start(key, current)
        return None

    def _was_started(self, job: Json) -> bool:
        """Return whether the operator has started a Job. It may wait in a queue, or have failed."""
        path = names.job_path((job["metadata"]["namespace"], job["metadata"]["name"]))
        try:
            current = self._kube.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return True  # the watch delivers the deletion
        if not is_permitted(current):
            return False
        if job_state(current) is JobState.SUSPENDED:
            text = "another controller has suspended this Job: it removes the data once it runs"
            self._reports.refused(current, text)
        return True

    def _is_interrupted(self, key: Key, job: Json) -> bool:
        """Return whether a Job without its uid is of an operator that ended while it created it.

        The random text alone does not show that: a copy may have it, if it was taken in between.
        So the history of the API server must have the deletion of the evolution. The Job then
        follows the last spec, and is replaced before it is started.
        """
        if is_foreign(job) or not creation(job) or self._reports.has(job):
            return False
        uid = job["metadata"]["labels"][names.LABEL_UID]
        if not self._is_deleted(key, uid):
            return False
        return self._history.last_state(key, uid, seen_version(job)) is not None

    def _follow(self, key: Key, job: Json, last: Json) -> None:
        """Replace or delete the purge Job of a deleted evolution, as its last spec requires."""
        if not is_purged(last):
            self._delete_needless(key, job)
            return
        try:
            evolution = EmotionEvolution.model_validate(last)
        except ValidationError:
            return  # the Job follows the last spec that could be read
        self.sync_job(key, evolution, living=False)

    def _delete_needless(self, key: Key, job: Json) -> None:
        """Delete the purge Job of a deleted evolution whose last spec keeps the data."""
        log.info("%s/%s was deleted after an edit: its data stays", *key)
        self._delete(job)

    def _start(self, key: Key, job: Json) -> None:
        """Start the purge Job of a deleted evolution, with the permission to remove the data."""
        path = names.job_path((key[0], job["metadata"]["name"]))
        try:
            current = self._kube.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return  # the watch delivers the deletion
        if is_sealed(current) and job_state(current) is JobState.FAILED:
            text = (
                "another user has started this Job, and the last spec of its evolution is not "
                "known: the data stays"
            )
            self._reports.refused(current, text)
        if not is_sealed(current) or job_state(current) not in HELD:
            return  # it was replaced or started; the watch delivers that
        if problem := pod_refusal(current["spec"]["template"], self._settings.jobs):
            self._reports.refused(current, f"the Job is deleted, and the data stays: {problem}")
            self._delete(current)
            return
        annotations = {names.ANNOTATION_CONFIG: permitted_config(current)}
        metadata = {name: current["metadata"][name] for name in ("uid", "resourceVersion")}
        template = {"metadata": {"annotations": annotations}}
        log.info("%s/%s was deleted: its data is being removed", *key)
        changes = {"metadata": metadata, "spec": {"suspend": False, "template": template}}
        self._cache.store_job(self._kube.patch(path, changes))
        uid = current["metadata"]["labels"][names.LABEL_UID]
        self._cache.deleted.forget(key, uid)
        self._history.forget(uid)

    def _is_deleted(self, key: Key, uid: str) -> bool:
        """Return whether an evolution is gone, according to the API server.

        The cache may not yet be complete, and removed data cannot be restored.
        """
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
        return any(may_write(pod) for pod in pods.get("items", []))

    def _required(self, evolution: EmotionEvolution) -> Json | None:
        """Return the purge Job that an evolution should have, or None."""
        if evolution.spec.storage.when_deleted is not WhenDeleted.DELETE:
            return None
        if refusal(evolution, self._settings.jobs):
            return None
        try:
            return purge_manifest(evolution, self._settings.jobs)
        except PodRejected:
            return None

    def _cached(self, key: Key, uid: str) -> Json | None:
        """Return the cached purge Job of an evolution, or None."""
        name = names.purge_job_name(key[1], uid)
        jobs = self._cache.purge_jobs(key)
        return next((job for job in jobs if job["metadata"]["name"] == name), None)

    def _create(self, key: Key, required: Json) -> None:
        """Create a purge Job, and write its uid onto it."""
        path = names.job_path((key[0], required["metadata"]["name"]))
        creation = secrets.token_hex(8)
        self._created.add(creation)
        annotations = required["metadata"]["annotations"] | {names.ANNOTATION_CREATION: creation}
        metadata = required["metadata"] | {"annotations": annotations}
        try:
            job = self._kube.create(names.jobs_path(key[0]), required | {"metadata": metadata})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            self._created.discard(creation)
            job = self._kube.get(path)
            if is_foreign(job):
                raise _other_owner(job) from error
            if not is_current(job, required):
                self._delete(job)
                raise ApiError(409, "Conflict", "an earlier purge Job is being replaced") from error
        self._seal(key, job)

    def _seal(self, key: Key, job: Json) -> Json:
        """Write the uid of a purge Job onto it, and return the Job."""
        uid = job["metadata"]["uid"]
        # A copy of the Job must not have the random text.
        annotations = {names.ANNOTATION_JOB: uid, names.ANNOTATION_CREATION: None}
        path = names.job_path((key[0], job["metadata"]["name"]))
        sealed = self._kube.patch(path, {"metadata": {"uid": uid, "annotations": annotations}})
        self._created.discard(creation(job))
        self._cache.store_job(sealed)
        return sealed

    def _record_version(self, key: Key, job: Json, required: Json) -> None:
        """Write the version of the evolution onto its purge Job.

        The history of the API server is read from there if the operator misses the deletion.
        """
        version = required["metadata"]["annotations"][names.ANNOTATION_SEEN]
        if seen_version(job) == version:
            return
        uid = job["metadata"]["uid"]
        changes = {"metadata": {"uid": uid, "annotations": {names.ANNOTATION_SEEN: version}}}
        path = names.job_path((key[0], job["metadata"]["name"]))
        try:
            self._cache.store_job(self._kube.patch(path, changes))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # the Job was deleted or replaced by hand; the watch delivers that

    def _delete(self, job: Json) -> None:
        metadata = job["metadata"]
        path = names.job_path((metadata["namespace"], metadata["name"]))
        self._kube.delete(path, metadata["uid"])
        self._cache.remove_job(job)


def _other_owner(job: Json) -> ApiError:
    text = (
        f"the Job {job['metadata']['name']}, which would remove the data after the deletion, "
        "exists and is not the operator's: delete it, or set `storage.whenDeleted` to `Retain`"
    )
    return ApiError(409, OTHER_OWNER, text)
