"""The cache: it holds the newest version of each object, in any order of events."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.controller.kube_objects import evolution_of

from selfemo_api.stages import Stage, job_name
from selfemo_operator.controller.caches import evolution_cache
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_cache import DELETED_SECONDS, object_key
from selfemo_operator.controller.caches.evolution_text import Identity
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.job_status import STATUS_CHANGE_TIME

Json = dict[str, Any]


def evolution(version: int, name: str = "demo", namespace: str = "team") -> Json:
    metadata = {"namespace": namespace, "name": name, "resourceVersion": str(version)}
    return {"metadata": {**metadata, "managedFields": [{}]}, "spec": {"at": version}}


def job(version: int, attempt: int = 1, namespace: str = "team", uid: str = "") -> Json:
    labels = names.stage_labels(evolution_of(), Stage.EVALUATE, attempt)
    labels[names.LABEL_UID] = uid or labels[names.LABEL_UID]
    entry = {"subresource": "status", "time": "2026-01-01T11:00:00Z"}
    return {
        "metadata": {
            "namespace": namespace,
            "name": job_name("demo", 0, Stage.EVALUATE, attempt),
            "labels": labels,
            "resourceVersion": str(version),
            "managedFields": [entry],
        },
        "spec": {"template": {"big": "pod"}, "suspend": False},
    }


KEY, UID = ("team", "demo"), "0123456789ab"


def test_an_older_version_is_ignored() -> None:
    cache = Cache()
    assert cache.store_evolution(evolution(5))
    assert not cache.store_evolution(evolution(5))
    assert not cache.store_evolution(evolution(4))
    cached = cache.evolution(KEY)
    assert cached is not None
    assert cached["spec"]["at"] == 5


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.store_evolution(evolution(99))
    assert cache.store_evolution(evolution(100))


def test_the_announcement_of_an_expected_write_is_not_a_change() -> None:
    cache = Cache()
    cache.store_evolution(evolution(5))
    with cache.expect_write(KEY):
        assert not cache.announce_evolution(KEY, 6, UID)
        cache.store_evolution(evolution(6))
    assert not cache.is_behind(KEY)
    assert cache.evolution_version(KEY) == 6
    assert cache.announce_evolution(KEY, 7, UID)


def test_an_edit_during_an_expected_write_is_a_change() -> None:
    """It is announced after the write, and before the response to the write arrives."""
    cache = Cache()
    cache.store_evolution(evolution(5))
    with cache.expect_write(KEY):
        cache.announce_evolution(KEY, 6, UID)
        cache.announce_evolution(KEY, 7, UID)
        cache.store_evolution(evolution(6))
    assert cache.is_behind(KEY)


def test_a_version_is_announced_once() -> None:
    cache = Cache()
    assert cache.announce_evolution(KEY, 5, UID)
    assert cache.is_behind(KEY)
    assert not cache.announce_evolution(KEY, 5, UID)
    cache.store_evolution(evolution(5))
    assert not cache.is_behind(KEY)
    assert not cache.announce_evolution(KEY, 5, UID)
    assert cache.announce_evolution(KEY, 8, UID)
    cache.store_evolution(evolution(6))
    assert cache.is_behind(KEY), "an older version was read"


def test_what_arrives_after_a_deletion_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response or a page of a list that was on its way is older than the deletion."""
    cache = Cache()
    item = evolution(5)
    item["metadata"]["uid"] = UID
    cache.store_evolution(item)
    cache.remove_evolution(KEY, 9, UID)
    late = evolution(8)
    late["metadata"]["uid"] = UID
    assert not cache.store_evolution(late)
    assert not cache.announce_evolution(KEY, 8, UID)
    assert cache.evolution_keys() == []
    again = evolution(8)
    again["metadata"]["uid"] = "another"
    assert cache.store_evolution(again), "the name was used again"
    cache.remove_evolution(KEY)  # the API server has answered with 404
    assert not cache.store_evolution(again)
    clock = time.monotonic() + DELETED_SECONDS + 1
    monkeypatch.setattr(evolution_cache.time, "monotonic", lambda: clock)
    assert cache.store_evolution(again), "nothing is remembered for ever"


