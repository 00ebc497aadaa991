"""Whole runs of the reconciler on an API server in memory, with all kinds of faults."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.controller.fake_api import (
    KEY,
    NAMESPACE,
    WRITES,
    Ending,
    FakeApiServer,
    FakeClient,
    advance_clock,
    format_time,
)
from tests.unit.operator.controller.fake_operator import (
    SETTINGS,
    FakeOperator,
    ProcessKilled,
    end_state,
    reconcile_times,
    run_until_idle,
    server_time,
)

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import is_purge_job
from selfemo_operator.controller.reconcile.status_writer import Conflict
from selfemo_operator.planner import pinning

#: The number of stages of each generation.
STAGES = {0: 3, 1: 6, 2: 6}
LOST = ApiError(0, "Unreachable", "the response was lost")


def check_progress(before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Check that a status write advances by at most one generation and skips none."""
    old = (before or {}).get("status", {})
    new = after["status"]
    step = new.get("generation", 0) - old.get("generation", 0)
    assert step in (0, 1), f"from generation {old.get('generation')} to {new.get('generation')}"
    history = [g["generation"] for g in new.get("history", [])]
    assert history == list(range(len(history))), f"a generation was skipped: {history}"


def server_with_evolution(generations: int = 1, **spec: Any) -> FakeApiServer:
    server = FakeApiServer(on_status=check_progress)
    server.add_evolution(stopping={"maxGenerations": generations, "patience": 99}, **spec)
    return server


def undisturbed_run(generations: int = 1) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    server = server_with_evolution(generations)
    operator = run_until_idle(server)
    return end_state(server), operator.kube.requests


def fail_once(at: int, moment: str, error: BaseException) -> Callable[[str, int], None]:
    """Return a fault that raises an error once, at the n-th request of the whole run."""
    calls = Counter[str]()

    def fault(now: str, _number: int) -> None:
        calls[now] += 1
        if now == moment and calls[now] == at + 1:
            raise error

    return fault


class LosingPosts(FakeClient):
    """A client whose creations do not reach the server."""

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        raise ApiError(0, "Unreachable", f"POST {path}: refused")


# An undisturbed run ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_a_stale_cache_or_watch_does_not_change_the_result(code: int) -> None:
    """Termination messages are read from a consistent list if no watch has delivered them."""
    ends = []
    for stale in (False, True):
        server = server_with_evolution(failurePolicy={"maxAttempts": 2, "backoffSeconds": 0})
        server.stale_cache = stale
        run_until_idle(
            server,
            partial(FakeOperator, server, watches_pods=not stale),
            ending=lambda _: code,
        )
        status = server.status
        summary = [server.condition("Succeeded")[name] for name in ("status", "reason", "message")]
        ends.append((summary, server.created, status["failures"], status["history"]))
    assert ends[0] == ends[1]


def test_with_a_pod_watch_no_pods_are_listed_for_results() -> None:
    lists = []
    for watches in (True, False):
        server = server_with_evolution()
        operator = run_until_idle(server, partial(FakeOperator, server, watches_pods=watches))
        lists.append(sum(path.endswith("/pods") for _, path in operator.kube.requests))
    assert lists[1] - lists[0] == sum(STAGES[g] for g in (0, 1))


def test_an_undisturbed_run_creates_each_job_once_with_few_writes() -> None:
    server = server_with_evolution(generations=2)
    operator = run_until_idle(server)
    assert [g["generation"] for g in server.status["history"]] == [0, 1, 2]
    assert len(server.created) == len(set(server.created)) == sum(STAGES.values())
    # generation 0: the status, the Job and its event of the check, then of the evaluation and of
    # the publication
    assert len(operator.kube.writes) <= 3 + 4 + 2 + 14 * 2
    assert server.status["phase"] == "Succeeded"


def test_an_idle_operator_writes_nothing() -> None:
    server = server_with_evolution()
    operator = run_until_idle(server)
    writes = len(operator.kube.writes)
    for _ in range(3):
        advance_clock(server, 60)
        operator.resync()
        operator.reconcile()
    fresh = FakeOperator(server)
    fresh.reconcile()
    assert (len(operator.kube.writes), fresh.kube.writes) == (writes, [])


