"""A cache of the objects that the operator watches: evolutions, stage Jobs and succeeded pods.

Objects are kept as JSON text: as Python objects, 500 evolutions would take 50 MB. Of evolutions the
watch announces versions only; a reconcile reads the object itself if the cache is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json

from selfemo_operator.controller.caches.deleted_evolutions import DeletedEvolutions
from selfemo_operator.controller.caches.evolution_cache import (
    EvolutionCache,
    in_namespace,
    object_key,
    object_version,
    store_newer,
)
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import (
    STATUS_CHANGE_TIME,
    is_finishing,
    is_purge_job,
    is_stage_job,
    last_status_change,
    relevant_state,
)
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.controller.objects.ownership import job_uid
from selfemo_operator.controller.objects.pod_status import removal_time

Json = dict[str, Any]

#: The labels and annotations of Jobs that the operator reads.
_LABELS = frozenset(
    {
        *(names.LABEL_NAME, names.LABEL_COMPONENT, names.LABEL_MANAGED_BY, names.LABEL_EVOLUTION),
        *(names.LABEL_UID, names.LABEL_GENERATION, names.LABEL_ATTEMPT, names.LABEL_QUEUE),
    }
)
_ANNOTATIONS = frozenset(
    {
        *(names.ANNOTATION_TEMPLATE, names.ANNOTATION_JOB, names.ANNOTATION_CREATION),
        *(names.ANNOTATION_SEEN, names.ANNOTATION_DEADLINE, names.ANNOTATION_SUSPENDED),
    }
)
#: The longest value of these annotations in characters. The operator writes hashes and numbers.
_LONGEST_VALUE = 1024


class Cache(EvolutionCache):
    """A thread-safe cache. It holds the newest version of each object that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[Key, dict[str, tuple[int, bytes]]] = {}
        #: Pods by the namespace and the uid of their Job.
        self._pods: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
        #: Pods that the platform removed, by the namespace and the uid of their Job: the time of
        #: each by its uid.
        self._removals: dict[tuple[str, str], dict[str, str]] = {}
        self._expected_jobs: set[tuple[str, str]] = set()
        #: Jobs that were cached and are deleted, by evolution: the evolution's uid and the name.
        self._deleted_jobs: dict[Key, set[tuple[str, str]]] = {}
        self.deleted = DeletedEvolutions()

    @contextmanager
    def expect_job(self, namespace: str, name: str) -> Iterator[None]:
        """Declare the creation of a Job: its watch event then counts as no change."""
        with self._lock:
            self._expected_jobs.add((namespace, name))
        try:
            yield
        finally:
            with self._lock:
                self._expected_jobs.discard((namespace, name))

    def clear(self) -> None:
        """Remove everything: the API server's data was restored from a backup."""
        with self._lock:
            self._evolutions, self._jobs, self._pods, self._removals = {}, {}, {}, {}
            self._deleted_jobs = {}  # the restored data may have these Jobs, or be older than them
            self._announced, self._deleted, self._latest = {}, {}, 0

    def delete_evolution(self, item: Json) -> None:
        """Remove an evolution that was deleted, unless the cache has a newer one of its name.

        Parameters
        ----------
        item
            The metadata of the evolution, as a watch sends it with the deletion.
        """
        key, uid = object_key(item), item["metadata"]["uid"]
        self.remove_evolution(key, object_version(item), uid)
        with self._lock:
            if self._has_purge_job(key):
                self.deleted.record_version(key, uid, object_version(item))

    def store_job(self, item: Json) -> Key | None:
        """Store a Job; return its evolution's key if that must be reconciled, otherwise None."""
        if not _is_managed(item):
            return None
        _strip_job(item)
        key = _evolution_key(item)
        with self._lock:
            jobs = self._jobs.setdefault(key, {})
            name = item["metadata"]["name"]
            before = jobs.get(name)
            if not store_newer(jobs, name, item) or is_finishing(item):
                return None
            if before is None:
                return None if (key[0], name) in self._expected_jobs else key
            return key if relevant_state(from_json(before[1])) != relevant_state(item) else None

    def remove_job(self, item: Json) -> Key | None:
        """Remove a deleted Job, unless the cache has a newer one; return its evolution's key."""
        if not _is_managed(item):
            return None
        key = _evolution_key(item)
        with self._lock:
            self._removals.pop((key[0], item["metadata"].get("uid", "")), None)
            jobs = self._jobs.get(key, {})
            self._remove_job(key, item["metadata"]["name"], object_version(item))
            if not jobs:
                self._jobs.pop(key, None)
            if is_purge_job(item):
                self.deleted.forget(key, item["metadata"]["labels"][names.LABEL_UID])
        return key

    def job_versions(self, namespace: str | None) -> dict[Key, int]:
        """Return the versions of the cached Jobs of a namespace, or of all, by their names."""
        with self._lock:
            return {
                (key[0], name): version
                for key, jobs in self._jobs.items()
                if in_namespace(key, namespace)
                for name, (version, _) in jobs.items()
            }

    def stage_jobs(self, key: Key, uid: str) -> list[Json]:
        """Return the stage Jobs of an evolution.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid: an earlier evolution of this name had another one.
        """
        jobs = self._select_jobs(key, lambda name: not name.endswith(names.PURGE_SUFFIX))
        return [j for j in jobs if j["metadata"]["labels"].get(names.LABEL_UID) == uid]

    def has_deleted_job(self, key: Key, uid: str, name: str) -> bool:
        """Return whether the cache had a stage Job of an evolution that was deleted since.

        The names of the evolution's other Jobs are forgotten: it does not return to them.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid.
        name
            The name of the Job of its current attempt, which the cache does not have.
        """
        with self._lock:
            is_deleted = (uid, name) in self._deleted_jobs.pop(key, ())
            if is_deleted:
                self._deleted_jobs[key] = {(uid, name)}
            return is_deleted

    def purge_jobs(self, key: Key) -> list[Json]:
        """Return the Jobs that remove data, of all evolutions that have had a name."""
        return self._select_jobs(key, lambda name: name.endswith(names.PURGE_SUFFIX))

    def store_pod(self, item: Json) -> None:
        """Store a succeeded pod: its name, and the statuses of its containers.

        Of a pod that the platform removed, only its uid and the time are stored.
        """
        job = _job_key(item)
        if job is None:
            return
        removed_at = removal_time(item)
        if removed_at is not None:
            with self._lock:
                self._removals.setdefault(job, {}).setdefault(item["metadata"]["uid"], removed_at)
        if item.get("status", {}).get("phase") != "Succeeded":
            return
        metadata = {name: item["metadata"][name] for name in ("name", "resourceVersion")}
        containers = item.get("status", {}).get("containerStatuses", [])
        pod = {"metadata": metadata, "status": {"containerStatuses": containers}}
        with self._lock:
            store_newer(self._pods.setdefault(job, {}), metadata["name"], pod)

    def remove_pod(self, item: Json) -> None:
        """Remove a deleted pod."""
        job = _job_key(item)
        if job is None:
            return
        with self._lock:
            pods = self._pods.get(job, {})
            _remove(pods, item["metadata"]["name"], object_version(item))
            if not pods:
                self._pods.pop(job, None)

    def clear_pods(self, namespace: str | None) -> None:
        """Remove the pods of a namespace; None: all pods."""
        with self._lock:
            self._pods = {k: v for k, v in self._pods.items() if not in_namespace(k, namespace)}
            # those that a status has are counted, and the others are about to be sent again
            self._removals = {
                k: v for k, v in self._removals.items() if not in_namespace(k, namespace)
            }

    def pods(self, namespace: str, job_uid: str) -> list[Json]:
        """Return the cached pods of a Job that have succeeded."""
        with self._lock:
            texts = [text for _, text in self._pods.get((namespace, job_uid), {}).values()]
        return [from_json(text) for text in texts]

    def removals(self, namespace: str, job_uid: str) -> list[tuple[str, str]]:
        """Return the time and the uid of each pod of a Job that the platform removed, in order."""
        with self._lock:
            removed = self._removals.get((namespace, job_uid), {})
            return sorted((time, uid) for uid, time in removed.items())

    def orphan_keys(self) -> list[Key]:
        """Return the keys of evolutions that have Jobs and are not in the cache."""
        with self._lock:
            return sorted(self._jobs.keys() - self._evolutions.keys())

    def _select_jobs(self, key: Key, matches: Callable[[str], bool]) -> list[Json]:
        with self._lock:
            jobs = self._jobs.get(key, {})
            texts = [text for name, (_, text) in jobs.items() if matches(name)]
        return [from_json(text) for text in texts]

    def prune_jobs(self, listed: Set[Key], version: int, namespace: str | None) -> list[Key]:
        """Remove the Jobs that a list does not contain; return the keys of their evolutions.

        Parameters
        ----------
        listed
            The namespaces and names of the Jobs in the list.
        version
            The resource version of the list. Newer Jobs stay.
        namespace
            The namespace of the list. None: the list is of all namespaces.
        """
        changed = []
        with self._lock:
            for key, jobs in list(self._jobs.items()):
                if not in_namespace(key, namespace):
                    continue
                for name in [n for n in jobs if (key[0], n) not in listed]:
                    if self._remove_job(key, name, version):
                        changed.append(key)
                if not jobs:
                    del self._jobs[key]
                if not self._has_purge_job(key):
                    self.deleted.forget(key)
        return changed

    def _remove_job(self, key: Key, name: str, version: int) -> bool:
        """Remove a Job if it is not newer than a version, and record that; return whether."""
        jobs = self._jobs.get(key, {})
        before = jobs.get(name)
        if before is None or not _remove(jobs, name, version):
            return False
        if key in self._evolutions or key in self._announced:
            uid = from_json(before[1])["metadata"]["labels"].get(names.LABEL_UID, "")
            self._deleted_jobs.setdefault(key, set()).add((uid, name))
        return True

    def _remove_evolution(self, key: Key, version: int | None, uid: str) -> bool:
        is_removed = super()._remove_evolution(key, version, uid)
        if is_removed:
            self._deleted_jobs.pop(key, None)
        return is_removed

    def _has_purge_job(self, key: Key) -> bool:
        return any(name.endswith(names.PURGE_SUFFIX) for name in self._jobs.get(key, {}))


