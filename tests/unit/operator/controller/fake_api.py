"""An API server in memory, with the rules that the operator relies on, and a Job controller.

It enforces resource versions, uids and names. `FakeClient` is the operator's own `KubeClient`
on top of it. Tests with a real API server are in `tests/integration/operator`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import to_json
from tests.unit.operator.planner.simulated_world import result_of, score_of, spec_of

from selfemo_api.contract import PurgeConfig, StageConfig
from selfemo_api.recipes import with_overrides
from selfemo_api.results import FailureMessage, StageResult, encode_message
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import is_purge_job

Json = dict[str, Any]
NAMESPACE = "team"
KEY = (NAMESPACE, "demo")
START = datetime(2026, 1, 1, tzinfo=UTC)
WRITES = ("POST", "PUT", "PATCH", "DELETE")
#: How an attempt of a stage ends: with an exit code, or by an event (`evicted`, `gone`, `silent`).
Ending = int | str
Check = Callable[[Json | None, Json], None]


def format_time(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass
class FakeApiServer:
    """All objects by path, and the events that a watch would deliver."""

    now: datetime = START
    objects: dict[str, Json] = field(default_factory=dict)
    log: list[tuple[str, Json]] = field(default_factory=list)
    version: int = 100
    forbidden: dict[tuple[str, str], str] = field(default_factory=dict)
    """The message of a 403, by method and last part of the path."""
    failing: dict[tuple[str, str], ApiError] = field(default_factory=dict)
    """The error of each such request, by method and last part of the path."""
    lost_replies: set[tuple[str, str]] = field(default_factory=set)
    """Requests that take place without a reply, by method and last part of the path."""
    stale_cache: bool = False
    """Whether lists from the cache (version 0) contain no pods."""
    invalid: str = ""
    """The message with which Jobs are rejected. Empty: they are accepted."""
    error: str = "it broke"
    """The error of stages that fail."""
    created: list[str] = field(default_factory=list)
    """The names of all created Jobs, in order."""
    manifests: dict[tuple[str, int, str], StageResult] = field(default_factory=dict)
    on_status: Check = lambda _before, _after: None
    queue_suspends: bool = False
    """Whether an admission webhook suspends each new Job, as Kueue does."""
    purged: list[PurgeConfig] = field(default_factory=list)
    """The configurations with which data was removed."""
    compacted: int = 0
    """The oldest resource version from which a watch may start."""

    # Requests ------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, query: Json | None, body: Json | None) -> Json:
        result = self._handle(method, path, query, body)
        if (method, path.rsplit("/", 1)[-1]) in self.lost_replies:
            raise ApiError(0, "", "the connection was closed without a reply")
        return result

    def _handle(self, method: str, path: str, query: Json | None, body: Json | None) -> Json:
        plural = path.rsplit("/", 1)[-1]
        if (method, plural) in self.forbidden:
            raise ApiError(403, "Forbidden", self.forbidden[method, plural])
        if (method, plural) in self.failing:
            raise self.failing[method, plural]
        body = copy.deepcopy(body)
        match method:
            case "GET":
                return copy.deepcopy(self._get(path, query or {}))
            case "POST":
                return copy.deepcopy(self._create(path, body or {}))
            case "PUT":
                return copy.deepcopy(self._replace(path, body or {}))
            case "PATCH":
                return copy.deepcopy(self._merge(path, body or {}))
        self._delete(path, (body or {})["preconditions"])
        return {}

    def _get(self, path: str, query: Json) -> Json:
        if path in self.objects:
            return self.objects[path]
        if path.rsplit("/", 1)[-1] in ("emotionevolutions", "jobs", "pods", "events"):
            items = [o for p, o in self.objects.items() if p.rsplit("/", 1)[0] == path]
            if self.stale_cache and query.get("resourceVersion") == "0":
                items = []
            return {
                "items": [o for o in items if _is_selected(o, query)],
                "metadata": {"resourceVersion": str(self.version)},
            }
        plural, name = path.rsplit("/", 2)[-2:]
        raise ApiError(404, "NotFound", f'{plural} "{name}" not found')

    def _there(self, path: str) -> Json:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} does not exist")
        return self.objects[path]

    def _create(self, path: str, body: Json) -> Json:
        name, is_dry_run = body["metadata"]["name"], path.endswith("?dryRun=All")
        path = path.removesuffix("?dryRun=All")
        if path.endswith("/jobs") and self.invalid:
            raise ApiError(422, "Invalid", self.invalid)
        if f"{path}/{name}" in self.objects:
            raise ApiError(409, "AlreadyExists", f"{name} already exists")
        if is_dry_run:
            return body
        if path.endswith("/jobs"):
            self._check_no_active_job(body)
            if self.queue_suspends:
                body["spec"]["suspend"] = True
            self.created.append(name)
        self.version += 1
        body["metadata"] |= {
            "uid": f"{self.version:08x}-0000",
            "generation": 1,
            "creationTimestamp": format_time(self.now),
        }
        return self._store(f"{path}/{name}", body, "ADDED")

    def _replace(self, path: str, body: Json) -> Json:
        target = path.removesuffix("/status")
        before = self._there(target)
        metadata = body["metadata"]
        if not metadata.get("resourceVersion"):
            raise ApiError(422, "Invalid", "metadata.resourceVersion must be specified")
        if metadata.get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "Precondition failed: UID")
        if metadata["resourceVersion"] != before["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        if target == path:
            return self._store(path, body)
        after = {**before, "status": body["status"]}
        if after == before:
            return before
        self.on_status(before, after)
        return self._store(target, after)

    def _merge(self, path: str, body: Json) -> Json:
        before = self._there(path)
        for name in ("uid", "resourceVersion"):
            if (
                body.get("metadata", {}).get(name, before["metadata"][name])
                != (before["metadata"][name])
            ):
                raise ApiError(409, "Conflict", f"Precondition failed: {name}")
        after = _merged(before, body)
        return before if after == before else self._store(path, after)

    def _delete(self, path: str, preconditions: Json) -> None:
        metadata = self._there(path)["metadata"]
        if any(metadata[name] != value for name, value in preconditions.items()):
            raise ApiError(409, "Conflict", "Precondition failed")
        self.remove(path)

    def _store(self, path: str, item: Json, kind: str = "MODIFIED") -> Json:
        self.version += 1
        item = copy.deepcopy(item)
        item["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = item
        self.log.append((kind, copy.deepcopy(item)))
        return item

    def remove(self, path: str) -> None:
        """Delete an object and, as the garbage collector does, all objects that it owns."""
        item = self.objects.pop(path)
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.log.append(("DELETED", item))
        for other, owned in list(self.objects.items()):
            owners = owned["metadata"].get("ownerReferences", [])
            if other in self.objects and item["metadata"]["uid"] in [o["uid"] for o in owners]:
                self.remove(other)

    def _check_no_active_job(self, body: Json) -> None:
        """Check that no other Job of the evolution is active; its purge Job is suspended."""
        if body["metadata"]["name"].endswith(names.PURGE_SUFFIX):
            return
        uid = body["metadata"]["labels"].get(names.LABEL_UID)
        active = [
            job["metadata"]["name"]
            for job in self.jobs()
            if job["metadata"]["labels"].get(names.LABEL_UID) == uid
            and not _final(job)
            and not is_purge_job(job)
        ]
        assert not active, f"{body['metadata']['name']} while {active} are active"

    # Users ---------------------------------------------------------------------------------------

    def add_evolution(self, name: str = "demo", **spec: Any) -> Json:
        base = {"failurePolicy": {"backoffSeconds": 0}, "resources": {"gpusPerNode": 0}}
        body = {
            "apiVersion": "selfemo.dev/v1alpha1",
            "kind": "EmotionEvolution",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": with_overrides(spec_of(**{**base, **spec}).to_json()),
        }
        return self._create(names.evolutions_path(NAMESPACE), body)

    def edit(self, **spec: Any) -> None:
        path = names.evolution_path(KEY)
        item = copy.deepcopy(self.objects[path])
        item["spec"] |= spec
        item["metadata"]["generation"] += 1
        self._store(path, item)

    @property
    def evolution(self) -> Json:
        return self.objects[names.evolution_path(KEY)]

    @property
    def status(self) -> Json:
        status: Json = self.evolution.get("status", {})
        return status

    def condition(self, kind: str) -> Json:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def of(self, plural: str) -> list[Json]:
        return [o for p, o in self.objects.items() if p.rsplit("/", 2)[-2] == plural]

    def jobs(self) -> list[Json]:
        return self.of("jobs")

    def job(self, name: str) -> Json:
        return self.objects[names.job_path((NAMESPACE, name))]

    # The Job controller and the kubelet ----------------------------------------------------------

    def set_job_status(self, job: Json, **status: Any) -> Json:
        path = names.job_path((NAMESPACE, job["metadata"]["name"]))
        item = copy.deepcopy(self.objects[path])
        item["status"] = {**item.get("status", {}), **status}
        return self._store(path, item)

    def advance_jobs(self, ending: Callable[[str], Ending] = lambda _: 0) -> bool:
        """Advance each Job by one step; return whether any has changed."""
        changed = [self._advance_job(job, ending) for job in self.jobs()]
        return any(changed)

    def _advance_job(self, job: Json, ending: Callable[[str], Ending]) -> bool:
        status = job.get("status", {})
        if _final(job):
            return False
        if job["spec"].get("suspend"):
            suspended = [{"type": "Suspended", "status": "True"}]
            if status.get("conditions") == suspended:
                return False
            self.delete_pods(job)
            self.set_job_status(job, conditions=suspended, active=0, ready=0)
        elif not status.get("active"):
            self.add_pod(job)
            self.set_job_status(
                job, conditions=[], active=1, ready=0, startTime=format_time(self.now)
            )
        elif not status.get("ready"):
            self._set_pod(job, "Running", {"running": {}})
            self.set_job_status(job, ready=1)
        else:
            self._finish_job(job, ending(job["metadata"]["name"]))
        return True

    def add_pod(self, job: Json, **status: Any) -> Json:
        uid, template = job["metadata"]["uid"], job["spec"]["template"]
        name = job["metadata"]["name"]
        labels = {
            **template["metadata"]["labels"],
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
        }
        body = {
            "metadata": {
                "name": f"{job['metadata']['name']}-{self.version}",
                "namespace": NAMESPACE,
                "labels": labels,
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [{"kind": "Job", "name": name, "uid": uid, "controller": True}],
            },
            "status": {"phase": "Pending", **status},
        }
        return self._create(names.core_path(NAMESPACE, "pods"), body)

    def pods_of(self, job: Json) -> list[Json]:
        """Return the pods that the Job controller has created for a Job."""
        uid = job["metadata"]["uid"]
        pods = self.of("pods")
        return [p for p in pods if uid in [o["uid"] for o in p["metadata"]["ownerReferences"]]]

    def _set_pod(self, job: Json, phase: str, state: Json) -> None:
        containers = [{"name": names.CONTAINER, "state": state}]
        for pod in self.pods_of(job):
            path = f"{names.core_path(NAMESPACE, 'pods')}/{pod['metadata']['name']}"
            self._store(path, {**pod, "status": {"phase": phase, "containerStatuses": containers}})

    def delete_pods(self, job: Json) -> None:
        for pod in self.pods_of(job):
            self.remove(f"{names.core_path(NAMESPACE, 'pods')}/{pod['metadata']['name']}")

    def _finish_job(self, job: Json, ending: Ending) -> None:
        if is_purge_job(job):
            self._finish_purge_job(job)
            return
        code = ending if isinstance(ending, int) else 0
        if ending in ("evicted", "gone"):
            if ending == "evicted":
                self._set_pod(job, "Failed", {})
            else:
                self.delete_pods(job)
            self._fail(job, "BackoffLimitExceeded")
            return
        message = encode_message(FailureMessage(error=self.error, kind="Internal"))
        if code == 0:
            message = encode_message(self._run_stage(job))
        terminated = {"exitCode": code, "message": "" if ending == "silent" else message}
        self._set_pod(job, "Failed" if code else "Succeeded", {"terminated": terminated})
        if code:
            self._fail(job, "PodFailurePolicy" if code == 2 else "BackoffLimitExceeded")
        else:
            complete = [{"type": "Complete", "status": "True"}]
            self.set_job_status(job, conditions=complete, active=0, ready=0, succeeded=1)

    def _finish_purge_job(self, job: Json) -> None:
        """Remove the data, as the program does: only with the permission for this very Job."""
        annotations = job["spec"]["template"]["metadata"]["annotations"]
        config = PurgeConfig.model_validate_json(annotations[names.ANNOTATION_CONFIG])
        if config.permitted_job != job["metadata"]["uid"]:
            self._fail(job, "PodFailurePolicy")
            return
        self.purged.append(config)
        complete = [{"type": "Complete", "status": "True"}]
        self.set_job_status(job, conditions=complete, active=0, ready=0, succeeded=1)

    def _fail(self, job: Json, reason: str) -> None:
        failed = [{"type": "Failed", "status": "True", "reason": reason}]
        self.set_job_status(job, conditions=failed, active=0, ready=0, failed=1)

    def _run_stage(self, job: Json) -> StageResult:
        """Return the result of the stage: that of its manifest if there is one."""
        annotations = job["spec"]["template"]["metadata"]["annotations"]
        config = StageConfig.model_validate_json(annotations[names.ANNOTATION_CONFIG])
        key = (config.run, config.generation, config.stage.value)
        if key not in self.manifests:
            f1 = 0.3 + 0.05 * config.generation
            result = result_of(config.generation, config.stage, f1, folder=config.output)
            if result.scores:
                result = result.model_copy(update={"scores": [score_of(f1)]})
            self.manifests[key] = result
            return result
        return self.manifests[key].model_copy(update={"reused": True, "seconds": 0.0})


def _merged(before: Any, changes: Any) -> Any:
    """Return a JSON merge patch applied."""
    if not isinstance(before, dict) or not isinstance(changes, dict):
        return changes
    after = {**before, **{k: _merged(before.get(k, {}), v) for k, v in changes.items()}}
    return {name: value for name, value in after.items() if changes.get(name, 0) is not None}


def _final(job: Json) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def _is_selected(item: Json, query: Json) -> bool:
    labels = item["metadata"].get("labels", {})
    requirements = [part.split("=") for part in query.get("labelSelector", "").split(",") if part]
    phase = query.get("fieldSelector", "").partition("status.phase=")[2]
    matches = not phase or item.get("status", {}).get("phase") == phase
    return matches and all(labels.get(name) == value for name, value in requirements)


class FakeClient(KubeClient):
    """The operator's client. `fault` is called before and after each request."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, int], None] = lambda _moment, _number: None

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [r for r in self.requests if r[0] in WRITES]

    def watch(self, path: str, query: Mapping[str, str], read_timeout: float) -> Iterator[Json]:
        """Yield the events since a version. Evolutions are the only objects watched here."""
        self.requests.append(("WATCH", path))
        assert path == names.evolutions_path(NAMESPACE)
        since = int(query["resourceVersion"])
        if since < self.server.compacted:
            raise ApiError(410, "Expired", f"too old resource version: {since}")
        name = query["fieldSelector"].removeprefix("metadata.name=")
        for kind, item in copy.deepcopy(self.server.log):
            metadata = item["metadata"]
            is_watched = item.get("kind") == "EmotionEvolution" and metadata["name"] == name
            if is_watched and int(metadata["resourceVersion"]) > since:
                yield {"type": kind, "object": item}

    def get_text(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        max_bytes: int | None = None,
    ) -> bytes:
        """Return the text of an object or a list."""
        return to_json(self._request("GET", path, query))

    def replace_text(self, path: str, body: Json) -> bytes:
        """Replace an object; return the text of the response."""
        return to_json(self._request("PUT", path, None, body))

    def _request(
        self,
        method: str,
        path: str,
        query: Any,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        number = len(self.requests)
        self.requests.append((method, path))
        self.fault("before", number)
        response = self.server.handle(method, path, query, body)
        self.fault("after", number)
        return response


def advance_clock(server: FakeApiServer, seconds: float) -> None:
    server.now += timedelta(seconds=seconds)
