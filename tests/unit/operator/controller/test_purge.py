"""The purge Job: when there is one, when it is started, and by whose permission."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import KEY, NAMESPACE, FakeApiServer
from tests.unit.operator.controller.fake_operator import (
    SETTINGS,
    FakeOperator,
    reconcile_times,
    server_time,
)

from selfemo_api.contract import PurgeConfig
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.reconcile import deletion_history
from selfemo_operator.controller.reconcile.purge import MOST_REPLACEMENTS

Json = dict[str, Any]
STORAGE = {"uri": "s3://bucket/runs", "whenDeleted": "Delete"}
ROOT = {"name": "setup", "image": "i", "securityContext": {"privileged": True}}


def purge_jobs(server: FakeApiServer) -> list[Json]:
    jobs = server.jobs()
    return [j for j in jobs if j["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE]


@pytest.mark.parametrize("stages", [None, ["Train"]], ids=["all stages", "another stage"])
def test_a_refused_evolution_has_no_purge_job(stages: list[str] | None) -> None:
    template = [{"stages": stages, "template": {"initContainers": [ROOT]}}]
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE, podTemplate=template)
    operator = FakeOperator(server)
    reconcile_times(operator, 5)
    assert "initContainers[setup]" in server.condition("Stalled")["message"]
    assert server.jobs() == []
    allowed = replace(SETTINGS, jobs=replace(SETTINGS.jobs, host_access=True))
    reconcile_times(FakeOperator(server, settings=allowed), 5)
    (job,) = purge_jobs(server)
    inits = job["spec"]["template"]["spec"].get("initContainers", [])
    assert [c["name"] for c in inits] == ([] if stages else ["setup"])


def test_an_edit_that_is_refused_deletes_the_purge_job() -> None:
    """A deletion would start it otherwise: with what was allowed before, or with what was not."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    reconcile_times(operator, 5)
    assert purge_jobs(server)
    server.edit(podTemplate=[{"template": {"initContainers": [ROOT]}}])
    reconcile_times(operator, 5)
    assert purge_jobs(server) == []
    server.remove(names.evolution_path(KEY))
    with server_time(server):
        reconcile_times(operator, 3)
    assert purge_jobs(server) == []


# The last spec decides ---------------------------------------------------------------------------

RETAIN = {**STORAGE, "whenDeleted": "Retain"}


def config_of(job: Json) -> PurgeConfig:
    text = job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_CONFIG]
    return PurgeConfig.model_validate_json(text)


def with_purge_job(**spec: Any) -> tuple[FakeApiServer, FakeOperator]:
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE, **spec)
    operator = FakeOperator(server)
    reconcile_times(operator, 5)
    assert len(purge_jobs(server)) == 1
    return server, operator


def delete(server: FakeApiServer) -> None:
    server.remove(names.evolution_path(KEY))
    server.advance_jobs()


def no_event(_: FakeApiServer, operator: FakeOperator) -> FakeOperator:
    """The operator learns of the deletion from the end of a Job, before any event arrives."""
    return operator


def event_after_compaction(server: FakeApiServer, operator: FakeOperator) -> FakeOperator:
    """The history no longer has the version that the operator saw last, days ago."""
    server.compacted = int(server.log[-1][1]["metadata"]["resourceVersion"]) - 50
    deletions = [o for kind, o in server.log if kind == "DELETED" and "spec" in o]
    evolution = next(o for o in deletions if o.get("kind") == "EmotionEvolution")
    server.compacted = int(evolution["metadata"]["resourceVersion"]) - 1
    operator.receive_events()
    return operator


def event_later(server: FakeApiServer, operator: FakeOperator) -> FakeOperator:
    """As before, and the events of the Jobs arrive before that of the evolution."""
    received, operator._received = operator._received, len(server.log)
    event_after_compaction(server, operator)
    for kind, item in copy.deepcopy(server.log):
        if kind == "DELETED" and item.get("kind") == "Job":
            operator.cache.remove_job(item)
    for _ in range(6):
        operator.reconcile()
        server.advance_jobs()
    assert operator.cache.evolution(KEY) is None, "the deletion was noticed"
    if server.compacted > seen_version(server):
        assert not server.purged
    operator._received = received
    operator.receive_events()
    return operator