def test_nothing_is_written_while_a_stage_runs() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        server.advance_jobs()
        operator.receive_events()
        if server.jobs()[0].get("status", {}).get("ready"):
            break
    operator.reconcile()
    writes, version = len(operator.kube.writes), server.version
    for _ in range(5):
        advance_clock(server, 60)
        operator.resync()
        operator.reconcile()
    assert (len(operator.kube.writes), server.version) == (writes, version)


# Faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "error", [ProcessKilled(), LOST], ids=["the operator is killed", "the response is lost"]
)
def test_a_fault_at_any_request_changes_no_result(moment: str, error: BaseException) -> None:
    expected, requests = undisturbed_run()
    for number, (method, path) in enumerate(requests):
        server, fault = server_with_evolution(), fail_once(number, moment, error)

        def start(server: FakeApiServer = server, fault: Any = fault) -> FakeOperator:
            return FakeOperator(server, fault)

        run_until_idle(server, start)
        assert end_state(server) == expected, f"{moment} {method} {path}"
        assert len(server.created) == len(set(server.created)), f"{moment} {method} {path}"


def test_lost_responses_do_not_change_the_result() -> None:
    """The response to every second request is lost, after the request was applied."""
    expected, _ = undisturbed_run()
    count = 0

    def fault(moment: str, _number: int) -> None:
        nonlocal count
        count += moment == "after"
        if moment == "after" and count % 2:
            raise LOST

    server = server_with_evolution()
    run_until_idle(server, lambda: FakeOperator(server, fault))
    assert end_state(server) == expected


steps_of_two = st.sampled_from(
    [
        "reconcile",
        "receive",
        "receive some",
        "advance jobs",
        "restart",
        "lose a response",
        "reconcile the second",
        "wait",
    ]
)


@settings(max_examples=60)
@given(st.lists(steps_of_two, max_size=60), st.integers(0, 3))
def test_two_operators_with_stale_caches_agree(steps: list[str], count: int) -> None:
    """Leader election and current caches are not needed for the result; they save requests."""
    expected, _ = undisturbed_run()
    server = server_with_evolution()
    operators = [FakeOperator(server), FakeOperator(server)]
    for step in steps:
        _apply_step(server, operators, step, count)
    run_until_idle(server)
    assert end_state(server) == expected
    assert len(server.created) == len(set(server.created))
    stage_jobs = {job["metadata"]["name"] for job in server.jobs() if not is_purge_job(job)}
    assert stage_jobs == set(server.created), "a Job that had succeeded was deleted"


def _apply_step(
    server: FakeApiServer, operators: list[FakeOperator], step: str, count: int
) -> None:
    first, second = operators
    if step == "reconcile":
        first.reconcile()
    elif step == "receive":
        first.receive_events()
    elif step == "receive some":
        second.receive_events(count)
    elif step == "advance jobs":
        server.advance_jobs()
    elif step == "restart":
        operators[0] = FakeOperator(server)
    elif step == "reconcile the second":
        second.reconcile()
    elif step == "wait":
        advance_clock(server, 30)
    else:
        first.kube.fault = fail_once(0, "after", LOST)
        first.reconcile()
        first.kube.fault = lambda _moment, _number: None


endings = st.sampled_from([0, 0, 1, 75, 143, "evicted", "gone", "silent"])


