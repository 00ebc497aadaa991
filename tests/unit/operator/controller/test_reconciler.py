"""Whole runs of the reconciler over an API server in memory, with everything going wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.controller.fake_api import (
    KEY,
    NAMESPACE,
    WRITES,
    Client,
    Ending,
    Server,
    later,
    text_of,
)
from tests.unit.operator.controller.fake_operator import (
    SETTINGS,
    Died,
    FakeOperator,
    at_time,
    go_on,
    picture,
    settle,
)

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.reconciler import Conflict

#: Per generation: five stages; generation 0 has one.
STAGES = {0: 1, 1: 5, 2: 5}
LOST = ApiError(0, "Unreachable", "the answer was lost")


def never_back(before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Each status write goes on by one generation at the most, and never back."""
    was = (before or {}).get("status", {})
    now = after["status"]
    step = now.get("generation", 0) - was.get("generation", 0)
    assert step in (0, 1), f"from generation {was.get('generation')} to {now.get('generation')}"
    kept = [g["generation"] for g in now.get("history", [])]
    assert kept == list(range(len(kept))), f"a generation was skipped: {kept}"


def served(generations: int = 1, **spec: Any) -> Server:
    server = Server(on_status=never_back)
    server.add_evolution(evolution={"maxGenerations": generations, "patience": 99}, **spec)
    return server


def reference(generations: int = 1) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    server = served(generations)
    operator = settle(server)
    return picture(server), operator.kube.requests


def strike(at: int, moment: str, error: BaseException) -> Callable[[str, int], None]:
    """Fail once, at the n-th request of the whole run."""
    seen = Counter[str]()

    def fault(now: str, _number: int) -> None:
        seen[now] += 1
        if now == moment and seen[now] == at + 1:
            raise error

    return fault


# An undisturbed run ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_a_cache_or_watch_that_lags_changes_nothing(code: int) -> None:
    """What pods said is read from the newest state where nothing has told it."""
    ends = []
    for lags in (False, True):
        server = served(failurePolicy={"maxAttempts": 2, "backoffSeconds": 0})
        server.lags = lags
        settle(
            server,
            partial(FakeOperator, server, watches_pods=not lags),
            ending=lambda _: code,
        )
        status = server.status
        told = [server.condition("Succeeded")[name] for name in ("status", "reason", "message")]
        ends.append((told, server.created, status["failures"], status["history"]))
    assert ends[0] == ends[1]


def test_what_a_pod_said_is_not_asked_for_twice() -> None:
    lists = []
    for watches in (True, False):
        server = served()
        operator = settle(server, partial(FakeOperator, server, watches_pods=watches))
        lists.append(sum(path.endswith("/pods") for _, path in operator.kube.requests))
    assert lists[1] - lists[0] == sum(STAGES[g] for g in (0, 1))


def test_an_undisturbed_run_makes_each_job_once_and_few_writes() -> None:
    server = served(generations=2)
    operator = settle(server)
    assert [g["generation"] for g in server.status["history"]] == [0, 1, 2]
    assert len(server.created) == len(set(server.created)) == sum(STAGES.values())
    assert len(operator.kube.writes) <= 4 + 12 * 2
    assert server.status["phase"] == "Succeeded"


def test_at_rest_nothing_is_written() -> None:
    server = served()
    operator = settle(server)
    made = len(operator.kube.writes)
    for _ in range(3):
        later(server, 60)
        operator.resync()
        operator.look()
    fresh = FakeOperator(server)
    fresh.look()
    assert (len(operator.kube.writes), fresh.kube.writes) == (made, [])


def test_while_a_stage_runs_nothing_is_written() -> None:
    server = served()
    operator = FakeOperator(server)
    for _ in range(3):
        operator.look()
        server.carry_on()
        operator.hear()
        if server.jobs()[0].get("status", {}).get("ready"):
            break
    operator.look()
    made, version = len(operator.kube.writes), server.version
    for _ in range(5):
        later(server, 60)
        operator.resync()
        operator.look()
    assert (len(operator.kube.writes), server.version) == (made, version)


# Crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [Died(), LOST], ids=["the operator dies", "the answer is lost"])
def test_a_fault_at_any_request_changes_nothing(moment: str, error: BaseException) -> None:
    expected, requests = reference()
    for number, (method, path) in enumerate(requests):
        server, fault = served(), strike(number, moment, error)

        def start(server: Server = server, fault: Any = fault) -> FakeOperator:
            return FakeOperator(server, fault)

        settle(server, start)
        assert picture(server) == expected, f"{moment} {method} {path}"
        assert len(server.created) == len(set(server.created)), f"{moment} {method} {path}"


def test_an_answer_that_is_lost_at_each_request_changes_nothing() -> None:
    """Every write is applied and never heard of, but for one try in two."""
    expected, _ = reference()
    count = 0

    def fault(moment: str, _number: int) -> None:
        nonlocal count
        count += moment == "after"
        if moment == "after" and count % 2:
            raise LOST

    server = served()
    settle(server, lambda: FakeOperator(server, fault))
    assert picture(server) == expected


words = st.sampled_from(["look", "hear", "hear one", "carry on", "die", "lose", "other", "wait"])


@settings(max_examples=60)
@given(st.lists(words, max_size=60), st.integers(0, 3))
def test_two_operators_with_old_pictures_end_as_one(steps: list[str], lag: int) -> None:
    """Neither election nor a fresh watch is needed for the same end; they only save requests."""
    expected, _ = reference()
    server = served()
    operators = [FakeOperator(server), FakeOperator(server)]
    for step in steps:
        _play(server, operators, step, lag)
    settle(server)
    assert picture(server) == expected
    assert len(server.created) == len(set(server.created))


def _play(server: Server, operators: list[FakeOperator], step: str, lag: int) -> None:
    first, second = operators
    if step == "look":
        first.look()
    elif step == "hear":
        first.hear()
    elif step == "hear one":
        second.hear(lag)
    elif step == "carry on":
        server.carry_on()
    elif step == "die":
        operators[0] = FakeOperator(server)
    elif step == "other":
        second.look()
    elif step == "wait":
        later(server, 30)
    else:
        first.kube.fault = strike(0, "after", LOST)
        first.look()
        first.kube.fault = lambda _moment, _number: None


endings = st.sampled_from([0, 0, 1, 75, 143, "evicted", "gone", "silent"])


@settings(max_examples=40)
@given(st.lists(endings, max_size=12), st.integers(0, 200), st.sampled_from(["before", "after"]))
def test_failures_of_stages_and_of_the_operator_together(
    ends: list[Ending], number: int, moment: str
) -> None:
    policy = {"maxAttempts": 100, "maxDisruptions": 1000, "backoffSeconds": 10}
    server, left = served(failurePolicy=policy), list(ends)
    fault = strike(number, moment, Died())
    settle(server, lambda: FakeOperator(server, fault), lambda _: left.pop() if left else 0)
    made = picture(server)
    expected, _ = reference()
    assert {k: v for k, v in made.items() if k != "jobs"} == {
        k: v for k, v in expected.items() if k != "jobs"
    }
    assert len(server.created) == len(set(server.created))
    effective = Counter((g, s) for _, g, s in server.manifests)
    assert set(effective.values()) == {1}


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_jobs_deleted_by_hand_are_made_again(when: list[int]) -> None:
    expected, _ = reference()
    server = served()
    operator = FakeOperator(server)
    for steps in when:
        go_on(operator, steps)
        for job in server.jobs()[-1:]:
            server.remove(names.job_path((NAMESPACE, job["metadata"]["name"])))
        operator.hear()
    settle(server)
    made = picture(server)
    assert (made["history"], made["made"]) == (expected["history"], expected["made"])


# Old pictures ------------------------------------------------------------------------------------


def test_a_lost_race_for_the_status_is_looked_at_again() -> None:
    server = served()
    operator = FakeOperator(server)
    server.edit(ttlSecondsAfterFinished=100)
    with at_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert not server.jobs()
    operator.look()
    assert len(server.jobs()) == 1