def seen_version(server: FakeApiServer) -> int:
    (job,) = purge_jobs(server)
    return int(job["metadata"]["annotations"][names.ANNOTATION_SEEN])


def restart(server: FakeApiServer, _: FakeOperator) -> FakeOperator:
    """No operator runs while the evolution is edited and deleted."""
    return FakeOperator(server)


Course = Callable[[FakeApiServer, FakeOperator], FakeOperator]
COURSES = [no_event, event_after_compaction, event_later, restart]


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("edited", [True, False])
def test_the_last_spec_decides_without_a_pass_between(course: Course, edited: bool) -> None:
    server, operator = with_purge_job()
    if edited:
        server.edit(storage=RETAIN)
    delete(server)
    reconcile_times(course(server, operator), 8)
    assert len(server.purged) == (0 if edited else 1)
    assert purge_jobs(server) == [], "it is deleted once it has succeeded"


@pytest.mark.parametrize("course", COURSES)
def test_an_edit_that_is_refused_and_then_deleted_starts_nothing(course: Course) -> None:
    server, operator = with_purge_job()
    server.edit(podTemplate=[{"template": {"initContainers": [ROOT]}}])
    delete(server)
    reconcile_times(course(server, operator), 8)
    assert purge_jobs(server) == []
    assert server.purged == []


@pytest.mark.parametrize("course", COURSES)
def test_the_purge_job_follows_the_last_spec(course: Course) -> None:
    server, operator = with_purge_job()
    server.edit(storage={**STORAGE, "endpoint": "http://moved"})
    delete(server)
    reconcile_times(course(server, operator), 8)
    (config,) = server.purged
    assert config.storage.endpoint == "http://moved"


def test_without_a_history_the_spec_that_was_seen_last_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No operator ran at the deletion, and the API server has forgotten it since."""
    server, _ = with_purge_job()
    delete(server)
    server.compacted = server.version
    operator = FakeOperator(server)
    reconcile_times(operator, 3)
    assert not server.purged, "the deletion may still be announced"
    assert operator.requeue is not None
    monkeypatch.setattr(deletion_history, "DELETION_EVENT_WAIT", timedelta(0))
    reconcile_times(operator, 4)
    assert len(server.purged) == 1


def test_a_purge_job_knows_the_version_that_was_seen_last() -> None:
    server, operator = with_purge_job()
    server.edit(stopping={"maxGenerations": 7})
    operator.receive_events()
    reconcile_times(operator, 4)
    (job,) = purge_jobs(server)
    seen = job["metadata"]["annotations"][names.ANNOTATION_SEEN]
    assert seen == server.evolution["metadata"]["resourceVersion"]


# The permission ----------------------------------------------------------------------------------


def test_a_purge_job_has_no_permission_until_it_is_started() -> None:
    server, operator = with_purge_job()
    (job,) = purge_jobs(server)
    assert config_of(job).permitted_job is None
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (uid,) = [e["valueFrom"] for e in environment if e["name"] == "SELFEMO_JOB_UID"]
    assert uid == {"fieldRef": {"fieldPath": f"metadata.labels['{names.LABEL_JOB_UID}']"}}
    delete(server)
    reconcile_times(operator, 2)
    (job,) = purge_jobs(server)
    assert config_of(job).permitted_job == job["metadata"]["uid"]


def test_a_purge_job_that_was_started_by_hand_is_replaced() -> None:
    """It has failed without a permission, and could not be started again."""
    server, operator = with_purge_job()
    (job,) = purge_jobs(server)
    server.set_job_status(job, conditions=[{"type": "Failed", "status": "True"}])
    operator.receive_events()
    reconcile_times(operator, 3)
    (again,) = purge_jobs(server)
    assert again["metadata"]["uid"] != job["metadata"]["uid"]
    delete(server)
    reconcile_times(operator, 4)
    assert len(server.purged) == 1


def test_a_purge_job_that_was_interrupted_while_it_was_created_is_replaced() -> None:
    """Its uid is not on it: the operator was killed between the two requests."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    name = names.purge_job_name("demo", server.evolution["metadata"]["uid"])
    server.forbidden = {("PATCH", name): "killed"}
    reconcile_times(operator, 4)
    (left,) = purge_jobs(server)
    assert names.ANNOTATION_JOB not in left["metadata"]["annotations"]
    assert len(server.jobs()) == 1, "no stage has started: there is no data"
    server.forbidden = {}
    reconcile_times(FakeOperator(server), 4)
    (job,) = purge_jobs(server)
    assert job["metadata"]["uid"] != left["metadata"]["uid"]
    assert job["metadata"]["annotations"][names.ANNOTATION_JOB] == job["metadata"]["uid"]