@settings(max_examples=40)
@given(st.lists(endings, max_size=12), st.integers(0, 200), st.sampled_from(["before", "after"]))
def test_failures_of_stages_and_of_the_operator(
    ends: list[Ending], number: int, moment: str
) -> None:
    policy = {"maxAttempts": 100, "maxDisruptions": 1000, "backoffSeconds": 10}
    server, remaining = server_with_evolution(failurePolicy=policy), list(ends)
    fault = fail_once(number, moment, ProcessKilled())
    run_until_idle(
        server, lambda: FakeOperator(server, fault), lambda _: remaining.pop() if remaining else 0
    )
    state = end_state(server)
    expected, _ = undisturbed_run()
    assert {k: v for k, v in state.items() if k != "jobs"} == {
        k: v for k, v in expected.items() if k != "jobs"
    }
    assert len(server.created) == len(set(server.created))
    effective = Counter((g, s) for _, g, s in server.manifests)
    assert set(effective.values()) == {1}


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_jobs_deleted_by_hand_are_created_again(when: list[int]) -> None:
    expected, _ = undisturbed_run()
    server = server_with_evolution()
    operator = FakeOperator(server)
    for steps in when:
        reconcile_times(operator, steps)
        for job in server.jobs()[-1:]:
            server.remove(names.job_path((NAMESPACE, job["metadata"]["name"])))
        operator.receive_events()
    run_until_idle(server)
    state = end_state(server)
    assert (state["history"], state["manifests"]) == (expected["history"], expected["manifests"])


# Stale caches ------------------------------------------------------------------------------------


def test_a_conflict_at_the_status_write_is_reconciled_again() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    operator.reconciler.refresh(KEY)
    server.edit(ttlSecondsAfterFinished=100)
    with server_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert not server.jobs()
    operator.reconcile()
    assert len(server.jobs()) == 1


def test_a_stale_cache_creates_no_job_for_a_suspended_evolution() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    operator.reconcile()
    (job,) = server.jobs()
    server.remove(names.job_path((NAMESPACE, job["metadata"]["name"])))
    operator.receive_events()
    server.edit(suspend=True)
    with server_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert not server.jobs()


def test_a_stale_cache_of_jobs_deletes_no_job_that_has_ended() -> None:
    """The watch of evolutions was faster than the watch of Jobs: the ended Job looks active."""
    server = server_with_evolution()
    first, second = FakeOperator(server), FakeOperator(server)
    first.reconcile()
    server.advance_jobs()
    second.receive_events()
    while server.status["stage"] == "Check":
        server.advance_jobs()
        first.receive_events()
        first.reconcile()
    second.reconciler.refresh(KEY)
    second.cache.announce_evolution(KEY, server.version, server.evolution["metadata"]["uid"])
    with server_time(server), pytest.raises(Conflict, match="check-1 was not deleted"):
        second.reconciler.reconcile(KEY)
    assert "demo-g000-check-1" in {job["metadata"]["name"] for job in server.jobs()}


def test_after_a_restore_of_etcd_a_stale_cache_creates_no_job() -> None:
    """The restored evolution is older than the cached one, whose next Job was not yet created."""
    server = server_with_evolution()
    operator = FakeOperator(server)
    operator.reconcile()
    server.advance_jobs()
    backup = copy.deepcopy(server)
    operator.kube.__class__ = LosingPosts
    while server.status["stage"] == "Check":
        operator.reconcile()
        server.advance_jobs()
        operator.receive_events()
    vars(server).update(vars(backup))
    operator.kube.__class__ = FakeClient
    with server_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert server.created == ["demo-g000-check-1"]


def test_an_edit_that_extends_the_ttl_prevents_the_deletion() -> None:
    server = server_with_evolution(ttlSecondsAfterFinished=100)
    operator = FakeOperator(server)
    reconcile_times(operator, 40)
    assert server.status["phase"] == "Succeeded"
    advance_clock(server, 200)
    server.edit(ttlSecondsAfterFinished=1000)
    operator.reconcile()
    assert server.evolution


def test_an_edit_that_comes_just_before_the_deletion_prevents_it() -> None:
    server = server_with_evolution(ttlSecondsAfterFinished=100)
    operator = FakeOperator(server)
    reconcile_times(operator, 40)
    advance_clock(server, 200)
    deletion = ("DELETE", names.evolution_path(KEY))

    def edit(moment: str, number: int) -> None:
        if moment == "before" and operator.kube.requests[number] == deletion:
            server.edit(ttlSecondsAfterFinished=1000)

    operator.kube.fault = edit
    operator.reconcile()
    assert deletion in operator.kube.requests
    assert server.evolution["spec"]["ttlSecondsAfterFinished"] == 1000


