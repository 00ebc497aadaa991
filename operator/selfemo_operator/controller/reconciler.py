"""One pass over one evolution: look, plan, write the status, act. All Kubernetes I/O of a pass.

The status is written first, under its resource version; the action follows only if that write was
accepted. Where there is nothing to write, the version is read again before the action. So a second
operator that is still alive, or a picture that is old, can do no harm: it is found out in time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from selfemo_api.api_model import first_problem
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import STAGE_ORDER
from selfemo_api.status import EvolutionStatus
from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.events import Event, event_manifest, events_between
from selfemo_operator.controller.objects.job_status import LACKING, job_state, needs_pods, stage_job
from selfemo_operator.controller.objects.jobs import (
    job_manifest,
    needs_service,
    service_manifest,
    template_hash,
)
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.pod_template import refusal
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

#: Ages of a Job at which its pods are looked at, should they not have started: once a kubelet has
#: tried the image, and once the Job should have pods. Each is a list of pods for each such Job.
LOOKS = (timedelta(seconds=15), LACKING + timedelta(seconds=1))


class Conflict(Exception):
    """The picture was old: look again."""


class Reconciler:
    """Carries evolutions on.

    Parameters
    ----------
    rest
        The API server.
    view
        The picture that watches keep; writes go into it at once.
    settings
        How the operator runs.
    """

    def __init__(self, kube: KubeClient, cache: Cache, settings: Settings) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._purger = Purger(kube, cache, settings.jobs)
        #: By uid: for which generation of the spec a Job was refused, and why.
        self._refused: dict[str, tuple[int, str]] = {}
        #: By uid: why the next Job could not be created for now.
        self._trouble: dict[str, str] = {}

    def reconcile(self, key: Key) -> datetime | None:
        """Do one pass; return when time alone asks for the next.

        Raises
        ------
        ApiError
            If the API server could not do what was asked; another pass mends it.
        Conflict
            If the picture was old; it is renewed.
        """
        raw = self._cache.evolution(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return self._purger.collect(key, None)  # the garbage collector takes the rest
        if raw["spec"].get("managedBy") not in (None, MANAGER):
            return None  # not even to say that it cannot be read
        try:
            evolution = _read(raw)
        except ValidationError as error:
            self._say_unreadable(key, raw, error)
            return None
        collect_at = self._purger.collect(key, evolution.metadata.uid)
        now = datetime.now(UTC)
        observed = self._observe(key, evolution, now)
        decision = plan(evolution, observed, now)
        wrote = decision.status != evolution.status
        news: Sequence[Event] = ()
        if wrote:
            news = events_between(evolution.status, decision.status)
            evolution = self._write(key, raw, evolution, decision.status)
        elif decision.action is not None:
            self._confirm(key, raw)
        try:
            if decision.action is not None:
                self._carry_out(key, evolution, decision.action)
            else:
                self._purger.keep(key, evolution)
        except (ApiError, Conflict):
            self._tell(key, evolution, news)  # what was written is so, whatever comes of the action
            raise
        self._tell(key, evolution, news)  # last: the next Job need not wait for it
        if wrote and decision.action is None:
            return now  # what follows from the new status; its return through the watch is no news
        new = isinstance(decision.action, CreateJob)
        settled = now + LOOKS[0] if new else _settling(observed, now)
        return _soonest(decision.requeue_at, settled, collect_at)

    def _observe(self, key: Key, evolution: EmotionEvolution, now: datetime) -> Observed:
        metadata, status = evolution.metadata, evolution.status
        why = None
        if not self._settings.jobs.host_access:
            why = refusal(evolution.spec.pod_template, STAGE_ORDER)
        found = []
        for job in self._cache.jobs(key, metadata.uid):
            seen = stage_job(job)
            current = (status.generation, status.stage, status.attempt)
            query = needs_pods(job, now)
            if seen.key == current and not status.finished and query is not None:
                seen = stage_job(job, self._pods(key[0], job, query), now)
            found.append(self._dated(evolution, job, seen))
        generation, said = self._refused.get(metadata.uid, (0, ""))
        return Observed(
            tuple(found),
            refusal=why or (said if generation == metadata.generation else ""),
            trouble=self._trouble.get(metadata.uid, ""),
        )

    def _dated(self, evolution: EmotionEvolution, job: Json, seen: StageJob) -> StageJob:
        """Return the Job with whether its pods would be placed otherwise by now."""
        said = job["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
        return replace(seen, outdated=said != template_hash(evolution, seen.stage))

    def _pods(self, namespace: str, job: Json, query: dict[str, str]) -> list[Json]:
        """Return a Job's pods, from where it costs least and is sure enough.

        A result has mostly come with the watch of pods. Why pods wait is told by the API server's
        cache. The newest state costs the API server a word with etcd, and us a twentieth of a
        second: it is asked for where no result of a Job has been seen that has one, and before a
        failure is judged, since what all its pods said counts there.
        """
        state = job_state(job)
        if state is JobState.SUCCEEDED:
            seen = self._cache.pods(namespace, job["metadata"]["uid"])
            if stage_job(job, seen).result is not None:
                return seen
        if state not in (JobState.SUCCEEDED, JobState.FAILED):
            query = {**query, "resourceVersion": "0"}
        return self._list_pods(namespace, job, query)

    def _list_pods(self, namespace: str, job: Json, query: dict[str, str]) -> list[Json]:
        selector = f"{names.LABEL_JOB_UID}={job['metadata']['uid']}"
        query = {**query, "labelSelector": selector}
        listed = self._kube.get(names.core_path(namespace, "pods"), query)
        pods: list[Json] = listed.get("items", [])
        return pods

    def _confirm(self, key: Key, raw: Json) -> None:
        """See that the picture is the newest, where no write is going to tell."""
        self._renew(key)
        newest = self._cache.evolution(key)
        version = raw["metadata"]["resourceVersion"]
        if newest is None or newest["metadata"]["resourceVersion"] != version:
            raise Conflict(f"{key[0]}/{key[1]} was changed meanwhile")

    def _write(
        self, key: Key, raw: Json, evolution: EmotionEvolution, status: EvolutionStatus
    ) -> EmotionEvolution:
        """Write the status under the version that was read."""
        written = self._put_status(key, {**raw, "status": status.to_json()})
        version = written["metadata"]["resourceVersion"]
        metadata = evolution.metadata.model_copy(update={"resource_version": version})
        # all else is as it was read: the write was made under its version
        return evolution.model_copy(update={"metadata": metadata, "status": status})

    def _tell(self, key: Key, evolution: EmotionEvolution, news: Sequence[Event]) -> None:
        """Write events of what is in the status by now."""
        for notice in news:
            event = event_manifest(evolution, notice, datetime.now(UTC), self._settings.identity)
            log.info("%s/%s: %s: %s", *key, notice.reason, notice.message)
            try:
                self._kube.create(names.core_path(key[0], "events"), event)
            except ApiError as error:  # an event is a courtesy: the status has it all
                log.warning("the event %s of %s/%s was not written: %s", notice.reason, *key, error)

    def _put_status(self, key: Key, body: Json) -> Json:
        try:
            with self._cache.writing(body):
                written = self._kube.replace(names.evolution_path(key) + "/status", body)
                self._cache.put_evolution(written)
        except ApiError as error:
            if error.status == 404:
                self._cache.drop_evolution(key)
                raise Conflict(f"{key[0]}/{key[1]} is gone") from error
            if error.status == 409:
                self._renew(key)
                raise Conflict(f"{key[0]}/{key[1]} was changed meanwhile") from error
            raise
        return written

    def _renew(self, key: Key) -> None:
        try:
            self._cache.put_evolution(self._kube.get(names.evolution_path(key)))
        except ApiError as error:
            if error.status != 404:
                raise
            self._cache.drop_evolution(key)

    def _say_unreadable(self, key: Key, raw: Json, error: ValidationError) -> None:
        """Report a spec that an older or newer CRD let through."""
        field, message = first_problem(error)
        status = with_unreadable_spec(raw, f"`{field}`: {message}", datetime.now(UTC))
        if status != raw.get("status"):
            log.warning("%s/%s cannot be read: %s: %s", *key, field, message)
            self._put_status(key, {**raw, "status": status})

    def _carry_out(self, key: Key, evolution: EmotionEvolution, action: Action) -> None:
        match action:
            case CreateJob():
                self._create(key, evolution, action)
            case DeleteJob(name=name, reason=reason):
                log.info("%s/%s is deleted: %s", key[0], name, reason)
                self._delete_job(key, evolution, name)
            case SuspendJob(name=name):
                self._set_suspend(key, name, suspend=True)
            case ResumeJob(name=name):
                self._set_suspend(key, name, suspend=False)
            case DeleteEvolution():
                # an edit that lets it go on, or lengthens its time, comes first
                metadata = evolution.metadata
                path = names.evolution_path(key)
                self._kube.delete(path, metadata.uid, metadata.resource_version)

    def _create(self, key: Key, evolution: EmotionEvolution, action: CreateJob) -> None:
        uid = evolution.metadata.uid
        try:
            self._purger.keep(key, evolution)  # before there is any data
            if needs_service(action.config):
                service = service_manifest(evolution)
                self._create_once(names.core_path(key[0], "services"), service, uid)
            manifest = job_manifest(evolution, action, self._settings.jobs)
            with self._cache.creating(key[0], action.name):
                self._cache.put_job(self._create_once(names.jobs_path(key[0]), manifest, uid))
        except ApiError as error:
            if error.status in (400, 413, 422):
                text = f"the API server refuses {action.name}: {error.message}"
                self._refused[uid] = (evolution.metadata.generation, text[:1500])
                raise Conflict(text) from error  # the next pass puts it into the status
            if error.status == 403 or error.reason == "Leftover":
                self._trouble[uid] = f"{action.name} cannot be created: {error.message}"[:500]
            raise
        self._trouble.pop(uid, None)

    def _create_once(self, path: str, manifest: Json, uid: str) -> Json:
        """Create an object, or return the one that is there: an earlier try went through."""
        try:
            return self._kube.create(path, manifest)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        name = manifest["metadata"]["name"]
        found = self._kube.get(f"{path}/{name}")
        owners = found["metadata"].get("ownerReferences", [])
        if not any(owner.get("uid") == uid for owner in owners):
            # most likely of an earlier evolution of this name, and about to be collected
            text = f"the {manifest['kind']} {name} is there and belongs to somebody else"
            raise ApiError(409, "Leftover", text)
        return found

    def _delete_job(self, key: Key, evolution: EmotionEvolution, name: str) -> None:
        for job in self._cache.jobs(key, evolution.metadata.uid):
            if job["metadata"]["name"] == name:
                self._kube.delete(names.job_path((key[0], name)), job["metadata"]["uid"])

    def _set_suspend(self, key: Key, name: str, *, suspend: bool) -> None:
        try:
            job = self._kube.merge(names.job_path((key[0], name)), {"spec": {"suspend": suspend}})
        except ApiError as error:
            if error.status != 404:
                raise
            return  # its deletion will be seen
        self._cache.put_job(job)


def _read(raw: Json) -> EmotionEvolution:
    """Return an evolution, and see that the spec pinned in its status can be read as well."""
    evolution = EmotionEvolution.model_validate(raw)
    if evolution.status.current is not None:
        EvolutionSpec.model_validate(evolution.status.current.spec)  # an older operator may have written it
    return evolution


def _settling(observed: Observed, now: datetime) -> datetime | None:
    """Return when a young Job's pods should have started, so that a wait is told then."""
    times = [
        since + age
        for job in observed.jobs
        if job.state is JobState.PENDING and (since := job.pending_since or job.create_time)
        for age in LOOKS
    ]
    return min((at for at in times if at > now), default=None)


def _soonest(*times: datetime | None) -> datetime | None:
    return min((at for at in times if at is not None), default=None)
