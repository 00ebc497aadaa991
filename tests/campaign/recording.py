"""What is recorded of a scenario, for the oracles: each version of each object, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names

Json = dict[str, Any]
#: Conditions of a Job that end it.
_FINAL = ("Complete", "Failed")


@dataclass
class Version:
    """One version of an evolution."""

    at: float
    revision: int
    generation: int
    """`metadata.generation`, which counts the edits of the spec."""
    spec: Json
    status: Json
    size: int


@dataclass
class EvolutionRecord:
    """One evolution by its uid."""

    namespace: str
    name: str
    uid: str
    versions: list[Version] = field(default_factory=list)
    deleted: int | None = None
    """The revision of its deletion."""

    @property
    def last(self) -> Version:
        """The last version that was recorded."""
        return self.versions[-1]


@dataclass
class ObjectRecord:
    """One Job or one pod by its uid."""

    kind: str
    namespace: str
    name: str
    uid: str
    labels: dict[str, str]
    created: int
    """The revision at which it was first recorded."""
    template: Json
    owners: tuple[str, ...] = ()
    result: str = ""
    """`Complete` or `Failed` of a Job; `Succeeded` or `Failed` of a pod."""
    ended: int | None = None
    """The revision at which it had a result."""
    deleted: int | None = None
    suspended: list[tuple[int, bool]] = field(default_factory=list)
    current: Json = field(default_factory=dict)

    @property
    def evolution(self) -> str:
        """The uid of the evolution."""
        return self.labels.get(names.LABEL_UID, "")

    @property
    def stage(self) -> tuple[str, str]:
        """The generation and the stage."""
        return self.labels.get(names.LABEL_GENERATION, ""), self.labels[names.LABEL_COMPONENT]

    @property
    def attempt(self) -> str:
        """The number of the attempt."""
        return self.labels.get(names.LABEL_ATTEMPT, "")

    @property
    def gone(self) -> float:
        """The revision from which it does nothing more; infinity while it may."""
        ends = [revision for revision in (self.ended, self.deleted) if revision is not None]
        return min(ends, default=float("inf"))


@dataclass
class Recording:
    """All that happened in a scenario's namespaces."""

    evolutions: dict[str, EvolutionRecord] = field(default_factory=dict)
    jobs: dict[str, ObjectRecord] = field(default_factory=dict)
    pods: dict[str, ObjectRecord] = field(default_factory=dict)
    purged: list[str] = field(default_factory=list)
    """The run folders whose purge pod has run."""
    by_hand: list[tuple[str, str]] = field(default_factory=list)
    """The uid of the evolution, and the kind, of each perturbation that may cost an attempt."""
    deletions: dict[str, Json] = field(default_factory=dict)
    """By uid: the last spec of each evolution that a user deleted."""
    orphaned: set[str] = field(default_factory=set)
    """Uids of Jobs that a user deleted without their pods."""
    unpurged: set[str] = field(default_factory=set)
    """Uids of evolutions whose namespace was deleted, with the Jobs that remove their data."""
    stops: list[int | None] = field(default_factory=list)
    """The exit code of each operator that was ended with SIGTERM; None: it did not end."""
    lost: bool = False
    """Whether versions may be missing, as after the restore of a snapshot."""

    def dump(self) -> Json:
        """Return the last state of each object, to look into a violation."""
        jobs = [*self.jobs.values(), *self.pods.values()]
        return {
            "evolutions": [
                {
                    "name": f"{e.namespace}/{e.name}",
                    "uid": e.uid,
                    "deleted": e.deleted,
                    "spec": e.last.spec,
                    "status": e.last.status,
                }
                for e in self.evolutions.values()
            ],
            "objects": [
                {
                    "name": f"{j.kind} {j.name}",
                    "uid": j.uid,
                    "evolution": j.evolution,
                    "created": j.created,
                    "result": j.result,
                    "ended": j.ended,
                    "deleted": j.deleted,
                    "current": j.current,
                }
                for j in jobs
            ],
            "byHand": self.by_hand,
            "purged": self.purged,
        }

    def live(self) -> list[EvolutionRecord]:
        """Return the evolutions that have not been deleted."""
        return [record for record in self.evolutions.values() if record.deleted is None]

    def named(self, namespace: str, name: str) -> EvolutionRecord | None:
        """Return the living evolution of a name."""
        for record in self.live():
            if (record.namespace, record.name) == (namespace, name):
                return record
        return None

    def jobs_of(self, uid: str) -> list[ObjectRecord]:
        """Return the stage Jobs of an evolution."""
        jobs = self.jobs.values()
        return [j for j in jobs if j.evolution == uid and j.stage[1] != names.PURGE]