def test_versions_that_go_back_are_noticed() -> None:
    """etcd was restored from a backup: the same evolution has an older version."""
    cache = Cache()
    cache.store_evolution(evolution(50))
    older = {KEY: Identity(KEY, UID, "20")}
    assert not cache.is_newer_than_list(older, 40), "the list is older than the cached version"
    assert cache.is_newer_than_list(older, 60)
    assert not cache.is_newer_than_list({KEY: Identity(KEY, UID, "50")}, 60)
    assert cache.latest_version() == 50
    cache.clear()
    assert cache.latest_version() == 0
    assert cache.store_evolution(evolution(20))


def test_the_event_of_an_expected_job_is_not_a_change() -> None:
    cache = Cache()
    with cache.expect_job("team", job(5)["metadata"]["name"]):
        assert cache.store_job(job(5)) is None
        assert cache.store_job(job(5, attempt=2)) == KEY  # not the expected one
    assert len(cache.stage_jobs(KEY, UID)) == 2
    running = {**job(6), "status": {"ready": 1}}
    assert cache.store_job(running) == KEY


def test_a_finishing_job_is_reconciled_once_it_is_finished() -> None:
    cache = Cache()
    cache.store_job(job(5))
    decided = {"type": "SuccessCriteriaMet", "status": "True"}
    assert cache.store_job({**job(6), "status": {"conditions": [decided]}}) is None
    complete = {"type": "Complete", "status": "True"}
    assert cache.store_job({**job(7), "status": {"conditions": [decided, complete]}}) == KEY


def test_pods_that_have_ended_and_are_not_yet_counted_require_no_reconcile() -> None:
    cache = Cache()
    cache.store_job({**job(5), "status": {"active": 1}})
    uncounted = {"uncountedTerminatedPods": {"succeeded": ["a"]}}
    assert cache.store_job({**job(6), "status": {**uncounted, "active": 1}}) == KEY, "of two pods"
    assert cache.store_job({**job(7), "status": uncounted}) is None
    waiting = {**job(8), "status": {"active": 1}}
    assert cache.store_job(waiting) == KEY, "the Job creates a pod again"


def test_only_relevant_changes_of_a_job_require_a_reconcile() -> None:
    cache = Cache()
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    statuses: list[tuple[Json, bool]] = [
        ({}, True),
        ({"startTime": "2026-01-01T11:00:00Z", "active": 1}, False),
        ({"active": 1, "ready": 1}, True),
        ({"active": 1, "ready": 0}, True),  # one of several pods is waiting
        ({"active": 1, "ready": 1, "terminating": 0}, True),
        ({"active": 0, "uncountedTerminatedPods": {"succeeded": ["a"]}}, False),
        ({"succeeded": 1, **complete}, True),
        ({"succeeded": 1, **complete, "completionTime": "2026-01-01T12:00:00Z"}, False),
    ]
    for version, (status, relevant) in enumerate(statuses, start=1):
        assert (cache.store_job({**job(version), "status": status}) is not None) == relevant, status
        assert cache.stage_jobs(KEY, UID)[0]["metadata"]["resourceVersion"] == str(version)


def test_a_late_deletion_does_not_remove_a_newer_object() -> None:
    cache = Cache()
    cache.store_evolution(evolution(9))
    cache.remove_evolution(KEY, 7)
    assert cache.evolution(KEY)
    cache.remove_evolution(KEY, 10)
    assert cache.evolution(KEY) is None
    cache.store_job(job(9))
    cache.remove_job(job(7))
    assert cache.stage_jobs(KEY, UID)
    cache.remove_job(job(9))
    assert cache.stage_jobs(KEY, UID) == []


def test_a_list_removes_the_evolutions_that_it_lacks_unless_newer() -> None:
    cache = Cache()
    cache.store_evolution(evolution(5, "old"))
    cache.store_evolution(evolution(50, "young"))
    cache.store_evolution(evolution(5, "there"))
    cache.store_evolution(evolution(5, "old", "elsewhere"))
    cache.prune_evolutions({("team", "there")}, 20, "team")
    assert cache.evolution_keys() == [("elsewhere", "old"), ("team", "there"), ("team", "young")]
    cache.prune_evolutions(set(), 20, None)
    assert cache.evolution_keys() == [("team", "young")]