def test_an_evolution_that_is_deleted_before_its_purge_job_has_its_uid_is_purged() -> None:
    """The operator knows which Job it has created, although the second request failed."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    name = names.purge_job_name("demo", server.evolution["metadata"]["uid"])
    server.forbidden = {("PATCH", name): "504 for a moment"}
    reconcile_times(operator, 2)
    (job,) = purge_jobs(server)
    assert names.ANNOTATION_JOB not in job["metadata"]["annotations"]
    delete(server)
    server.forbidden = {}
    reconcile_times(operator, 4)
    assert len(server.purged) == 1
    assert [e for e in server.of("events") if e["reason"] == "PurgeRefused"] == []


def test_an_evolution_that_is_deleted_after_a_lost_reply_is_purged() -> None:
    """The operator knows its Job by what it has sent, because it has got no uid."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    server.lost_replies = {("POST", "jobs")}
    reconcile_times(operator, 2)
    (job,) = purge_jobs(server)
    assert names.ANNOTATION_JOB not in job["metadata"]["annotations"]
    delete(server)
    server.lost_replies = set()
    reconcile_times(operator, 4)
    assert len(server.purged) == 1
    assert [e for e in server.of("events") if e["reason"] == "PurgeRefused"] == []


def with_interrupted_creation() -> FakeApiServer:
    """Return a server with a purge Job that has no uid: the operator was killed in between."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    name = names.purge_job_name("demo", server.evolution["metadata"]["uid"])
    server.forbidden = {("PATCH", name): "killed"}
    reconcile_times(FakeOperator(server), 2)
    assert len(purge_jobs(server)) == 1
    server.forbidden = {}
    return server


@pytest.mark.parametrize(("policy", "purges"), [("Delete", 1), ("Retain", 0)])
def test_a_purge_job_without_its_uid_follows_the_last_spec(policy: str, purges: int) -> None:
    """The evolution was deleted before the next operator started."""
    server = with_interrupted_creation()
    (left,) = purge_jobs(server)
    server.edit(storage={**STORAGE, "whenDeleted": policy})
    delete(server)
    operator = FakeOperator(server)
    operator.reconcile()
    assert left["metadata"]["uid"] not in [j["metadata"]["uid"] for j in purge_jobs(server)]
    operator.receive_events()
    reconcile_times(operator, 4)
    assert len(server.purged) == purges
    assert purge_jobs(server) == []


def test_a_purge_job_without_its_uid_is_not_started_without_a_history() -> None:
    """It may be a copy that was taken while the Job was created."""
    server = with_interrupted_creation()
    delete(server)
    server.compacted = server.version
    reconcile_times(FakeOperator(server), 4)
    (job,) = purge_jobs(server)
    assert job["spec"]["suspend"] and server.purged == []
    assert [e["reason"] for e in server.of("events") if e["type"] == "Warning"] == ["PurgeRefused"]


# Jobs of others ----------------------------------------------------------------------------------


def restored(job: Json, **metadata: Any) -> Json:
    """Return a Job as a backup tool creates it again."""
    body = copy.deepcopy(job)
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        body["metadata"].pop(name)
    return {**body, "metadata": {**body["metadata"], **metadata}, "status": {}}


@pytest.mark.parametrize("was_started", [False, True])
def test_a_restored_purge_job_removes_nothing(was_started: bool) -> None:
    server, operator = with_purge_job()
    (job,) = purge_jobs(server)
    if was_started:
        delete(server)
        reconcile_times(operator, 2)
        (job,) = purge_jobs(server)
        assert config_of(job).permitted_job == job["metadata"]["uid"]
    server = FakeApiServer(version=5000)
    server._create(names.jobs_path(NAMESPACE), restored(job))
    if not was_started:
        reconcile_times(FakeOperator(server), 3)
        server.add_evolution(storage=STORAGE)  # of the same name, and restored after its Job
        reconcile_times(FakeOperator(server), 3)
        assert purge_jobs(server)[0]["spec"]["suspend"], "it is not started"
        events = [e for e in server.of("events") if e["reason"] == "PurgeRefused"]
        assert {e["involvedObject"]["name"] for e in events} == {job["metadata"]["name"]}
        assert "backup tool" in events[0]["message"]
    server.objects[names.job_path((NAMESPACE, job["metadata"]["name"]))]["spec"]["suspend"] = False
    for _ in range(3):
        server.advance_jobs()
    assert server.purged == [], "its pod refuses, whoever starts it"


STRANGERS: dict[str, Callable[[Json], Json]] = {
    "without labels": lambda job: restored(job, labels={}),
    "with an owner": lambda job: restored(job, ownerReferences=[{"uid": "x", "kind": "CronJob"}]),
    "a copy": restored,
    "with the labels alone": lambda job: restored(job, annotations={}),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_purge_job_of_somebody_else_is_reported_and_left_alone(
    stranger: Callable[[Json], Json],
) -> None:
    server, operator = with_purge_job()
    (job,) = purge_jobs(server)
    path = names.job_path((NAMESPACE, job["metadata"]["name"]))
    server.remove(path)
    other = server._create(names.jobs_path(NAMESPACE), stranger(job))
    operator.receive_events()
    reconcile_times(operator, 12)
    assert server.objects[path]["metadata"]["uid"] == other["metadata"]["uid"]
    assert server.objects[path]["spec"] == other["spec"]
    reasons = [e["reason"] for e in server.of("events")]
    assert reasons.count("PurgeJobConflict") == 1
    condition = server.condition("Progressing")
    assert job["metadata"]["name"] in condition["message"], "the next stage is not started"
    assert "is not the operator's" in condition["message"]
    server.remove(path)
    operator.receive_events()
    reconcile_times(operator, 30)
    assert server.condition("Progressing")["message"] != condition["message"]
    assert server.objects[path]["metadata"]["uid"] != other["metadata"]["uid"]


def test_the_job_of_somebody_else_is_left_alone_after_the_deletion() -> None:
    server, operator = with_purge_job()
    (job,) = purge_jobs(server)
    path = names.job_path((NAMESPACE, job["metadata"]["name"]))
    server.remove(path)
    owner = [{"uid": "x", "kind": "CronJob"}]
    other = server._create(names.jobs_path(NAMESPACE), restored(job, ownerReferences=owner))
    delete(server)
    operator.receive_events()
    reconcile_times(operator, 4)
    assert server.objects[path]["spec"] == other["spec"]


def test_the_pod_of_a_purge_job_is_judged_before_it_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Job is of a time when the installation allowed access to the node."""
    monkeypatch.setattr(deletion_history, "DELETION_EVENT_WAIT", timedelta(0))
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE, podTemplate=[{"template": {"initContainers": [ROOT]}}])
    allowed = replace(SETTINGS, jobs=replace(SETTINGS.jobs, host_access=True))
    reconcile_times(FakeOperator(server, settings=allowed), 5)
    assert purge_jobs(server)
    delete(server)
    server.compacted = server.version
    reconcile_times(FakeOperator(server), 3)
    assert purge_jobs(server) == []
    (event,) = [e for e in server.of("events") if e["reason"] == "PurgeRefused"]
    assert "initContainers[setup].securityContext.privileged" in event["message"]


