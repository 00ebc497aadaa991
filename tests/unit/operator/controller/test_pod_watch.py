"""What pods said at their end, as their watch tells it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.controller.test_job_watch import Streams, event

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.pod_watch import PodWatch

Json = dict[str, Any]
GONE = ApiError(410, "Gone", "")


def pod(name: str, version: int, job: str | None = "job-1", namespace: str = "team") -> Json:
    ended = {"name": names.CONTAINER, "state": {"terminated": {"message": f"said by {name}"}}}
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "resourceVersion": str(version),
            "labels": {names.LABEL_JOB_UID: job} if job else {},
        },
        "spec": {"large": True},
        "status": {"phase": "Succeeded", "containerStatuses": [ended]},
    }


def followed(*streams: list[Any], cache: Cache | None = None) -> tuple[Streams, Cache]:
    kube, cache = Streams(*streams), cache or Cache()
    watch = PodWatch(kube, cache, "team")  # type: ignore[arg-type]
    kube.watch_of = watch
    watch.run()
    return kube, cache


def said(cache: Cache, job: str = "job-1", namespace: str = "team") -> list[str]:
    found = cache.pods(namespace, job)
    assert all("spec" not in pod for pod in found)
    return sorted(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] for pod in found
    )


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListWatch, "_back_off", lambda self: None)


def test_pods_are_kept_by_job_until_they_are_deleted() -> None:
    kube, cache = followed(
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
    assert said(cache) == ["said by a"]
    assert said(cache, "job-2") == ["said by c"]
    assert said(cache, namespace="another") == []


def test_a_pod_of_no_job_is_not_kept() -> None:
    added, deleted = event("ADDED", pod("a", 5, job=None)), event("DELETED", pod("b", 6, None))
    _, cache = followed([added, deleted])
    assert cache._pods == {}


def test_after_versions_that_expired_all_comes_anew() -> None:
    cache = Cache()
    cache.store_pod(pod("other", 3, namespace="another"))
    kube, _ = followed(
        [event("ADDED", pod("a", 5)), event("ADDED", pod("b", 6))],
        [GONE],
        [event("ADDED", pod("b", 6))],
        cache=cache,
    )
    assert kube.versions == ["0", "6", "0", "6"]
    assert said(cache) == ["said by b"], "a was deleted meanwhile"
    assert said(cache, namespace="another") == ["said by other"], "that is another watch's"


def test_a_watch_that_is_forbidden_is_tried_again() -> None:
    kube, cache = followed([ApiError(403, "Forbidden", "")], [event("ADDED", pod("a", 5))])
    assert said(cache) == ["said by a"]
    assert kube.versions == ["0", "0", "5"]