def test_an_old_picture_makes_no_job_of_a_suspended_evolution() -> None:
    server = served()
    operator = FakeOperator(server)
    operator.look()
    (job,) = server.jobs()
    server.remove(names.job_path((NAMESPACE, job["metadata"]["name"])))
    operator.hear()
    server.edit(suspend=True)
    with at_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert not server.jobs()


def test_an_edit_that_lets_it_go_on_comes_before_its_deletion() -> None:
    server = served(ttlSecondsAfterFinished=100)
    operator = FakeOperator(server)
    go_on(operator, 40)
    assert server.status["phase"] == "Succeeded"
    later(server, 200)
    server.edit(ttlSecondsAfterFinished=1000)
    operator.look()
    assert server.evolution


def test_its_time_to_live_ends_it_and_its_jobs() -> None:
    server = served(ttlSecondsAfterFinished=100)
    operator = FakeOperator(server)
    go_on(operator, 40)
    assert operator.requeue is not None
    server.now = operator.requeue
    operator.look()
    assert not server.of("emotionevolutions")
    assert not server.jobs()
    operator.hear()
    operator.look()


def test_an_evolution_made_again_has_nothing_of_the_old() -> None:
    server = served()
    operator = FakeOperator(server)
    go_on(operator, 10)
    server.remove(names.evolution_path(KEY))
    server.add_evolution(evolution={"maxGenerations": 1})
    operator.look()  # the old picture still
    settle(server, lambda: operator)
    assert [g["generation"] for g in server.status["history"]] == [0, 1]
    uid = server.evolution["metadata"]["uid"]
    assert {j["metadata"]["labels"][names.LABEL_UID] for j in server.jobs()} == {uid}


def test_one_that_is_being_deleted_is_left_alone() -> None:
    server = served()
    server.evolution["metadata"]["deletionTimestamp"] = text_of(server.now)
    operator = FakeOperator(server)
    operator.look()
    assert operator.kube.requests == []


# What the API server refuses ---------------------------------------------------------------------


def test_a_job_that_is_refused_ends_it_with_the_servers_words_and_an_edit_mends_it() -> None:
    server = served()
    server.invalid = "spec.template.spec.containers[0].env: Invalid value"
    operator = FakeOperator(server)
    for _ in range(5):
        operator.look()
        operator.hear()
    stalled = server.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert "containers[0].env" in stalled["message"]
    tries = len([r for r in operator.kube.requests if r[1].endswith("/jobs")])
    assert tries == 1
    server.invalid = ""
    server.edit(ttlSecondsAfterFinished=1000)
    operator.hear()
    operator.look()
    assert len(server.jobs()) == 1
    assert server.condition("Stalled")["status"] == "False"


def test_a_quota_is_told_and_waited_for() -> None:
    server = served()
    server.forbidden["POST", "jobs"] = "exceeded quota: gpus"
    operator = FakeOperator(server)
    for _ in range(4):
        operator.look()
        operator.hear()
    said = server.condition("Progressing")
    assert (said["status"], said["reason"]) == ("False", "Waiting")
    assert "exceeded quota: gpus" in said["message"]
    server.forbidden.clear()
    operator.look()
    operator.look()
    assert server.condition("Progressing")["status"] == "True"


@pytest.mark.parametrize("plural", ["jobs", "services"])
def test_what_belongs_to_somebody_else_is_told_and_left(plural: str) -> None:
    server = served(training={"nodes": 2})
    name = {"jobs": "demo-g000-evaluate-1", "services": "demo-nodes"}[plural]
    path = names.jobs_path(NAMESPACE) if plural == "jobs" else names.core_path(NAMESPACE, plural)
    theirs = {"kind": "Thing", "metadata": {"name": name, "labels": {}}, "spec": {}}
    server._create(path, theirs)
    operator = FakeOperator(server)
    for _ in range(40):
        operator.look()
        operator.hear()
        server.carry_on() if plural == "services" else None
        operator.hear()
    said = server.condition("Progressing")
    assert said["reason"] == "Waiting"
    assert f"{name} exists and belongs to another owner" in said["message"]
    assert f"{path}/{name}" in server.objects
    server.remove(f"{path}/{name}")
    settle(server)
    assert server.status["phase"] == "Succeeded"


