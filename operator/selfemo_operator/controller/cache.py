"""A cache of the objects that the operator watches: evolutions, stage Jobs and succeeded pods.

Objects are kept as JSON text: as Python objects, 500 evolutions would take 50 MB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json, to_json

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

Json = dict[str, Any]

#: The fields of an object's metadata that every write changes.
_WRITE_METADATA = ("resourceVersion", "managedFields")


def object_key(item: Json) -> Key:
    """Return an object's namespace and name.

    >>> object_key({"metadata": {"namespace": "team", "name": "demo"}})
    ('team', 'demo')
    """
    return item["metadata"]["namespace"], item["metadata"]["name"]


def object_version(item: Json) -> int:
    """Return an object's resource version as a number, which increases with every write to etcd.

    >>> object_version({"metadata": {"resourceVersion": "77"}})
    77
    """
    text = item["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


class Cache:
    """A thread-safe cache. It holds the newest version of each object that it was given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._evolutions: dict[Key, tuple[int, bytes]] = {}
        self._jobs: dict[Key, dict[str, tuple[int, bytes]]] = {}
        #: Pods by the namespace and the uid of their Job.
        self._pods: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
        self._expected_writes: dict[Key, Json] = {}
        self._expected_jobs: set[tuple[str, str]] = set()

    @contextmanager
    def expect_write(self, item: Json) -> Iterator[None]:
        """Declare the write of an evolution's status: its watch event then counts as no change.

        The watch delivers a write before the response to it arrives, and a reconcile for it would
        find nothing to do.

        Parameters
        ----------
        item
            The evolution as it is being written.
        """
        key = object_key(item)
        with self._lock:
            self._expected_writes[key] = _without_write_metadata(item)
        try:
            yield
        finally:
            with self._lock:
                self._expected_writes.pop(key, None)

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

    def store_evolution(self, item: Json) -> bool:
        """Store an evolution; return whether it must be reconciled because it has changed."""
        item["metadata"].pop("managedFields", None)
        key = object_key(item)
        with self._lock:
            if not _store(self._evolutions, key, item):
                return False
            expected = self._expected_writes.get(key)
            return expected is None or expected != _without_write_metadata(item)

    def remove_evolution(self, key: Key, version: int | None = None) -> None:
        """Remove an evolution, unless the cache has a newer one of its name.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        version
            The resource version of the deletion. None removes any version.
        """
        with self._lock:
            _remove(self._evolutions, key, version)

    def evolution(self, key: Key) -> Json | None:
        """Return a copy of an evolution, or None."""
        with self._lock:
            entry = self._evolutions.get(key)
        return from_json(entry[1]) if entry else None

    def evolution_keys(self) -> list[Key]:
        """Return the keys of all evolutions."""
        with self._lock:
            return sorted(self._evolutions)

    def evolution_version(self, key: Key) -> int | None:
        """Return the cached resource version of an evolution, or None."""
        with self._lock:
            entry = self._evolutions.get(key)
        return entry[0] if entry else None

    def evolution_versions(self) -> list[tuple[Key, int]]:
        """Return the keys of all evolutions and their cached resource versions."""
        with self._lock:
            return sorted((key, version) for key, (version, _) in self._evolutions.items())

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
            if not _store(jobs, name, item) or is_finishing(item):
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
            jobs = self._jobs.get(key, {})
            _remove(jobs, item["metadata"]["name"], object_version(item))
            if not jobs:
                self._jobs.pop(key, None)
        return key

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

    def purge_jobs(self, key: Key) -> list[Json]:
        """Return the Jobs that remove data, of all evolutions that have had a name."""
        return self._select_jobs(key, lambda name: name.endswith(names.PURGE_SUFFIX))

    def store_pod(self, item: Json) -> None:
        """Store a succeeded pod: its name, and the statuses of its containers."""
        job = _job_key(item)
        if job is None:
            return
        metadata = {name: item["metadata"][name] for name in ("name", "resourceVersion")}
        containers = item.get("status", {}).get("containerStatuses", [])
        pod = {"metadata": metadata, "status": {"containerStatuses": containers}}
        with self._lock:
            _store(self._pods.setdefault(job, {}), metadata["name"], pod)

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
            self._pods = {k: v for k, v in self._pods.items() if not _matches(k, namespace)}

    def pods(self, namespace: str, job_uid: str) -> list[Json]:
        """Return the cached pods of a Job that have succeeded."""
        with self._lock:
            texts = [text for _, text in self._pods.get((namespace, job_uid), {}).values()]
        return [from_json(text) for text in texts]

    def orphan_keys(self) -> list[Key]:
        """Return the keys of evolutions that have Jobs and are not in the cache."""
        with self._lock:
            return sorted(self._jobs.keys() - self._evolutions.keys())

    def _select_jobs(self, key: Key, matches: Callable[[str], bool]) -> list[Json]:
        with self._lock:
            jobs = self._jobs.get(key, {})
            texts = [text for name, (_, text) in jobs.items() if matches(name)]
        return [from_json(text) for text in texts]

    def prune_evolutions(self, listed: Set[Key], version: int, namespace: str | None) -> None:
        """Remove the evolutions that a list does not contain.

        Parameters
        ----------
        listed
            The keys of the evolutions in the list.
        version
            The resource version of the list. Newer evolutions stay.
        namespace
            The namespace of the list. None: the list is of all namespaces.
        """
        with self._lock:
            gone = [k for k in self._evolutions if k not in listed and _matches(k, namespace)]
            for key in gone:
                _remove(self._evolutions, key, version)

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
                if not _matches(key, namespace):
                    continue
                for name in [n for n in jobs if (key[0], n) not in listed]:
                    if _remove(jobs, name, version):
                        changed.append(key)
                if not jobs:
                    del self._jobs[key]
        return changed


def _is_managed(job: Json) -> bool:
    """Return whether the operator created a Job."""
    return is_stage_job(job) or is_purge_job(job)


def _store(items: dict[Any, tuple[int, bytes]], key: Any, item: Json) -> bool:
    """Store an object if it is newer than the stored one; return whether it was."""
    version = object_version(item)
    before = items.get(key)
    if before is not None and before[0] >= version:
        return False
    items[key] = (version, to_json(item))
    return True


def _remove(items: dict[Any, tuple[int, bytes]], key: Any, version: int | None) -> bool:
    """Remove an object if it is not newer than a version; return whether it was removed."""
    before = items.get(key)
    if before is None or (version is not None and before[0] > version):
        return False
    del items[key]
    return True


def _without_write_metadata(item: Json) -> Json:
    metadata = {k: v for k, v in item["metadata"].items() if k not in _WRITE_METADATA}
    return {**item, "metadata": metadata}


def _matches(key: Key, namespace: str | None) -> bool:
    return namespace in (None, key[0])


def _evolution_key(job: Json) -> Key:
    return job["metadata"]["namespace"], job["metadata"]["labels"].get(names.LABEL_EVOLUTION, "")


def _job_key(pod: Json) -> tuple[str, str] | None:
    """Return the namespace and uid of a pod's Job, or None if the pod does not belong to one."""
    uid = pod["metadata"].get("labels", {}).get(names.LABEL_JOB_UID)
    return (pod["metadata"]["namespace"], uid) if uid else None


def _strip_job(job: Json) -> None:
    """Remove the fields that the operator does not read: the pod template is most of a Job."""
    job["metadata"][STATUS_CHANGE_TIME] = last_status_change(job)
    job["metadata"].pop("managedFields", None)
    job["spec"].pop("template", None)