def test_the_ttl_deletes_the_evolution_and_its_jobs() -> None:
    server = server_with_evolution(ttlSecondsAfterFinished=100)
    operator = FakeOperator(server)
    reconcile_times(operator, 40)
    assert operator.requeue is not None
    server.now = operator.requeue
    operator.reconcile()
    assert not server.of("emotionevolutions")
    assert not server.jobs()
    operator.receive_events()
    operator.reconcile()


def test_a_recreated_evolution_starts_from_scratch() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    reconcile_times(operator, 10)
    server.remove(names.evolution_path(KEY))
    server.add_evolution(stopping={"maxGenerations": 1})
    operator.reconcile()  # with the old evolution in the cache
    run_until_idle(server, lambda: operator)
    assert [g["generation"] for g in server.status["history"]] == [0, 1]
    uid = server.evolution["metadata"]["uid"]
    assert {j["metadata"]["labels"][names.LABEL_UID] for j in server.jobs()} == {uid}


def test_an_evolution_that_is_being_deleted_is_ignored() -> None:
    server = server_with_evolution()
    server.evolution["metadata"]["deletionTimestamp"] = format_time(server.now)
    operator = FakeOperator(server)
    operator.reconcile()
    assert operator.kube.requests == [("GET", names.evolution_path(KEY))]


# Rejected requests -------------------------------------------------------------------------------


def test_a_rejected_job_ends_the_evolution_until_an_edit() -> None:
    server = server_with_evolution()
    server.invalid = "spec.template.spec.containers[0].env: Invalid value"
    operator = FakeOperator(server)
    for _ in range(5):
        operator.reconcile()
        operator.receive_events()
    stalled = server.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert "containers[0].env" in stalled["message"]
    tries = len([r for r in operator.kube.requests if r[1].endswith("/jobs")])
    assert tries == 1
    server.invalid = ""
    server.edit(ttlSecondsAfterFinished=1000)
    operator.receive_events()
    operator.reconcile()
    assert len(server.jobs()) == 1
    assert server.condition("Stalled")["status"] == "False"


@pytest.mark.parametrize("created_again", [False, True])
def test_nothing_is_kept_of_a_deleted_evolution(created_again: bool) -> None:
    server = server_with_evolution()
    server.invalid = "spec.template.spec.containers[0].env: Invalid value"
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        operator.receive_events()
    (uid,) = operator.reconciler._creation_errors._errors
    server.remove(names.evolution_path(KEY))
    operator.receive_events()
    if created_again:
        server.add_evolution()
        operator.receive_events()
    operator.reconcile()
    assert uid not in operator.reconciler._creation_errors._errors
    assert uid not in operator.reconciler._uids.values()


def test_an_exceeded_quota_is_reported_and_retried() -> None:
    server = server_with_evolution()
    server.forbidden["POST", "jobs"] = "exceeded quota: gpus"
    operator = FakeOperator(server)
    for _ in range(4):
        operator.reconcile()
        operator.receive_events()
    progressing = server.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "Waiting")
    assert "exceeded quota: gpus" in progressing["message"]
    server.forbidden.clear()
    operator.reconcile()
    operator.reconcile()
    assert server.condition("Progressing")["status"] == "True"


@pytest.mark.parametrize("plural", ["jobs", "services"])
def test_an_object_of_another_owner_is_reported_and_not_changed(plural: str) -> None:
    server = server_with_evolution(resources={"nodes": 2, "gpusPerNode": 0})
    name = {"jobs": "demo-g000-check-1", "services": "demo-nodes"}[plural]
    path = names.jobs_path(NAMESPACE) if plural == "jobs" else names.core_path(NAMESPACE, plural)
    other = {"kind": "Thing", "metadata": {"name": name, "labels": {}}, "spec": {}}
    server._create(path, other)
    operator = FakeOperator(server)
    for _ in range(40):
        operator.reconcile()
        operator.receive_events()
        server.advance_jobs() if plural == "services" else None
        operator.receive_events()
    progressing = server.condition("Progressing")
    assert progressing["reason"] == "Waiting"
    assert f"{name} exists and belongs to another owner" in progressing["message"]
    assert f"{path}/{name}" in server.objects
    server.remove(f"{path}/{name}")
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_events_that_cannot_be_created_block_nothing() -> None:
    server = server_with_evolution()
    server.forbidden["POST", "events"] = "no"
    operator = FakeOperator(server)
    with server_time(server):
        operator.reconciler.reconcile(KEY)
    assert len(server.jobs()) == 1, "the action follows in the same reconcile"
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"
    assert not server.of("events")