def _is_managed(job: Json) -> bool:
    """Return whether the operator created a Job."""
    return is_stage_job(job) or is_purge_job(job)


def _remove(items: dict[Any, tuple[int, bytes]], key: Any, version: int | None) -> bool:
    """Remove an object if it is not newer than a version; return whether it was removed."""
    before = items.get(key)
    if before is None or (version is not None and before[0] > version):
        return False
    del items[key]
    return True


def _evolution_key(job: Json) -> Key:
    return job["metadata"]["namespace"], job["metadata"]["labels"].get(names.LABEL_EVOLUTION, "")


def _job_key(pod: Json) -> tuple[str, str] | None:
    """Return the namespace and uid of a pod's Job, or None if the pod does not belong to one."""
    uid = job_uid(pod)
    return (pod["metadata"]["namespace"], uid) if uid else None


def _strip_job(job: Json) -> None:
    """Remove the fields that the operator does not read: the pod template is most of a Job.

    Others may write labels and annotations, and 256 KiB of the latter.
    """
    metadata = job["metadata"]
    metadata[STATUS_CHANGE_TIME] = last_status_change(job)
    metadata.pop("managedFields", None)
    metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k in _LABELS}
    annotations = (metadata.get("annotations") or {}).items()
    metadata["annotations"] = {
        k: v for k, v in annotations if k in _ANNOTATIONS and len(v) <= _LONGEST_VALUE
    }
    job["spec"].pop("template", None)
