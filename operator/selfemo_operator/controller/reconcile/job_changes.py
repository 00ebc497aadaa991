"""Changes of stage Jobs that exist, and the look for pods that an earlier Job has left.

Each change is made to one Job, by its uid: another Job may have taken the name since it was read.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.deadlines import deadline_change
from selfemo_operator.controller.objects.job_status import stage_job
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.pod_status import LIVE_PODS, is_live_stage_pod
from selfemo_operator.controller.reconcile.started_stages import StartedStages
from selfemo_operator.controller.reconcile.status_writer import Conflict
from selfemo_operator.planner.types import Action, CreateJob, Observed, StageJob

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: A list from the API server's cache. A pod of an earlier stage was created long before. One of an
#: earlier attempt may be as young as its Job, if that was deleted at once: its list is consistent.
_FROM_CACHE = {"resourceVersion": "0"}


#: The time for which a look that found no pod holds. After a conflict, a reconcile is repeated.
_LOOK_HOLDS = timedelta(seconds=10)


class JobChanges:
    """Changes stage Jobs that exist.

    Parameters
    ----------
    kube
        The client of the API server.
    cache
        The cache of the reconciler.
    """

    def __init__(self, kube: KubeClient, cache: Cache) -> None:
        self._kube = kube
        self._cache = cache
        #: By the uid of an evolution: the Job that waits for a pod to end, and since when.
        self._waits: dict[str, tuple[str, datetime]] = {}
        #: By the uid of an evolution: the uid of its Job that has no pod, and since when.
        self._podless: dict[str, tuple[str, datetime]] = {}
        #: By the uid of an evolution: the Job before whose creation no pod was alive, and when.
        self._free: dict[str, tuple[str, datetime]] = {}
        self.started = StartedStages()
        """The stages that may have had a Job."""

    def with_live_pod(
        self,
        key: Key,
        evolution: EmotionEvolution,
        action: Action | None,
        observed: Observed,
        now: datetime,
    ) -> Observed:
        """Return what was observed, with a pod for whose end the creation of a Job has to wait.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        evolution
            The evolution.
        action
            The action of the plan. A Job waits only if it is to be created.
        observed
            What was observed before.
        now
            The current time.
        """
        uid = evolution.metadata.uid
        if not isinstance(action, CreateJob):
            self.end_wait(uid)
            return observed
        name, looked_at = self._free.get(uid, ("", now))
        is_recent = name == action.name and abs(now - looked_at) <= _LOOK_HOLDS
        # before a later attempt, the Job controller may still create a pod of a deleted Job
        if self.started.begin(key, uid, action) or (is_recent and action.attempt == 1):
            return observed
        component, selector = action.config.stage.slug, f"{names.LABEL_UID}={uid}"
        if self.started.is_looked_at(key, uid):
            selector += f",{names.LABEL_COMPONENT}={component}"
        query = {**LIVE_PODS, "labelSelector": selector}
        if action.attempt == 1:
            query |= _FROM_CACHE
        listed = self._kube.get(names.core_path(key[0], "pods"), query)
        live = [pod["metadata"] for pod in listed.get("items", []) if is_live_stage_pod(pod)]
        if not live:
            self.started.record_look(key, uid)
        pods = sorted(m["name"] for m in live if m["labels"][names.LABEL_COMPONENT] == component)
        if not pods:
            self.end_wait(uid)
            self._free[uid] = action.name, now
            return observed
        waiting, since = self._waits.get(uid, ("", now))
        self._waits[uid] = action.name, since if waiting == action.name else now
        return replace(observed, live_pod=pods[0], live_pod_since=self._waits[uid][1])

    def end_wait(self, uid: str) -> None:
        """Forget the wait for a pod: no Job is to be created, so none is held up.

        Parameters
        ----------
        uid
            The uid of the evolution.
        """
        self._waits.pop(uid, None)

    def with_missing_pods(
        self, evolution: EmotionEvolution, uid: str, job: StageJob, now: datetime
    ) -> StageJob:
        """Return a Job with the time at which this process noticed that its pods are missing.

        The time that the Job controller has written is not used: its clock may be another one, and
        a Job is deleted because of this time.

        Parameters
        ----------
        evolution
            The evolution.
        uid
            The uid of the Job.
        job
            The Job of the current stage and attempt, after its pods were listed.
        now
            The current time.
        """
        owner = evolution.metadata.uid
        if job.missing_pods_since is None:
            self._podless.pop(owner, None)
            return job
        known, since = self._podless.get(owner, ("", now))
        self._podless[owner] = uid, since if known == uid else now
        return replace(job, missing_pods_since=self._podless[owner][1])

    def before_creation(self, evolution: EmotionEvolution) -> None:
        """Forget that no pod was alive: from now on, the new Job may have some."""
        self._free.pop(evolution.metadata.uid, None)

    def active(self, key: Key, uid: str) -> list[StageJob]:
        """Return the stage Jobs of the evolution with a uid that have not ended."""
        jobs = map(stage_job, self._cache.stage_jobs(key, uid))
        return sorted((job for job in jobs if not job.state.is_final), key=lambda job: job.name)

    def stop(self, key: Key, uid: str, job: StageJob) -> None:
        """Stop a Job because the evolution is suspended.

        A Job of a queue is deleted: the queue would start it again.
        """
        if job.queued:
            self.delete(key, uid, job.name, "the evolution is suspended")
        else:
            self.suspend(key, uid, job.name)

    def suspend(self, key: Key, uid: str, name: str) -> None:
        """Suspend a Job because the evolution is suspended."""
        self._patch(key, uid, name, {"suspend": True}, _suspended(names.BY_OPERATOR))

    def resume(self, key: Key, uid: str, name: str) -> None:
        """Resume a Job.

        If the operator did not suspend it, another controller may. The Job is resumed once; if it
        is suspended again, it is left to the other controller.
        """
        job = self._find(key, uid, name)
        was_own = job is not None and _suspended_by(job) == names.BY_OPERATOR
        value = names.BY_NONE if was_own else names.BY_ANOTHER
        self._patch(key, uid, name, {"suspend": False}, _suspended(value))

    def set_deadline(self, key: Key, uid: str, name: str, seconds: int | None) -> None:
        """Give a Job another deadline, in seconds from its start. None: no deadline."""
        change, annotations = deadline_change(seconds)
        log.info("the Job %s/%s gets the deadline of the spec: %s s", key[0], name, seconds)
        self._patch(key, uid, name, change, annotations)

    def delete(self, key: Key, uid: str, name: str, reason: str) -> None:
        """Delete a Job as it was read. The log has the reason.

        Raises
        ------
        Conflict
            If the Job has changed. It may have ended meanwhile, and a Job that has ended stays.
        ApiError
            If the API server rejects the request or cannot be reached.
        """
        job = self._find(key, uid, name)
        if job is None:
            return
        log.info("the Job %s/%s is being deleted: %s", key[0], name, reason)
        metadata = job["metadata"]
        path = names.job_path((key[0], name))
        if not self._kube.delete(path, metadata["uid"], metadata["resourceVersion"]):
            raise Conflict(f"the Job {key[0]}/{name} was not deleted: it has changed")

    def leave_to_queue(self, key: Key, uid: str, job: Json) -> None:
        """Note on a Job that was created, if an admission webhook suspended it at once.

        Kueue does this with all Jobs if it has `manageJobsWithoutQueueName`.
        """
        if job["spec"].get("suspend") and _suspended_by(job) is None:
            name = job["metadata"]["name"]
            if names.LABEL_QUEUE not in job["metadata"].get("labels", {}):
                log.info("the Job %s/%s is left to the controller that suspended it", key[0], name)
                self._patch(key, uid, name, {}, _suspended(names.BY_ANOTHER))

    def _find(self, key: Key, uid: str, name: str) -> Json | None:
        jobs = self._cache.stage_jobs(key, uid)
        return next((job for job in jobs if job["metadata"]["name"] == name), None)

    def _patch(
        self,
        key: Key,
        uid: str,
        name: str,
        spec: Json,
        annotations: dict[str, str],
    ) -> None:
        """Change a Job's spec, and the annotations that say what the operator has asked for."""
        job = self._find(key, uid, name)
        if job is None:
            return  # the watch has delivered its deletion
        metadata: Json = {"uid": job["metadata"]["uid"], "annotations": annotations}
        body: Json = {"metadata": metadata, **({"spec": spec} if spec else {})}
        try:
            changed = self._kube.patch(names.job_path((key[0], name)), body)
        except ApiError as error:
            if error.status == 404:
                return  # the watch delivers the deletion
            if error.status in (409, 422):
                # the uid is another one: the Job was deleted, and its name is used again
                text = f"the Job {key[0]}/{name} was not changed: {error.message}"
                raise Conflict(text) from error
            raise
        self._cache.store_job(changed)


def _suspended(by: str) -> dict[str, str]:
    """Return the annotation that says who suspended a Job."""
    return {names.ANNOTATION_SUSPENDED: by}


def _suspended_by(job: Json) -> str | None:
    annotations = job["metadata"].get("annotations") or {}
    value: str | None = annotations.get(names.ANNOTATION_SUSPENDED)
    return value