def test_a_list_of_jobs_returns_the_evolutions_of_removed_jobs() -> None:
    cache = Cache()
    for item in (job(5), job(5, 2), job(50, 3), job(5, namespace="elsewhere")):
        cache.store_job(item)
    assert cache.prune_jobs({object_key(job(5))}, 20, "team") == [KEY]
    assert [j["metadata"]["resourceVersion"] for j in cache.stage_jobs(KEY, UID)] == ["5", "50"]
    assert len(cache.stage_jobs(("elsewhere", "demo"), UID)) == 1


def test_jobs_of_an_earlier_evolution_of_the_name_are_not_returned() -> None:
    cache = Cache()
    cache.store_job(job(5, uid="before"))
    assert cache.stage_jobs(KEY, UID) == []
    assert len(cache.stage_jobs(KEY, "before")) == 1


def test_unused_fields_are_removed() -> None:
    cache = Cache()
    cache.store_evolution(evolution(5))
    cache.store_job(job(5))
    assert "managedFields" not in cache.evolution(KEY)["metadata"]  # type: ignore[index]
    (stored,) = cache.stage_jobs(KEY, UID)
    assert "template" not in stored["spec"]
    assert "managedFields" not in stored["metadata"]
    assert stored["metadata"][STATUS_CHANGE_TIME] == "2026-01-01T11:00:00Z"


def test_labels_and_annotations_of_others_are_removed() -> None:
    """Whoever may write Jobs can put 256 KiB of annotations on each."""
    cache, large = Cache(), job(5)
    labels = dict(large["metadata"]["labels"])
    own = {names.ANNOTATION_TEMPLATE: "0123", names.ANNOTATION_DEADLINE: "60"}
    others = {"team.example/notes": "x" * 200_000, names.ANNOTATION_SEEN: "9" * 200_000}
    large["metadata"]["annotations"] = {**own, **others}
    large["metadata"]["labels"] = {**labels, **{f"team.example/{n}": "x" for n in range(1000)}}
    cache.store_job(large)
    (stored,) = cache.stage_jobs(KEY, UID)
    assert stored["metadata"]["annotations"] == own
    assert stored["metadata"]["labels"] == labels


def test_other_jobs_are_not_stored() -> None:
    cache = Cache()
    copy = job(5)
    copy["metadata"]["name"] = "debug"
    assert cache.store_job(copy) is None
    assert cache.remove_job(copy) is None
    assert cache.stage_jobs(KEY, UID) == []


def test_a_copy_is_returned() -> None:
    cache = Cache()
    cache.store_evolution(evolution(5))
    cache.evolution(KEY)["spec"]["at"] = 0  # type: ignore[index]
    assert cache.evolution(KEY)["spec"]["at"] == 5  # type: ignore[index]


@given(st.permutations([("put", v) for v in range(1, 6)]), st.booleans())
def test_any_order_of_events_ends_with_the_newest_version(
    events: list[tuple[str, int]], deleted: bool
) -> None:
    cache = Cache()
    for _, version in events:
        cache.store_evolution(evolution(version))
    if deleted:
        cache.remove_evolution(KEY, 6)
    cached = cache.evolution(KEY)
    assert (cached is None) == deleted
    assert cached is None or cached["spec"]["at"] == 5


def test_several_threads_can_use_the_cache() -> None:
    cache = Cache()

    def put(start: int) -> None:
        for version in range(start, 400, 4):
            cache.store_evolution(evolution(version))
            cache.store_job(job(version))
            cache.evolution_keys()
            cache.stage_jobs(KEY, UID)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.evolution(KEY)["spec"]["at"] == 399  # type: ignore[index]
    assert cache.stage_jobs(KEY, UID)[0]["metadata"]["resourceVersion"] == "399"
