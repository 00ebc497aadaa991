"""What the operator has seen: evolutions, stage Jobs and what pods said at their end.

Objects are kept as JSON text: as Python objects five hundred evolutions would be fifty megabytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

from pydantic_core import from_json, to_json

from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import (
    CHANGED,
    gist,
    is_ending,
    is_purge_job,
    is_stage_job,
    last_change,
)
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]

#: What each write changes of an object's metadata.
_OF_A_WRITE = ("resourceVersion", "managedFields")


def key_of(item: Json) -> Key:
    """Return an object's namespace and name."""
    return item["metadata"]["namespace"], item["metadata"]["name"]


def version_of(item: Json) -> int:
    """Return an object's resource version as a number, by which etcd orders all writes."""
    text = item["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


class Cache:
    """A thread-safe picture of the cluster. A write's answer is put in at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._evolutions: dict[Key, tuple[int, bytes]] = {}
        self._jobs: dict[Key, dict[str, tuple[int, bytes]]] = {}
        #: By namespace and uid of their Job.
        self._pods: dict[tuple[str, str], dict[str, tuple[int, bytes]]] = {}
        self._writing: dict[Key, Json] = {}
        self._creating: set[tuple[str, str]] = set()

    @contextmanager
    def writing(self, item: Json) -> Iterator[None]:
        """Say that a status is being written: seeing it come back is no news.

        The watch brings a write before its answer comes, and a pass for it would find nothing.
        """
        key = key_of(item)
        with self._lock:
            self._writing[key] = _essence(item)
        try:
            yield
        finally:
            with self._lock:
                self._writing.pop(key, None)

    @contextmanager
    def creating(self, namespace: str, name: str) -> Iterator[None]:
        """Say that a Job is being created: seeing it come up is no news."""
        with self._lock:
            self._creating.add((namespace, name))
        try:
            yield
        finally:
            with self._lock:
                self._creating.discard((namespace, name))

    def put_evolution(self, item: Json) -> bool:
        """Take in an evolution; return whether it was news."""
        item["metadata"].pop("managedFields", None)
        key = key_of(item)
        with self._lock:
            if not _put(self._evolutions, key, item):
                return False
            written = self._writing.get(key)
            return written is None or written != _essence(item)

    def drop_evolution(self, key: Key, version: int | None = None) -> None:
        """Forget an evolution, unless a newer one of its name is there."""
        with self._lock:
            _drop(self._evolutions, key, version)

    def evolution(self, key: Key) -> Json | None:
        """Return an evolution, or None."""
        with self._lock:
            found = self._evolutions.get(key)
        return from_json(found[1]) if found else None

    def known(self) -> list[Key]:
        """Return the keys of all evolutions."""
        with self._lock:
            return sorted(self._evolutions)

    def version(self, key: Key) -> int | None:
        """Return which version of an evolution is known, or None."""
        with self._lock:
            found = self._evolutions.get(key)
        return found[0] if found else None

    def versions(self) -> list[tuple[Key, int]]:
        """Return the keys of all evolutions, and which version is known of each."""
        with self._lock:
            return sorted((key, version) for key, (version, _) in self._evolutions.items())

    def put_job(self, item: Json) -> Key | None:
        """Take in a Job; return its evolution's key where a pass should follow, else None."""
        if not _is_ours(item):
            return None
        _slim(item)
        key = _evolution_of(item)
        with self._lock:
            jobs = self._jobs.setdefault(key, {})
            name = item["metadata"]["name"]
            before = jobs.get(name)
            if not _put(jobs, name, item) or is_ending(item):
                return None
            if before is None:
                return None if (key[0], name) in self._creating else key
            return key if gist(from_json(before[1])) != gist(item) else None

    def drop_job(self, item: Json) -> Key | None:
        """Forget a deleted Job, unless a newer one of its name is there."""
        if not _is_ours(item):
            return None
        key = _evolution_of(item)
        with self._lock:
            jobs = self._jobs.get(key, {})
            _drop(jobs, item["metadata"]["name"], version_of(item))
            if not jobs:
                self._jobs.pop(key, None)
        return key

    def jobs(self, key: Key, uid: str) -> list[Json]:
        """Return the stage Jobs of an evolution; an earlier one of its name has another uid."""
        found = self._jobs_named(key, lambda name: not name.endswith(names.PURGE_SUFFIX))
        return [j for j in found if j["metadata"]["labels"].get(names.LABEL_UID) == uid]

    def purges(self, key: Key) -> list[Json]:
        """Return the Jobs that remove data: of the evolution of a name, and of earlier ones."""
        return self._jobs_named(key, lambda name: name.endswith(names.PURGE_SUFFIX))

    def put_pod(self, item: Json) -> None:
        """Take in a pod that has ended: its name, and what its container said."""
        job = _job_of(item)
        if job is None:
            return
        said = {name: item["metadata"][name] for name in ("name", "resourceVersion")}
        containers = item.get("status", {}).get("containerStatuses", [])
        ended = {"metadata": said, "status": {"containerStatuses": containers}}
        with self._lock:
            _put(self._pods.setdefault(job, {}), said["name"], ended)

    def drop_pod(self, item: Json) -> None:
        """Forget a pod that is deleted."""
        job = _job_of(item)
        if job is None:
            return
        with self._lock:
            pods = self._pods.get(job, {})
            _drop(pods, item["metadata"]["name"], version_of(item))
            if not pods:
                self._pods.pop(job, None)

    def forget_pods(self, namespace: str | None) -> None:
        """Forget the pods of a namespace, or all."""
        with self._lock:
            self._pods = {k: v for k, v in self._pods.items() if not _within(k, namespace)}

    def pods(self, namespace: str, job_uid: str) -> list[Json]:
        """Return what is known of a Job's pods that have ended well."""
        with self._lock:
            texts = [text for _, text in self._pods.get((namespace, job_uid), {}).values()]
        return [from_json(text) for text in texts]

    def orphans(self) -> list[Key]:
        """Return the keys of Jobs whose evolution is not there."""
        with self._lock:
            return sorted(self._jobs.keys() - self._evolutions.keys())

    def _jobs_named(self, key: Key, wanted: Callable[[str], bool]) -> list[Json]:
        with self._lock:
            jobs = self._jobs.get(key, {})
            texts = [text for name, (_, text) in jobs.items() if wanted(name)]
        return [from_json(text) for text in texts]

    def keep_evolutions(self, there: Set[Key], version: int, namespace: str | None) -> None:
        """Forget evolutions that a list (of a namespace, or of all) made at a version lacks."""
        with self._lock:
            gone = [k for k in self._evolutions if k not in there and _within(k, namespace)]
            for key in gone:
                _drop(self._evolutions, key, version)

    def keep_jobs(self, there: Set[Key], version: int, namespace: str | None) -> list[Key]:
        """Forget Jobs that a list (their namespaces and names) lacks; return the evolutions."""
        changed = []
        with self._lock:
            for key, jobs in list(self._jobs.items()):
                if not _within(key, namespace):
                    continue
                for name in [n for n in jobs if (key[0], n) not in there]:
                    if _drop(jobs, name, version):
                        changed.append(key)
                if not jobs:
                    del self._jobs[key]
        return changed


def _is_ours(job: Json) -> bool:
    return is_stage_job(job) or is_purge_job(job)


def _put(items: dict[Any, tuple[int, bytes]], key: Any, item: Json) -> bool:
    version = version_of(item)
    before = items.get(key)
    if before is not None and before[0] >= version:
        return False
    items[key] = (version, to_json(item))
    return True


def _drop(items: dict[Any, tuple[int, bytes]], key: Any, version: int | None) -> bool:
    before = items.get(key)
    if before is None or (version is not None and before[0] > version):
        return False
    del items[key]
    return True


def _essence(item: Json) -> Json:
    """Return all that an evolution says but for its version."""
    metadata = {k: v for k, v in item["metadata"].items() if k not in _OF_A_WRITE}
    return {**item, "metadata": metadata}


def _within(key: Key, namespace: str | None) -> bool:
    return namespace in (None, key[0])


def _evolution_of(job: Json) -> Key:
    return job["metadata"]["namespace"], job["metadata"]["labels"].get(names.LABEL_EVOLUTION, "")


def _job_of(pod: Json) -> tuple[str, str] | None:
    """Return the namespace and uid of the Job that a pod is of; None: it is of none."""
    uid = pod["metadata"].get("labels", {}).get(names.LABEL_JOB_UID)
    return (pod["metadata"]["namespace"], uid) if uid else None


def _slim(job: Json) -> None:
    """Leave out what nobody reads: the pod template is most of a Job."""
    job["metadata"][CHANGED] = last_change(job)
    job["metadata"].pop("managedFields", None)
    job["spec"].pop("template", None)