def test_events_that_cannot_be_written_hold_nothing_up() -> None:
    server = served()
    server.forbidden["POST", "events"] = "no"
    operator = FakeOperator(server)
    with at_time(server):
        operator.reconciler.reconcile(KEY)
    assert len(server.jobs()) == 1, "the action follows in the same pass"
    settle(server)
    assert server.status["phase"] == "Succeeded"
    assert not server.of("events")


def test_host_access_is_refused_before_anything_is_made() -> None:
    volumes = {"train": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}}
    server = served(podTemplate=volumes)
    FakeOperator(server).look()
    assert server.condition("Stalled")["reason"] == "BadInput"
    assert "podTemplate.train.volumes[root].hostPath" in server.condition("Stalled")["message"]
    assert not server.jobs()
    allowed = replace(SETTINGS, jobs=replace(SETTINGS.jobs, host_access=True))
    other = served(podTemplate=volumes)
    FakeOperator(other, settings=allowed).look()
    assert len(other.jobs()) == 1


# Resources that cannot be read -------------------------------------------------------------------


def test_one_that_cannot_be_read_is_told_so_once() -> None:
    server = served()
    server.edit(newField=1)
    operator = FakeOperator(server)
    for _ in range(3):
        operator.look()
        operator.hear()
        later(server, 60)
    assert server.condition("Stalled")["reason"] == "BadInput"
    assert "newField" in server.condition("Stalled")["message"]
    assert len(operator.kube.writes) == 1


def test_a_pinned_spec_of_another_version_is_told() -> None:
    server = served()
    operator = FakeOperator(server)
    operator.look()
    path = names.evolution_path(KEY)
    item = server.objects[path]
    item["status"]["current"]["spec"]["gone"] = True
    server._store(path, item)
    operator.hear()
    operator.look()
    assert "gone" in server.condition("Stalled")["message"]
    assert server.status["current"]["spec"]["gone"] is True


def test_another_controllers_evolution_is_not_touched_even_if_it_cannot_be_read() -> None:
    for extra in ({}, {"newField": 1}):
        server = served()
        server.edit(managedBy="example.com/other", **extra)
        operator = FakeOperator(server)
        operator.look()
        assert operator.kube.requests == []


# Suspension --------------------------------------------------------------------------------------


def _run_until_ready(server: Server, operator: FakeOperator) -> dict[str, Any]:
    for _ in range(10):
        operator.look()
        operator.hear()
        if server.jobs() and server.jobs()[-1].get("status", {}).get("ready"):
            return server.jobs()[-1]
        server.carry_on()
        operator.hear()
    raise AssertionError("no stage came to run")


def test_suspend_stops_the_pods_and_keeps_the_job() -> None:
    server = served()
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    server.edit(suspend=True)
    for _ in range(4):
        operator.hear()
        operator.look()
        server.carry_on()
    assert server.job(job["metadata"]["name"])["spec"]["suspend"] is True
    assert not server.pods_of(job)
    quiet = len(operator.kube.writes)
    operator.resync()
    operator.look()
    assert len(operator.kube.writes) == quiet
    later(server, 100_000)  # no deadline runs meanwhile
    server.edit(suspend=False)
    settle(server)
    assert picture(server) == reference()[0]


def test_a_queue_given_in_mid_stage_is_the_jobs_own_matter() -> None:
    """The Job's label decides, not the spec: a queue starts again what it finds suspended."""
    server = served()
    operator = FakeOperator(server)
    _run_until_ready(server, operator)
    server.edit(queue={"name": "gpus"})
    operator.hear()
    operator.look()
    server.carry_on()
    _advance_to(server, operator, "demo-g001-selfplay-1")
    job = server.job("demo-g001-selfplay-1")
    assert job["metadata"]["labels"][names.LABEL_QUEUE] == "gpus"
    server.edit(suspend=True)
    operator.hear()
    operator.look()
    assert "demo-g001-selfplay-1" not in [j["metadata"]["name"] for j in server.jobs()]


