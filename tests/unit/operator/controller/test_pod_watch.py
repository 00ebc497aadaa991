"""What pods said at their end, as their watch tells it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.controller.test_job_watch import Streams, event

from selfemo_operator.controller.cache import View
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.list_watch import Watch
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


def followed(*streams: list[Any], view: View | None = None) -> tuple[Streams, View]:
    rest, view = Streams(*streams), view or View()
    watch = PodWatch(rest, view, "team")  # type: ignore[arg-type]
    rest.watch_of = watch
    watch.run()
    return rest, view


def said(view: View, job: str = "job-1", namespace: str = "team") -> list[str]:
    found = view.pods(namespace, job)
    assert all("spec" not in pod for pod in found)
    return sorted(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] for pod in found
    )


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "_back_off", lambda self: None)


def test_pods_are_kept_by_job_until_they_are_deleted() -> None:
    rest, view = followed(
        [
            event("ADDED", pod("a", 5)),
            event("ADDED", pod("b", 6)),
            event("ADDED", pod("c", 7, job="job-2")),
            event("MODIFIED", pod("a", 8)),
            event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
        ],
        [event("DELETED", pod("b", 10))],
    )
    assert rest.lists == 0
    assert rest.versions == ["0", "9", "10"]
    assert said(view) == ["said by a"]
    assert said(view, "job-2") == ["said by c"]
    assert said(view, namespace="another") == []


def test_a_pod_of_no_job_is_not_kept() -> None:
    _, view = followed([event("ADDED", pod("a", 5, job=None)), event("DELETED", pod("b", 6, None))])
    assert view._pods == {}


def test_after_versions_that_expired_all_comes_anew() -> None:
    view = View()
    view.put_pod(pod("other", 3, namespace="another"))
    rest, _ = followed(
        [event("ADDED", pod("a", 5)), event("ADDED", pod("b", 6))],
        [GONE],
        [event("ADDED", pod("b", 6))],
        view=view,
    )
    assert rest.versions == ["0", "6", "0", "6"]
    assert said(view) == ["said by b"], "a was deleted meanwhile"
    assert said(view, namespace="another") == ["said by other"], "that is another watch's"


def test_a_watch_that_is_forbidden_is_tried_again() -> None:
    rest, view = followed([ApiError(403, "Forbidden", "")], [event("ADDED", pod("a", 5))])
    assert said(view) == ["said by a"]
    assert rest.versions == ["0", "0", "5"]