@pytest.mark.parametrize(
    ("phase", "state", "waits"),
    [
        ("Running", {"running": {}}, True),
        ("Pending", {}, True),
        ("Succeeded", {"terminated": {"exitCode": 0}}, False),
        ("Failed", {"terminated": {"exitCode": 1}}, False),
        ("Failed", {"running": {}}, True),
    ],
    ids=str,
)
def test_the_data_is_removed_when_no_pod_can_write_any_more(
    phase: str, state: Json, waits: bool
) -> None:
    """A pod stays if its Job was deleted with `--cascade=orphan`, or its node is lost."""
    server, operator = with_purge_job()
    delete(server)
    uid = purge_jobs(server)[0]["metadata"]["labels"][names.LABEL_UID]
    metadata = {"name": "left", "labels": {names.LABEL_UID: uid}, "ownerReferences": []}
    status = {"phase": phase, "containerStatuses": [{"name": "stage", "state": state}]}
    path = names.core_path(NAMESPACE, "pods")
    server._create(path, {"metadata": {**metadata, "namespace": NAMESPACE}, "status": status})
    operator.receive_events()
    reconcile_times(operator, 6)
    assert bool(server.purged) is not waits


def test_an_unavailable_history_removes_nothing() -> None:
    """An error is not an answer."""
    server, operator = with_purge_job()
    server.edit(storage=RETAIN)
    delete(server)

    def fail(*_: Any) -> Any:
        raise ApiError(500, "", "etcd is away")

    operator.kube.watch = fail  # type: ignore[method-assign]
    reconcile_times(operator, 4)
    assert not server.purged