def test_host_access_is_rejected_before_anything_is_created() -> None:
    root = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    volumes = [{"stages": ["Train"], "template": root}]
    server = server_with_evolution(podTemplate=volumes)
    FakeOperator(server).reconcile()
    assert server.condition("Stalled")["reason"] == "BadInput"
    message = server.condition("Stalled")["message"]
    assert "podTemplate[0].template.volumes[root].hostPath" in message
    assert not server.jobs()
    allowed = replace(SETTINGS, jobs=replace(SETTINGS.jobs, host_access=True))
    other = server_with_evolution(podTemplate=volumes)
    FakeOperator(other, settings=allowed).reconcile()
    assert len(other.jobs()) == 1


# Unreadable resources ----------------------------------------------------------------------------


def test_an_unreadable_spec_is_reported_once() -> None:
    server = server_with_evolution()
    server.edit(newField=1)
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        operator.receive_events()
        advance_clock(server, 60)
    assert server.condition("Stalled")["reason"] == "BadInput"
    assert "newField" in server.condition("Stalled")["message"]
    assert len(operator.kube.writes) == 1


UNRESOLVED = {
    "an unknown recipe": (
        {"recipe": "small-v99"},
        "spec: there is no recipe `small-v99`; available: small-v2, small-v1, ",
    ),
    "a field of its own in overrides": (
        {"overrides": {"training": {"imitation": 1.0}}},
        "spec: `overrides.training.imitation`: has a dedicated field: set `training.imitation` "
        "outside `overrides`",
    ),
    "an unknown setting in overrides": (
        {"overrides": {"training": {"gears": 4}}},
        "spec: `overrides.training.gears`: unknown field",
    ),
    "values out of bounds in overrides": (
        {"overrides": {"training": {"epochs": 0}, "reward": {"penalty": 2}}},
        "spec.overrides.reward.penalty: Invalid value: 2: should be less than or equal to 1; "
        "spec.overrides.training.epochs: Invalid value: 0: should be greater than or equal to 1",
    ),
}


@pytest.mark.parametrize(("edit", "message"), UNRESOLVED.values(), ids=UNRESOLVED)
def test_a_spec_that_cannot_be_resolved_is_reported_until_it_is_fixed(
    edit: dict[str, Any], message: str
) -> None:
    """The API server does not know the recipes, nor what is in `overrides`."""
    server = server_with_evolution()
    before = server.evolution["spec"]
    server.edit(**edit)
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        operator.receive_events()
    stalled = server.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert stalled["message"].startswith(message)
    assert server.condition("Succeeded")["message"] == stalled["message"]
    assert (server.jobs(), len(operator.kube.writes)) == ([], 1)
    server.edit(**{name: before.get(name, {}) for name in edit})
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_a_rule_that_the_values_of_the_recipe_break_is_reported_before_any_job() -> None:
    server = server_with_evolution(selfPlay={"groupSize": 7})
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        operator.receive_events()
    message = (
        "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not split"
    )
    assert server.condition("Stalled")["message"] == f"spec: {message}"
    assert server.jobs() == []
    (event,) = server.of("events")
    assert (event["type"], event["reason"]) == ("Warning", "BadInput")
    server.edit(selfPlay={"groupSize": 8})
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_rules_are_run_when_a_spec_is_pinned_and_not_at_each_reconcile() -> None:
    with patch.object(pinning, "_problems", wraps=pinning._problems) as checks:
        server = server_with_evolution(generations=2)
        operator = FakeOperator(server)
        _advance_to(server, operator, "demo-g001-selfplay-1")
        assert [c.args[1] for c in checks.mock_calls] == [""], "an unchanged spec is not checked"
        server.edit(stopping={"maxGenerations": 2, "patience": 98})
        operator.receive_events()
        run_until_idle(server, lambda: operator)
        assert [c.args[1] != "" for c in checks.mock_calls] == [False, True]
        for _ in range(3):
            advance_clock(server, 60)
            operator.reconcile()
    assert checks.call_count == 2
    assert server.status["phase"] == "Succeeded"


