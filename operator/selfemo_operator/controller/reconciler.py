"""One reconcile of one evolution: observe, plan, write the status, act.

The status is written first, under its resource version; the action follows only if that write was
accepted. If there is nothing to write, the version is read again before the action. So neither a
second operator that is still running nor a stale cache can do harm: the conflict is noticed first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.error_messages import problems_of
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus
from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.events import Event, event_manifest, events_between
from selfemo_operator.controller.objects.host_access import host_access_error
from selfemo_operator.controller.objects.job_status import (
    MISSING_POD_AGE,
    job_state,
    pod_query,
    stage_job,
)
from selfemo_operator.controller.objects.jobs import (
    job_manifest,
    needs_service,
    service_manifest,
    template_hash,
)
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.purge import Purger
from selfemo_operator.planner.conditions import with_unreadable_spec
from selfemo_operator.planner.plan import MANAGER, plan
from selfemo_operator.planner.types import (
    Action,
    CreateJob,
    DeleteEvolution,
    DeleteJob,
    JobState,
    Observed,
    ResumeJob,
    StageJob,
    SuspendJob,
)

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Ages of a Job at which its pods are listed if they have not started: once a kubelet has tried to
#: pull the image, and once the Job should have its pods. Each costs one list for each such Job.
POD_CHECK_AGES = (timedelta(seconds=15), MISSING_POD_AGE + timedelta(seconds=1))


class Conflict(Exception):
    """The cached object was stale: reconcile again."""


class Reconciler:
    """Reconciles evolutions.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache that the watches fill. The reconciler's own writes are stored in it at once.
    settings
        The settings of the operator.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: Settings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._purger = Purger(kube, cache, settings.jobs)
        #: By uid: the generation of the spec for which a Job was rejected, and why.
        self._rejections: dict[str, tuple[int, str]] = {}
        #: By uid: why the next Job could not be created for now.
        self._creation_errors: dict[str, str] = {}

    def reconcile(self, key: Key) -> datetime | None:
        """Reconcile an evolution once.

        Parameters
        ----------
        key
            The evolution's namespace and name.

        Returns
        -------
        datetime or None
            The time at which to reconcile again even if no object changes.

        Raises
        ------
        ApiError
            If the API server rejects a request or cannot be reached. The caller reconciles again.
        Conflict
            If the cached object was stale. The cache has the current object then.
        """
        raw = self._cache.evolution(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            # the garbage collector deletes all other objects
            return self._purger.reconcile_orphans(key, None)
        if raw["spec"].get("managedBy") not in (None, MANAGER):
            return None  # another controller's: nothing is written, even if it cannot be read
        try:
            evolution = _parse(raw)
        except ValidationError as error:
            self._report_unreadable(key, raw, error)
            return None
        purge_at = self._purger.reconcile_orphans(key, evolution.metadata.uid)
        now = datetime.now(UTC)
        observed = self._observe(key, evolution, now)
        decision = plan(evolution, observed, now)
        changed = decision.status != evolution.status
        events: Sequence[Event] = ()
        if changed:
            events = events_between(evolution.status, decision.status)
            evolution = self._write_status(key, raw, evolution, decision.status)
        elif decision.action is not None:
            self._check_current(key, raw)
        try:
            if decision.action is not None:
                self._execute(key, evolution, decision.action)
            else:
                self._purger.sync_job(key, evolution)
        except (ApiError, Conflict):
            # the status is written, whether or not the action succeeds
            self._record_events(key, evolution, events)
            raise
        self._record_events(key, evolution, events)  # last: the next Job does not wait for it
        if changed and decision.action is None:
            return now  # the new status may require an action, and its watch event is ignored
        created = isinstance(decision.action, CreateJob)
        pod_check_at = now + POD_CHECK_AGES[0] if created else _next_pod_check(observed, now)
        return _earliest(decision.requeue_at, pod_check_at, purge_at)

    def _observe(self, key: Key, evolution: EmotionEvolution, now: datetime) -> Observed:
        metadata, status = evolution.metadata, evolution.status
        host_access = None
        if not self._settings.jobs.host_access:
            host_access = host_access_error(evolution.spec.pod_template)
        jobs = []
        for manifest in self._cache.stage_jobs(key, metadata.uid):
            job = stage_job(manifest)
            current = (status.generation, status.stage, status.attempt)
            query = pod_query(manifest, now)
            if job.key == current and not status.finished and query is not None:
                job = stage_job(manifest, self._pods(key[0], manifest, query), now)
            jobs.append(self._with_outdated(evolution, manifest, job))
        generation, rejection = self._rejections.get(metadata.uid, (0, ""))
        return Observed(
            tuple(jobs),
            refusal=host_access or (rejection if generation == metadata.generation else ""),
            trouble=self._creation_errors.get(metadata.uid, ""),
        )

    def _with_outdated(
        self, evolution: EmotionEvolution, manifest: Json, job: StageJob
    ) -> StageJob:
        """Return the Job, marked if an edit of the spec changes where its pods run."""
        created_with = manifest["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
        return replace(job, outdated=created_with != template_hash(evolution, job.stage))

    def _pods(self, namespace: str, job: Json, query: dict[str, str]) -> list[Json]:
        """Return a Job's pods from the cheapest source that is current enough.

        A result is usually in the cache already, from the watch of pods. The reason why pods wait
        is read from the API server's cache (version 0). A consistent list costs the API server a
        request to etcd, and the operator 50 ms. It is used in two cases: a Job has succeeded and
        its result is not cached, and a Job has failed, because the messages of all pods count.
        """
        state = job_state(job)
        if state is JobState.SUCCEEDED:
            cached = self._cache.pods(namespace, job["metadata"]["uid"])
            if stage_job(job, cached).result is not None:
                return cached
        if state not in (JobState.SUCCEEDED, JobState.FAILED):
            query = {**query, "resourceVersion": "0"}
        return self._list_pods(namespace, job, query)

    def _list_pods(self, namespace: str, job: Json, query: dict[str, str]) -> list[Json]:
        selector = f"{names.LABEL_JOB_UID}={job['metadata']['uid']}"
        query = {**query, "labelSelector": selector}
        listed = self._kube.get(names.core_path(namespace, "pods"), query)
        pods: list[Json] = listed.get("items", [])
        return pods

    def _check_current(self, key: Key, raw: Json) -> None:
        """Check that the cached object is current, where no status write would notice it."""
        self._refresh(key)
        newest = self._cache.evolution(key)
        version = raw["metadata"]["resourceVersion"]
        if newest is None or newest["metadata"]["resourceVersion"] != version:
            raise Conflict(f"{key[0]}/{key[1]} has changed: it is reconciled again")

    def _write_status(
        self, key: Key, raw: Json, evolution: EmotionEvolution, status: EvolutionStatus
    ) -> EmotionEvolution:
        """Write the status under the version that was read; return the evolution with it."""
        written = self._replace_status(key, {**raw, "status": status.to_json()})
        version = written["metadata"]["resourceVersion"]
        metadata = evolution.metadata.model_copy(update={"resource_version": version})
        # all other fields are as they were read: the write was accepted under their version
        return evolution.model_copy(update={"metadata": metadata, "status": status})

    def _record_events(
        self, key: Key, evolution: EmotionEvolution, events: Sequence[Event]
    ) -> None:
        """Create the Events of a status that has been written."""
        for event in events:
            manifest = event_manifest(evolution, event, datetime.now(UTC), self._settings.identity)
            log.info("%s/%s: %s: %s", *key, event.reason, event.message)
            try:
                self._kube.create(names.core_path(key[0], "events"), manifest)
            except ApiError as error:  # no decision depends on Events: the status has everything
                log.warning("the Event %s of %s/%s was not created: %s", event.reason, *key, error)

    def _replace_status(self, key: Key, body: Json) -> Json:
        try:
            with self._cache.expect_write(body):
                written = self._kube.replace(names.evolution_path(key) + "/status", body)
                self._cache.store_evolution(written)
        except ApiError as error:
            if error.status == 404:
                self._cache.remove_evolution(key)
                raise Conflict(f"{key[0]}/{key[1]} has been deleted") from error
            if error.status == 409:
                self._refresh(key)
                raise Conflict(f"{key[0]}/{key[1]} has changed: it is reconciled again") from error
            raise
        return written

    def _refresh(self, key: Key) -> None:
        """Read an evolution from the API server into the cache."""
        try:
            self._cache.store_evolution(self._kube.get(names.evolution_path(key)))
        except ApiError as error:
            if error.status != 404:
                raise
            self._cache.remove_evolution(key)

    def _report_unreadable(self, key: Key, raw: Json, error: ValidationError) -> None:
        """Report a spec that cannot be resolved, or that an older or newer CRD has admitted."""
        message = "; ".join(str(problem) for problem in problems_of(error))
        status = with_unreadable_spec(raw, message, datetime.now(UTC))
        if status != raw.get("status"):
            log.warning("%s/%s cannot be read: %s", *key, message)
            self._replace_status(key, {**raw, "status": status})

    def _execute(self, key: Key, evolution: EmotionEvolution, action: Action) -> None:
        match action:
            case CreateJob():
                self._create_job(key, evolution, action)
            case DeleteJob(name=name, reason=reason):
                log.info("the Job %s/%s is being deleted: %s", key[0], name, reason)
                self._delete_job(key, evolution, name)
            case SuspendJob(name=name):
                self._set_suspend(key, name, suspend=True)
            case ResumeJob(name=name):
                self._set_suspend(key, name, suspend=False)
            case DeleteEvolution():
                # under its version: an edit that reopens it, or extends its time, comes first
                metadata = evolution.metadata
                path = names.evolution_path(key)
                self._kube.delete(path, metadata.uid, metadata.resource_version)

    def _create_job(self, key: Key, evolution: EmotionEvolution, action: CreateJob) -> None:
        uid = evolution.metadata.uid
        try:
            self._purger.sync_job(key, evolution)  # before there is any data
            if needs_service(action.config):
                service = service_manifest(evolution)
                self._create_or_get(names.core_path(key[0], "services"), service, uid)
            manifest = job_manifest(evolution, action, self._settings.jobs)
            with self._cache.expect_job(key[0], action.name):
                job = self._create_or_get(names.jobs_path(key[0]), manifest, uid)
                self._cache.store_job(job)
        except ApiError as error:
            if error.status in (400, 413, 422):
                text = f"the API server rejects {action.name}: {error.message}"
                self._rejections[uid] = (evolution.metadata.generation, text[:1500])
                raise Conflict(text) from error  # the next reconcile writes it to the status
            if error.status == 403 or error.reason == "OtherOwner":
                self._creation_errors[uid] = f"{action.name} cannot be created: {error.message}"[
                    :500
                ]
            raise
        self._creation_errors.pop(uid, None)

    def _create_or_get(self, path: str, manifest: Json, uid: str) -> Json:
        """Create an object, or return the existing one if an earlier attempt created it."""
        try:
            return self._kube.create(path, manifest)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        name = manifest["metadata"]["name"]
        existing = self._kube.get(f"{path}/{name}")
        owners = existing["metadata"].get("ownerReferences", [])
        if not any(owner.get("uid") == uid for owner in owners):
            # usually an earlier evolution of this name, and about to be garbage-collected
            text = f"the {manifest['kind']} {name} exists and belongs to another owner"
            raise ApiError(409, "OtherOwner", text)
        return existing

    def _delete_job(self, key: Key, evolution: EmotionEvolution, name: str) -> None:
        for job in self._cache.stage_jobs(key, evolution.metadata.uid):
            if job["metadata"]["name"] == name:
                self._kube.delete(names.job_path((key[0], name)), job["metadata"]["uid"])

    def _set_suspend(self, key: Key, name: str, *, suspend: bool) -> None:
        try:
            job = self._kube.patch(names.job_path((key[0], name)), {"spec": {"suspend": suspend}})
        except ApiError as error:
            if error.status != 404:
                raise
            return  # the watch delivers the deletion
        self._cache.store_job(job)


def _parse(raw: Json) -> EmotionEvolution:
    """Return an evolution after checking that the spec pinned in its status can be read as well."""
    evolution = EmotionEvolution.model_validate(raw)
    current = evolution.status.current
    if current is not None:
        EvolutionSpec.model_validate(current.spec)  # an older operator may have written it
    return evolution


def _next_pod_check(observed: Observed, now: datetime) -> datetime | None:
    """Return when to list the pods of a young Job, so that the reason of a wait is reported."""
    times = [
        since + age
        for job in observed.jobs
        if job.state is JobState.PENDING and (since := job.pending_since or job.create_time)
        for age in POD_CHECK_AGES
    ]
    return min((at for at in times if at > now), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None), default=None)
