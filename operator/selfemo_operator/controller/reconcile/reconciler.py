"""One reconcile of one evolution: observe, plan, write the status, act.

The status is written first, under its resource version; the action follows only if that write was
accepted. If there is nothing to write, the version is read again before the action. So neither a
second operator that is still running nor a stale cache can do harm: the conflict is noticed first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.error_messages import problems_of
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import job_name
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_text import REFUSED
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.deadlines import has_deadline
from selfemo_operator.controller.objects.events import Event, EventReason, events_between
from selfemo_operator.controller.objects.job_status import (
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
from selfemo_operator.controller.objects.ownership import job_uid
from selfemo_operator.controller.objects.pod_gate import refusal
from selfemo_operator.controller.objects.settings import Settings
from selfemo_operator.controller.reconcile.creation_errors import CreationErrors, RejectedJob
from selfemo_operator.controller.reconcile.job_changes import JobChanges
from selfemo_operator.controller.reconcile.pod_checks import PodChecks
from selfemo_operator.controller.reconcile.purge import OTHER_OWNER, Purger
from selfemo_operator.controller.reconcile.status_writer import Conflict, StatusWriter
from selfemo_operator.planner.plan import plan
from selfemo_operator.planner.replacement import is_without_pod
from selfemo_operator.planner.types import (
    Action,
    CreateJob,
    DeleteEvolution,
    DeleteJob,
    JobState,
    Observed,
    Removal,
    ResumeJob,
    SetDeadline,
    StageJob,
    SuspendJob,
)

Json = dict[str, Any]
log = logging.getLogger(__name__)


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
    run_later
        A function that runs another one at any later time. It is used for what no decision waits
        for. By default, it runs it at once.
    """

    def __init__(
        self,
        kube: KubeClient,
        cache: Cache,
        settings: Settings,
        run_later: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._jobs = JobChanges(kube, cache)
        self._pod_checks = PodChecks()
        self._purger = Purger(kube, cache, settings)
        self._statuses = StatusWriter(kube, cache, settings.identity, run_later)
        #: The uid of each evolution that was reconciled, by which the next three are kept.
        self._uids: dict[Key, str] = {}
        self._creation_errors = CreationErrors()
        #: By uid: why the purge Job could not be created, as it was last reported.
        self._purge_errors: dict[str, str] = {}

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
        RejectedJob
            If the API server rejects a Job as invalid.
        """
        self.refresh(key)
        raw = self._cache.evolution(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._forget(key)
            # the garbage collector deletes all other objects
            return self._purger.reconcile_orphans(key, None)
        if raw.get("spec", raw).get("managedBy") not in (None, names.MANAGER):
            return None  # another controller's: nothing is written, even if it cannot be read
        now = datetime.now(UTC)
        if retry_at := self._statuses.retry_at(raw, key, now):
            return retry_at
        try:
            evolution = _parse(raw)
        except (ValidationError, _Refused) as error:
            self._report_unreadable(key, raw, _text_of(error), now)
            return None
        self._remember(key, evolution.metadata.uid)
        purge_at = self._purger.reconcile_orphans(key, evolution.metadata.uid)
        observed = self._observe(key, evolution, now)
        self._jobs.started.record(key, evolution, observed.jobs)
        decision = plan(evolution, observed, now)
        observed = self._jobs.with_live_pod(key, evolution, decision.action, observed, now)
        if observed.live_pod:
            decision = plan(evolution, observed, now)
        changed = decision.status != evolution.status
        events: Sequence[Event] = ()
        if changed:
            events = events_between(evolution.status, decision.status)
            evolution = self._statuses.write(key, raw, evolution, decision.status, now)
        elif decision.action is not None:
            self._statuses.check_current(key, raw)
        try:
            if decision.action is not None:
                self._execute(key, evolution, decision.action)
            else:
                self._sync_purge_job(key, evolution)
        except (ApiError, Conflict, RejectedJob):
            # the status is written, whether or not the action succeeds
            self._statuses.record_events(key, evolution, events, now)
            raise
        # last: the next Job does not wait for them
        self._statuses.record_events(key, evolution, events, now)
        if changed and decision.action is None:
            return now  # the new status may require an action, and its watch event is ignored
        pod_check_at = self._pod_checks.next_check(key, observed, now)
        if isinstance(decision.action, CreateJob):
            pod_check_at = self._pod_checks.created(key, decision.action.name, now)
        return _earliest(decision.requeue_at, pod_check_at, purge_at)

    def _report_unreadable(self, key: Key, raw: Json, problem: str, now: datetime) -> None:
        """Report that an evolution cannot be read. No Job follows, and `suspend` stops the last."""
        uid, suspend = raw["metadata"]["uid"], raw.get("spec", {}).get("suspend", False)
        self._jobs.end_wait(uid)
        active = self._jobs.active(key, uid)
        running = [job for job in active if job.state is not JobState.SUSPENDED]
        fate = "is stopped" if suspend or not running else "continues, and no other Job follows"
        text = "; ".join([problem, *(f"the Job {job.name} {fate}" for job in active)])
        to_stop = running if suspend else []
        if not self._statuses.report_unreadable(key, raw, text, now) and to_stop:
            self._statuses.check_current(key, raw)
        for job in to_stop:
            self._jobs.stop(key, uid, job)

    def _remember(self, key: Key, uid: str) -> None:
        """Record the uid of an evolution. Forget one that was deleted and had the same name."""
        if self._uids.get(key, uid) != uid:
            self._forget(key)
        self._uids[key] = uid

    def _forget(self, key: Key) -> None:
        """Forget what this process knows of an evolution that was deleted."""
        self._statuses.forget(key)
        self._jobs.started.forget(key)
        self._pod_checks.forget(key)
        uid = self._uids.pop(key, "")
        self._creation_errors.clear(uid)
        self._purge_errors.pop(uid, None)

    def refresh(self, key: Key) -> None:
        """Read an evolution if a newer version than the cached one was announced.

        Raises
        ------
        ApiError
            If the API server rejects the request or cannot be reached.
        """
        if self._cache.is_behind(key):
            self._statuses.refresh(key)

    @property
    def rejected_statuses(self) -> int:
        """The number of evolutions whose status the API server rejects."""
        return self._statuses.rejected

    def _observe(self, key: Key, evolution: EmotionEvolution, now: datetime) -> Observed:
        metadata, status = evolution.metadata, evolution.status
        refused = refusal(evolution, self._settings.jobs)
        current = (status.generation, status.stage, status.attempt)
        limit = evolution.spec.deadlines.stage_active_seconds
        jobs = []
        for manifest in self._cache.stage_jobs(key, metadata.uid):
            job = stage_job(manifest)
            query = pod_query(manifest, now)
            pairs = self._cache.removals(key[0], manifest["metadata"]["uid"])
            removals = tuple(Removal(datetime.fromisoformat(at), pod) for at, pod in pairs)
            if job.key == current and not status.finished and query is not None:
                # an operator that was not running then has them from the status
                at = [r.time for r in (*removals, *(status.recent_replacements or ()))]
                job = self._with_pods(key, evolution, manifest, query, now, at)
            job = replace(
                job,
                outdated=bool(refused) or self._is_outdated(evolution, manifest, job),
                removals=removals,
                deadline_outdated=not has_deadline(manifest, limit),
            )
            jobs.append(job)
        name = _current_name(evolution)
        is_missing = name not in [job.name for job in jobs]
        is_deleted = is_missing and self._cache.has_deleted_job(key, metadata.uid, name)
        return Observed(
            tuple(jobs),
            deleted_job=name if is_deleted else "",
            refusal=refused or self._creation_errors.rejection(metadata.uid, metadata.generation),
            trouble=self._creation_errors.trouble(metadata.uid),
        )

    def _is_outdated(self, evolution: EmotionEvolution, manifest: Json, job: StageJob) -> bool:
        """Return whether an edit of the spec or of the defaults changes where a Job's pods run."""
        created_with = manifest["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
        current = template_hash(evolution, job.stage, self._settings.jobs.pod_template)
        return bool(created_with != current)

    def _with_pods(
        self,
        key: Key,
        evolution: EmotionEvolution,
        manifest: Json,
        query: dict[str, str],
        now: datetime,
        removals: Sequence[datetime],
    ) -> StageJob:
        """Return the Job of the current attempt as its pods are now."""
        uid = manifest["metadata"]["uid"]
        job = stage_job(manifest, self._pods(key[0], manifest, query), now, removals)
        job = self._jobs.with_missing_pods(evolution, uid, job, now)
        if not is_without_pod(evolution.status, job, now):
            return job
        # The Job is about to be deleted, and a list from the API server's cache may be an old one.
        job = stage_job(manifest, self._list_pods(key[0], manifest, {}), now)
        return self._jobs.with_missing_pods(evolution, uid, job, now)

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
        return [pod for pod in listed.get("items", []) if job_uid(pod) == job["metadata"]["uid"]]

    def _execute(self, key: Key, evolution: EmotionEvolution, action: Action) -> None:
        uid = evolution.metadata.uid
        match action:
            case CreateJob():
                self._create_job(key, evolution, action)
            case DeleteJob(name=name, reason=reason):
                self._jobs.delete(key, uid, name, reason)
            case SuspendJob(name=name):
                self._jobs.suspend(key, uid, name)
            case ResumeJob(name=name):
                self._jobs.resume(key, uid, name)
            case SetDeadline(name=name, seconds=seconds):
                self._jobs.set_deadline(key, uid, name, seconds)
            case DeleteEvolution():
                # under its version: an edit that reopens it, or extends its time, comes first
                version = evolution.metadata.resource_version
                self._kube.delete(names.evolution_path(key), uid, version)

    def _create_job(self, key: Key, evolution: EmotionEvolution, action: CreateJob) -> None:
        uid = evolution.metadata.uid
        try:
            self._purger.sync_job(key, evolution)  # before there is any data
            if needs_service(action.config):
                service = service_manifest(evolution)
                self._create_or_get(names.core_path(key[0], "services"), service, uid)
            manifest = job_manifest(evolution, action, self._settings.jobs)
            self._jobs.before_creation(evolution)
            with self._cache.expect_job(key[0], action.name):
                job = self._create_or_get(names.jobs_path(key[0]), manifest, uid)
                self._cache.store_job(job)
            self._jobs.leave_to_queue(key, uid, job)
        except ApiError as error:
            self._creation_errors.record(uid, evolution.metadata.generation, action.name, error)
            raise
        self._creation_errors.clear(uid)

    def _sync_purge_job(self, key: Key, evolution: EmotionEvolution) -> None:
        """Synchronize the purge Job. One that is rejected, or of somebody else, is reported once.

        The next resync tries again. The next stage is not started before: its data would stay after
        a deletion.
        """
        uid = evolution.metadata.uid
        try:
            self._purger.sync_job(key, evolution)
        except ApiError as error:
            if error.is_retryable:
                raise
            if self._purge_errors.get(uid) != error.message:
                self._purge_errors[uid] = error.message
                event = Event(EventReason.PURGE_JOB_CONFLICT, error.message, warning=True)
                self._statuses.record_events(key, evolution, [event], datetime.now(UTC))
        else:
            self._purge_errors.pop(uid, None)

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
            raise ApiError(409, OTHER_OWNER, text)
        return existing


class _Refused(Exception):
    """The resource is too large, or nested too deeply, to be read."""


def _text_of(error: ValidationError | _Refused) -> str:
    """Return why an evolution cannot be read."""
    if isinstance(error, _Refused):
        return str(error)
    return "; ".join(str(problem) for problem in problems_of(error))


def _parse(raw: Json) -> EmotionEvolution:
    """Return an evolution after checking that the spec pinned in its status can be read as well."""
    if REFUSED in raw:
        raise _Refused(raw[REFUSED])
    evolution = EmotionEvolution.model_validate(raw)
    current = evolution.status.current
    if current is not None:
        EvolutionSpec.model_validate(current.spec)  # an older operator may have written it
    return evolution


def _current_name(evolution: EmotionEvolution) -> str:
    """Return the name of the Job of the current attempt; an empty text if there is no attempt."""
    status = evolution.status
    if status.stage is None or status.finished:
        return ""
    return job_name(evolution.metadata.name, status.generation, status.stage, status.attempt)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None), default=None)