class Recorder:
    """Follows the objects of namespaces, past the proxy.

    Parameters
    ----------
    kube
        A client of the API server itself.
    namespaces
        The namespaces.
    on_pod
        A function that is called with each version of a pod: the fake kubelet's.
    """

    def __init__(
        self, kube: KubeClient, namespaces: list[str], on_pod: Callable[[str, Json], None]
    ) -> None:
        self.recording = Recording()
        self.lock = threading.RLock()
        self._kube = kube
        self._on_pod = on_pod
        self._stop = threading.Event()
        self._namespaces = namespaces
        self.changed = threading.Condition(self.lock)

    def start(self) -> None:
        """Start a thread for each kind in each namespace."""
        for namespace in self._namespaces:
            for path, take in (
                (names.evolutions_path(namespace), self._take_evolution),
                (names.jobs_path(namespace), self._take_job),
                (names.core_path(namespace, "pods"), self._take_pod),
            ):
                threading.Thread(target=self._follow, args=(path, take), daemon=True).start()

    def stop(self) -> None:
        """Stop; the threads end with their watches."""
        self._stop.set()

    def _follow(self, path: str, take: Callable[[str, Json], None]) -> None:
        version = ""
        while not self._stop.is_set():
            try:
                if not version:
                    version = self._list(path, take)
                query = {"resourceVersion": version, "timeoutSeconds": "20"}
                query["allowWatchBookmarks"] = "true"
                for event in self._kube.watch(path, query, 30):
                    item = event["object"]
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = item["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        take(event["type"], item)
            except ApiError:
                version = "" if self.recording.lost else version
                self._stop.wait(0.1)

    def _list(self, path: str, take: Callable[[str, Json], None]) -> str:
        """List the objects; those that are missing have been deleted."""
        listed = self._kube.get(path)
        present = set()
        for item in listed["items"]:
            present.add(item["metadata"]["uid"])
            take("MODIFIED", item)
        revision = int(listed["metadata"]["resourceVersion"])
        kind = path.rpartition("/")[2]
        namespace = path.split("/namespaces/")[1].split("/", maxsplit=1)[0]
        with self.lock:
            by_kind: dict[str, dict[str, Any]] = {
                names.PLURAL: self.recording.evolutions,
                "jobs": self.recording.jobs,
                "pods": self.recording.pods,
            }
            records = by_kind[kind]
            for uid, record in records.items():
                if record.namespace == namespace and uid not in present and record.deleted is None:
                    record.deleted = revision
        return str(listed["metadata"]["resourceVersion"])

    def _take_evolution(self, kind: str, item: Json) -> None:
        metadata = item["metadata"]
        metadata.pop("managedFields", None)
        revision = int(metadata["resourceVersion"])
        with self.changed:
            record = self.recording.evolutions.setdefault(
                metadata["uid"],
                EvolutionRecord(metadata["namespace"], metadata["name"], metadata["uid"]),
            )
            if kind == "DELETED":
                record.deleted = revision
            record.versions.append(
                Version(
                    time.monotonic(),
                    revision,
                    metadata["generation"],
                    item["spec"],
                    item.get("status", {}),
                    len(to_json(item)),
                )
            )
            self.changed.notify_all()

    def _take_job(self, kind: str, item: Json) -> None:
        with self.changed:
            record = self._record(self.recording.jobs, "Job", item, item["spec"]["template"])
            if record is None:
                return
            conditions = item.get("status", {}).get("conditions", [])
            result = next(
                (c["type"] for c in conditions if c["type"] in _FINAL and c["status"] == "True"), ""
            )
            suspended = bool(item["spec"].get("suspend"))
            revision = int(item["metadata"]["resourceVersion"])
            if not record.suspended or record.suspended[-1][1] != suspended:
                record.suspended.append((revision, suspended))
            self._finish(record, kind, item, result)

    def _take_pod(self, kind: str, item: Json) -> None:
        with self.changed:
            record = self._record(self.recording.pods, "Pod", item, item)
            if record is None:
                return
            phase = item.get("status", {}).get("phase", "")
            self._finish(record, kind, item, phase if phase in ("Succeeded", "Failed") else "")
        self._on_pod(kind, item)

    def _record(
        self, records: dict[str, ObjectRecord], kind: str, item: Json, template: Json
    ) -> ObjectRecord | None:
        metadata = item["metadata"]
        labels = metadata.get("labels", {})
        if labels.get(names.LABEL_NAME) != "selfemo":
            return None
        owners = tuple(owner["uid"] for owner in metadata.get("ownerReferences", []))
        record = records.get(metadata["uid"])
        if record is None:
            revision = int(metadata["resourceVersion"])
            record = ObjectRecord(
                kind,
                metadata["namespace"],
                metadata["name"],
                metadata["uid"],
                labels,
                revision,
                template,
                owners,
            )
            records[metadata["uid"]] = record
        return record

    def _finish(self, record: ObjectRecord, kind: str, item: Json, result: str) -> None:
        revision = int(item["metadata"]["resourceVersion"])
        record.current = {"metadata": item["metadata"], "status": item.get("status", {})}
        if result and not record.result:
            record.result, record.ended = result, revision
        if kind == "DELETED":
            record.deleted = revision
        self.changed.notify_all()
