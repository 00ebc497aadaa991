"""The watch of pods: it caches the termination messages of succeeded pods."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.controller.test_job_watch import Streams, event

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.watches.pod_watch import PodWatch

Json = dict[str, Any]
GONE = ApiError(410, "Gone", "")


def pod(name: str, version: int, job: str | None = "job-1", namespace: str = "team") -> Json:
    container = {
        "name": names.CONTAINER,
        "state": {"terminated": {"message": f"message of {name}"}},
    }
    owners = [{"kind": "Job", "uid": job, "controller": True}]
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "ownerReferences": owners if job else [],
        },
        "spec": {"large": True},
        "status": {"phase": "Succeeded", "containerStatuses": [container]},
    }


def watch_streams(*streams: list[Any], cache: Cache | None = None) -> tuple[Streams, Cache]:
    kube, cache = Streams(*streams), cache or Cache()
    watch = PodWatch(kube, cache, "team")  # type: ignore[arg-type]
    kube.watch_of = watch
    watch.run()
    return kube, cache


def messages(cache: Cache, job: str = "job-1", namespace: str = "team") -> list[str]:
    pods = cache.pods(namespace, job)
    assert all("spec" not in pod for pod in pods)
    return sorted(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] for pod in pods
    )


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListWatch, "_back_off", lambda self: None)


def test_pods_are_cached_by_job_until_they_are_deleted() -> None:
    kube, cache = watch_streams(
        [
            event("ADDED", pod("a", 5)),
            event("ADDED", pod("b", 6)),
            event("ADDED", pod("c", 7, job="job-2")),
            event("MODIFIED", pod("a", 8)),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ],
        [event("DELETED", pod("b", 10))],
    )
    assert kube.lists == 0
    assert kube.versions == ["0", "9", "10"]
    assert messages(cache) == ["message of a"]
    assert messages(cache, "job-2") == ["message of c"]
    assert messages(cache, namespace="another") == []


def test_a_pod_without_a_job_is_not_cached() -> None:
    added, deleted = event("ADDED", pod("a", 5, job=None)), event("DELETED", pod("b", 6, None))
    _, cache = watch_streams([added, deleted])
    assert cache._pods == {}


def test_an_expired_version_reloads_all_pods() -> None:
    cache = Cache()
    cache.store_pod(pod("other", 3, namespace="another"))
    kube, _ = watch_streams(
        [event("ADDED", pod("a", 5)), event("ADDED", pod("b", 6))],
        [GONE],
        [event("ADDED", pod("b", 6))],
        cache=cache,
    )
    assert kube.versions == ["0", "6", "0", "6"]
    assert messages(cache) == ["message of b"], "pod a was deleted between the watches"
    assert messages(cache, namespace="another") == ["message of other"], (
        "the pod belongs to another watch"
    )


def test_a_forbidden_watch_is_retried() -> None:
    kube, cache = watch_streams([ApiError(403, "Forbidden", "")], [event("ADDED", pod("a", 5))])
    assert messages(cache) == ["message of a"]
    assert kube.versions == ["0", "0", "5"]


def removed(name: str, version: int, at: str) -> Json:
    """Return a pod that was preempted."""
    target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": at}
    return {**pod(name, version), "status": {"phase": "Failed", "conditions": [target]}}


def test_removals_of_pods_are_counted_until_their_job_is_gone() -> None:
    times = ["2026-01-01T10:00:00Z", "2026-01-01T10:05:00Z"]
    first, second = removed("a", 5, times[0]), removed("b", 7, times[1])
    failed = {**pod("c", 9), "status": {"phase": "Failed"}}
    events = [event("ADDED", first), event("DELETED", removed("a", 6, times[0]))]
    events += [event("ADDED", second), event("ADDED", failed)]
    events += [event("ADDED", removed("d", 10, times[1])), GONE]
    cache = Cache()
    watch = PodWatch(None, cache, "team")  # type: ignore[arg-type]
    for item in events[:-1]:
        watch.on_event(item["type"], item["object"])
    assert cache.removals("team", "job-1") == [
        (times[0], "uid-a"),
        (times[1], "uid-b"),
        (times[1], "uid-d"),
    ]
    assert messages(cache) == []
    watch.relist()
    assert cache.removals("team", "job-1") == [], "the status has counted them"