def test_an_unreadable_pinned_spec_is_reported() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    operator.reconcile()
    path = names.evolution_path(KEY)
    item = server.objects[path]
    item["status"]["current"]["spec"]["gone"] = True
    server._store(path, item)
    operator.receive_events()
    operator.reconcile()
    assert "gone" in server.condition("Stalled")["message"]
    assert server.status["current"]["spec"]["gone"] is True

    # an operator that can read it goes on
    item = server.objects[path]
    del item["status"]["current"]["spec"]["gone"]
    server._store(path, item)
    another = FakeOperator(server)
    another.reconcile()
    assert "Stalled" not in {
        c["type"] for c in server.status["conditions"] if c["status"] == "True"
    }
    assert server.condition("Reconciling")["status"] == "True"


def test_after_an_edit_that_cannot_be_read_the_job_goes_on_and_none_follows() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    recipe = server.evolution["spec"]["recipe"]
    server.edit(recipe="small-v99")
    text = "; the Job demo-g000-check-1 continues, and no other Job follows"
    operator.receive_events()
    operator.reconcile()
    assert server.condition("Stalled")["message"].endswith(text)
    assert server.job(job["metadata"]["name"]) == job
    reconcile_times(operator, 5)
    assert server.created == ["demo-g000-check-1"]
    assert "demo-g000-check-1" not in server.condition("Stalled")["message"], "it has ended"
    server.edit(recipe=recipe)
    run_until_idle(server)
    assert end_state(server) == undisturbed_run()[0]


@pytest.mark.parametrize("queued", [False, True])
def test_a_suspension_counts_in_a_spec_that_cannot_be_read(queued: bool) -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    if queued:
        job["metadata"]["labels"][names.LABEL_QUEUE] = "gpus"
        server._store(names.job_path((NAMESPACE, job["metadata"]["name"])), job)
    recipe = server.evolution["spec"]["recipe"]
    server.edit(recipe="small-v99")
    operator.receive_events()
    operator.reconcile()
    server.edit(suspend=True)
    for _ in range(3):
        operator.receive_events()
        operator.reconcile()
        server.advance_jobs()
    assert not server.pods_of(job)
    jobs = {j["metadata"]["name"]: j["spec"]["suspend"] for j in server.jobs()}
    assert jobs == ({} if queued else {"demo-g000-check-1": True}), "a queue would start it again"
    message = server.condition("Stalled")["message"]
    assert message.endswith("; the Job demo-g000-check-1 is stopped") is not queued
    requests = len(operator.kube.requests)
    operator.reconcile()
    assert len(operator.kube.requests) == requests

    server.edit(recipe=recipe, suspend=False)
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


def test_nothing_is_stopped_under_an_old_version_of_a_spec_that_cannot_be_read() -> None:
    """The report was written, and the process was killed before it stopped the Job."""
    server = server_with_evolution()
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    server.edit(recipe="small-v99", suspend=True)
    operator.receive_events()
    operator.kube.fault = fail_once(2, "before", ProcessKilled())
    with pytest.raises(ProcessKilled):
        operator.reconcile()
    assert operator.kube.requests[-1][0] == "PATCH"
    operator = FakeOperator(server)
    operator.reconciler.refresh(KEY)
    server.edit(suspend=False)
    with server_time(server), pytest.raises(Conflict):
        operator.reconciler.reconcile(KEY)
    assert server.job(job["metadata"]["name"]) == job