def _advance_to(server: Server, operator: FakeOperator, name: str) -> None:
    for _ in range(20):
        if name in server.created:
            return
        operator.hear()
        operator.look()
        operator.hear()
        server.carry_on()
    raise AssertionError(f"{name} was never made: {server.created}")


# Deadlines ---------------------------------------------------------------------------------------


def test_a_pod_that_was_preempted_after_hours_has_its_own_pending_deadline() -> None:
    """The Job's clock began with its first pod: by it the deadline would have passed long ago."""
    server = served(deadlines={"stagePendingSeconds": 1800})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    later(server, 7200)
    server._drop_pods(job)
    server.add_pod(job)
    server.set_job(job, active=1, ready=0)
    operator.hear()
    operator.look()
    assert "completionTime" not in server.status
    assert operator.requeue is not None
    later(server, 1799)
    operator.look()
    assert "completionTime" not in server.status
    later(server, 2)
    operator.look()
    assert server.condition("Stalled")["reason"] == "PendingTooLong"


def test_a_job_between_two_pods_is_not_pending_since_its_start() -> None:
    """The Job controller backs off before it makes the next pod: there is none for a while."""
    server = served(deadlines={"stagePendingSeconds": 1800})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    later(server, 7200)
    server._drop_pods(job)
    changed = [{"subresource": "status", "time": text_of(server.now)}]
    job = server.set_job(job, active=0, ready=0)
    job["metadata"]["managedFields"] = changed
    server._store(names.job_path((NAMESPACE, job["metadata"]["name"])), job)
    operator.hear()
    operator.look()
    assert "completionTime" not in server.status


def test_one_shard_that_never_starts_does_not_hang_for_ever() -> None:
    server = served(deadlines={"stagePendingSeconds": 600})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    stuck = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}
    server.add_pod(job, conditions=[stuck])
    server.set_job(job, active=2, ready=1)
    later(server, 10)
    operator.hear()
    operator.look()
    assert "Unschedulable: no" in server.condition("Progressing")["message"]
    later(server, 600)
    operator.look()
    assert server.condition("Stalled")["reason"] == "PendingTooLong"


def test_a_job_without_pods_is_told() -> None:
    server = served()
    operator = FakeOperator(server)
    operator.look()
    (job,) = server.jobs()
    began = server.now
    server.set_job(job, startTime=text_of(began))
    later(server, 16)
    operator.hear()
    before = len(operator.kube.requests)
    operator.look()
    assert operator.kube.requests[before:] == [], "the Job controller has counted none so far"
    assert operator.requeue == began + timedelta(seconds=31)
    server.now = operator.requeue
    operator.look()
    assert "no pod has been created" in server.condition("Progressing")["message"]


def test_pods_of_a_running_stage_are_listed_only_while_some_are_yet_to_start() -> None:
    server = served()
    operator = FakeOperator(server)
    _run_until_ready(server, operator)
    before = len(operator.kube.requests)
    operator.look()
    assert operator.kube.requests[before:] == []


# The fake itself ---------------------------------------------------------------------------------


def test_the_fake_refuses_what_the_real_one_refuses() -> None:
    server = served()
    client = Client(server)
    path = names.evolution_path(KEY)
    old = client.get(path)
    server.edit(suspend=True)
    with pytest.raises(ApiError, match="409 Conflict"):
        client.replace(path + "/status", {**old, "status": {"phase": "Running"}})
    bare = {**old, "metadata": {"name": "demo"}}
    with pytest.raises(ApiError, match="422"):
        client.replace(path + "/status", bare)
    with pytest.raises(ApiError, match="404"):
        client.get(names.job_path((NAMESPACE, "none")))
    client.delete(path, "another uid")
    client.delete(path, old["metadata"]["uid"], old["metadata"]["resourceVersion"])
    assert server.evolution, "neither uid nor version fits"
    client.delete(path, old["metadata"]["uid"])
    assert not server.of("emotionevolutions")
    assert {method for method, _ in client.writes} <= set(WRITES)