# Other controllers --------------------------------------------------------------------------------


class QueueWithDefault(FakeApiServer):
    """An API server with Kueue, which gives each Job the default queue, and admits it."""

    def _create(self, path: str, body: Json) -> Json:
        if path.endswith("/jobs"):
            body["metadata"]["labels"].setdefault(names.LABEL_QUEUE, "default")
            body["spec"]["suspend"] = True
        return super()._create(path, body)

    def admit(self) -> None:
        for job in self.jobs():
            if job["spec"].get("suspend"):
                path = names.job_path((NAMESPACE, job["metadata"]["name"]))
                self._merge(path, {"spec": {"suspend": False}})


def advance(server: QueueWithDefault, operator: FakeOperator, times: int) -> None:
    for _ in range(times):
        operator.reconcile()
        server.admit()
        operator.receive_events()
        server.advance_jobs()
        operator.receive_events()


def test_a_queue_that_starts_each_job_does_not_prevent_the_removal() -> None:
    server = QueueWithDefault()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    advance(server, operator, 30)
    created = [name for name in server.created if name.endswith("-purge")]
    assert len(created) <= 1 + MOST_REPLACEMENTS
    assert server.status["generation"] > 0
    assert not server.purged
    server.remove(names.evolution_path(KEY))
    operator.receive_events()
    advance(server, operator, 20)
    assert len(server.purged) == 1


def test_an_edit_that_is_rejected_keeps_the_purge_job() -> None:
    server, operator = with_purge_job()
    (before,) = purge_jobs(server)
    reconcile_times(operator, 5)
    server.edit(podTemplate=[{"template": {"labels": {"team": "a b"}}}])
    server.invalid = "spec.template.labels: Invalid value"
    for _ in range(4):
        operator.receive_events()
        operator.reconcile()
    (after,) = purge_jobs(server)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    reasons = [e["reason"] for e in server.of("events")]
    assert reasons.count("PurgeJobConflict") == 1
    server.invalid = ""
    server.remove(names.evolution_path(KEY))
    operator.receive_events()
    reconcile_times(operator, 6)
    assert len(server.purged) == 1