@pytest.mark.parametrize("code", [0, 2], ids=["succeeded", "failed"])
def test_an_outcome_outlasts_a_time_in_which_the_spec_cannot_be_read(code: int) -> None:
    """An older operator after `helm rollback`, and the newer one again."""
    server = server_with_evolution()
    run_until_idle(server, ending=lambda _: code)
    path, before = names.evolution_path(KEY), copy.deepcopy(server.status)
    item = copy.deepcopy(server.objects[path])
    item["status"]["current"]["spec"]["gone"] = True
    server._store(path, item)
    advance_clock(server, 60)
    operator = FakeOperator(server)
    for _ in range(3):
        operator.reconcile()
        operator.receive_events()
    assert len(operator.kube.writes) == 1
    stalled = server.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert "gone" in stalled["message"]
    assert server.status["phase"] == before["phase"]
    for kind in ("Succeeded", "Reconciling", "Suspended", "Progressing"):
        assert server.condition(kind) in before["conditions"]

    item = copy.deepcopy(server.objects[path])
    del item["status"]["current"]["spec"]["gone"]
    server._store(path, item)
    run_until_idle(server)
    after = copy.deepcopy(server.status)
    for status in (before, after):
        (stalled,) = (c for c in status["conditions"] if c["type"] == "Stalled")
        del stalled["lastTransitionTime"]
    assert after == before


def test_another_controllers_evolution_is_ignored_even_if_it_cannot_be_read() -> None:
    for extra in ({}, {"newField": 1}):
        server = server_with_evolution()
        server.edit(managedBy="example.com/other", **extra)
        operator = FakeOperator(server)
        operator.reconcile()
        assert operator.kube.requests == [("GET", names.evolution_path(KEY))]


def test_an_evolution_that_names_this_operator_is_run() -> None:
    server = server_with_evolution(managedBy="selfemo.dev/operator")
    run_until_idle(server)
    assert server.status["phase"] == "Succeeded"


# Suspension --------------------------------------------------------------------------------------


def _run_until_ready(server: FakeApiServer, operator: FakeOperator) -> dict[str, Any]:
    for _ in range(10):
        operator.reconcile()
        operator.receive_events()
        if server.jobs() and server.jobs()[-1].get("status", {}).get("ready"):
            return server.jobs()[-1]
        server.advance_jobs()
        operator.receive_events()
    raise AssertionError("no stage has started")


def test_suspend_stops_the_pods_and_keeps_the_job() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    server.edit(suspend=True)
    for _ in range(4):
        operator.receive_events()
        operator.reconcile()
        server.advance_jobs()
    assert server.job(job["metadata"]["name"])["spec"]["suspend"] is True
    assert not server.pods_of(job)
    writes = len(operator.kube.writes)
    operator.resync()
    operator.reconcile()
    assert len(operator.kube.writes) == writes
    advance_clock(server, 100_000)  # no deadline runs during a suspension
    server.edit(suspend=False)
    run_until_idle(server)
    assert end_state(server) == undisturbed_run()[0]


def test_a_queue_added_during_a_stage_applies_to_the_next_job() -> None:
    """The label of the Job decides, not the spec: a queue resumes the suspended Jobs it manages."""
    server = server_with_evolution()
    operator = FakeOperator(server)
    _run_until_ready(server, operator)
    server.edit(queue={"name": "gpus"})
    operator.receive_events()
    operator.reconcile()
    server.advance_jobs()
    _advance_to(server, operator, "demo-g001-selfplay-1")
    job = server.job("demo-g001-selfplay-1")
    assert job["metadata"]["labels"][names.LABEL_QUEUE] == "gpus"
    server.edit(suspend=True)
    operator.receive_events()
    operator.reconcile()
    assert "demo-g001-selfplay-1" not in [j["metadata"]["name"] for j in server.jobs()]


def _advance_to(server: FakeApiServer, operator: FakeOperator, name: str) -> None:
    for _ in range(20):
        if name in server.created:
            return
        operator.receive_events()
        operator.reconcile()
        operator.receive_events()
        server.advance_jobs()
    raise AssertionError(f"{name} was not created: {server.created}")


# Deadlines ---------------------------------------------------------------------------------------


def test_a_preempted_pod_has_its_own_pending_deadline() -> None:
    """The Job's start time is that of its first pod: with it, the deadline would have passed."""
    server = server_with_evolution(deadlines={"stagePendingSeconds": 1800})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    advance_clock(server, 7200)
    server.delete_pods(job)
    server.add_pod(job)
    server.set_job_status(job, active=1, ready=0)
    operator.receive_events()
    operator.reconcile()
    assert "completionTime" not in server.status
    assert operator.requeue is not None
    advance_clock(server, 1799)
    operator.reconcile()
    assert "completionTime" not in server.status
    advance_clock(server, 2)
    operator.reconcile()
    assert server.condition("Stalled")["reason"] == "PendingTooLong"


def test_a_job_between_two_pods_is_not_pending_since_its_start() -> None:
    """The Job controller backs off before it creates the next pod: there is none for a while."""
    server = server_with_evolution(deadlines={"stagePendingSeconds": 1800})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    advance_clock(server, 7200)
    server.delete_pods(job)
    changed = [{"subresource": "status", "time": format_time(server.now)}]
    job = server.set_job_status(job, active=0, ready=0)
    job["metadata"]["managedFields"] = changed
    server._store(names.job_path((NAMESPACE, job["metadata"]["name"])), job)
    operator.receive_events()
    operator.reconcile()
    assert "completionTime" not in server.status


def test_a_shard_that_never_starts_passes_the_pending_deadline_once_no_other_one_runs() -> None:
    """With less capacity than shards, they run one after another: no deadline counts meanwhile."""
    server = server_with_evolution(deadlines={"stagePendingSeconds": 600})
    operator = FakeOperator(server)
    job = _run_until_ready(server, operator)
    stuck = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}
    server.add_pod(job, conditions=[stuck])
    server.set_job_status(job, active=2, ready=1)
    advance_clock(server, 10)
    operator.receive_events()
    operator.reconcile()
    assert "Unschedulable: no" in server.condition("Progressing")["message"]
    advance_clock(server, 600)
    operator.reconcile()
    assert server.condition("Progressing")["reason"] == "Running"
    assert "some pods are running, others are waiting" in server.condition("Progressing")["message"]
    change = {"subresource": "status", "time": format_time(server.now)}
    server.job(job["metadata"]["name"])["metadata"]["managedFields"] = [change]
    server.set_job_status(job, active=1, ready=0, succeeded=1)
    operator.receive_events()
    operator.reconcile()
    assert server.condition("Progressing")["reason"] == "Waiting"
    operator.reconcile()
    assert operator.requeue == server.now + timedelta(seconds=31), "the next look at its pods"
    advance_clock(server, 599)
    operator.reconcile()
    assert server.condition("Stalled")["reason"] == "Healthy"
    assert operator.requeue == server.now + timedelta(seconds=1), "from the end of the last one"
    advance_clock(server, 1)
    operator.reconcile()
    assert server.condition("Stalled")["reason"] == "PendingTooLong"


def test_a_job_without_pods_is_reported() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    operator.reconcile()
    (job,) = server.jobs()
    start = server.now
    server.set_job_status(job, startTime=format_time(start))
    advance_clock(server, 16)
    operator.receive_events()
    before = len(operator.kube.requests)
    operator.reconcile()
    assert operator.kube.requests[before:] == [], "the Job controller has not counted a pod"
    assert operator.requeue == start + timedelta(seconds=31)
    server.now = operator.requeue
    operator.reconcile()
    assert "no pod has been created" in server.condition("Progressing")["message"]


def test_pods_of_a_running_stage_are_listed_only_while_some_have_not_started() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    _run_until_ready(server, operator)
    before = len(operator.kube.requests)
    operator.reconcile()
    assert operator.kube.requests[before:] == []


# The fake itself ---------------------------------------------------------------------------------


def test_the_fake_rejects_what_the_real_api_server_rejects() -> None:
    server = server_with_evolution()
    client = FakeClient(server)
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
    assert server.evolution, "neither the uid nor the version matched"
    client.delete(path, old["metadata"]["uid"])
    assert not server.of("emotionevolutions")
    assert {method for method, _ in client.writes} <= set(WRITES)
