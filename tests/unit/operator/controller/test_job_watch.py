"""The watch of Jobs resumes after any end of a stream."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_core import to_json
from tests.unit.operator.controller.test_cache import KEY, UID, job

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_text import METADATA_LIST
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.list_watch import ListWatch
from selfemo_operator.controller.watches.job_watch import JobWatch, list_objects

Json = dict[str, Any]
#: The name of each attempt's Job.
NAMES = {attempt: job(1, attempt)["metadata"]["name"] for attempt in range(1, 5)}


class Streams:
    """A client whose lists have one page, and whose watches return given streams in order."""

    def __init__(self, *streams: list[Any]) -> None:
        self.streams = list(streams)
        self.lists = 0
        self.versions: list[str] = []
        self.watch_of: ListWatch | None = None

    def get_text(self, path: str, query: Json, *_: Any) -> bytes:
        self.lists += 1
        version = str(100 * self.lists)
        page = {"items": [job(100 * self.lists)], "metadata": {"resourceVersion": version}}
        return to_json(page)

    def watch(self, path: str, query: Json, read_timeout: float, **_: Any) -> Iterator[Json]:
        self.versions.append(query["resourceVersion"])
        if not self.streams:
            assert self.watch_of is not None
            self.watch_of.stop()
            return
        for event in self.streams.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def event(kind: str, item: Json) -> Json:
    return {"type": kind, "object": item}


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListWatch, "_back_off", lambda self: None)


def watch_streams(*streams: list[Any]) -> tuple[Streams, Cache, list[Any]]:
    kube, cache, enqueued = Streams(*streams), Cache(), []
    watch = JobWatch(kube, cache, "team", enqueued.append)  # type: ignore[arg-type]
    kube.watch_of = watch
    watch.run()
    assert watch.synced.is_set()
    return kube, cache, enqueued


def test_a_stream_resumes_where_the_last_one_ended() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "150"}})
    ready = {**job(120), "status": {"active": 1, "ready": 1}}
    kube, cache, enqueued = watch_streams([event("MODIFIED", ready), bookmark])
    assert (kube.lists, kube.versions) == (1, ["100", "150"])
    assert cache.stage_jobs(KEY, UID)[0]["metadata"]["resourceVersion"] == "120"
    assert enqueued == [KEY, KEY]


@pytest.mark.usefixtures("no_backoff")
def test_a_broken_stream_resumes_after_its_last_event() -> None:
    broken = ApiError(0, "Stream", "reset")
    kube, _, _ = watch_streams([event("MODIFIED", job(120)), broken])
    assert (kube.lists, kube.versions) == (1, ["100", "120"])


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    "gone", [ApiError(410, "Gone", ""), event("ERROR", {"code": 410, "reason": "Expired"})]
)
def test_an_expired_version_causes_a_relist(gone: Any) -> None:
    kube, _, _ = watch_streams([gone])
    assert (kube.lists, kube.versions) == (2, ["100", "200"])


@pytest.mark.usefixtures("no_backoff")
def test_an_unexpected_error_does_not_end_the_watch() -> None:
    kube, _, _ = watch_streams([{"type": "MODIFIED", "object": {}}])
    assert kube.lists == 2


def test_a_deletion_enqueues_the_evolution() -> None:
    _, cache, enqueued = watch_streams([event("DELETED", job(120))])
    assert cache.stage_jobs(KEY, UID) == []
    assert enqueued[-1] == KEY


def test_an_unchanged_job_enqueues_nothing() -> None:
    _, _, enqueued = watch_streams([event("MODIFIED", job(100)), event("MODIFIED", job(90))])
    assert enqueued == [KEY]


def test_all_pages_are_read_and_the_first_version_is_returned() -> None:
    class Pages:
        def get_text(self, path: str, query: Json, *_: Any) -> bytes:
            if "continue" in query:
                return to_json({"items": [second], "metadata": {"resourceVersion": "9"}})
            metadata = {"resourceVersion": "7", "continue": "x"}
            return to_json({"items": [first], "metadata": metadata})

    first, second = ({"metadata": {"namespace": "team", "name": name}} for name in ("1", "2"))
    items: list[Json] = []
    keys, version = list_objects(items.append, Pages(), "/x", {})  # type: ignore[arg-type]
    assert (items, version) == ([first, second], "7")
    assert keys == {("team", "1"), ("team", "2")}


class Listed:
    """A client whose list has Jobs, and whose single reads are recorded."""

    def __init__(self, *jobs: Json) -> None:
        self.jobs = {(j["metadata"]["namespace"], j["metadata"]["name"]): j for j in jobs}
        self.version = "1000"
        self.accepted: list[str] = []
        self.reads: list[str] = []
        self.gone: set[str] = set()

    def get_text(self, path: str, query: Json, accept: str = "json", *_: Any) -> bytes:
        self.accepted.append(accept)
        page = {"items": [*self.jobs.values()], "metadata": {"resourceVersion": self.version}}
        return to_json(page)

    def get(self, path: str) -> Json:
        name = path.rpartition("/")[2]
        self.reads.append(name)
        if name in self.gone:
            raise ApiError(404, "NotFound", name)
        return copy.deepcopy(self.jobs["team", name])


def test_a_resync_reads_the_jobs_alone_that_are_newer_than_the_cached_ones() -> None:
    kube, cache, enqueued = Listed(job(5, 1), job(6, 2), job(7, 3)), Cache(), []
    watch = JobWatch(kube, cache, "team", enqueued.append)  # type: ignore[arg-type]
    watch.relist()
    assert kube.accepted == ["application/json"]
    enqueued.clear()
    kube.jobs["team", NAMES[2]] = {**job(9, 2), "status": {"active": 1, "ready": 1}}
    kube.jobs["team", NAMES[3]] = job(6, 3)  # the list is older than the watch
    kube.jobs["team", NAMES[4]], kube.gone = job(8, 4), {NAMES[4]}
    del kube.jobs["team", NAMES[1]]
    watch.resync()
    assert kube.accepted[1:] == [METADATA_LIST]
    assert kube.reads == [NAMES[2], NAMES[4]]
    versions = {j["metadata"]["name"]: j["metadata"]["resourceVersion"] for j in jobs_in(cache)}
    assert versions == {NAMES[2]: "9", NAMES[3]: "7"}
    assert enqueued == [KEY, KEY], "one Job was changed, and one has gone"


def test_a_resync_that_finds_many_newer_jobs_lists_them_whole() -> None:
    kube = Listed(*(job(5, attempt) for attempt in range(1, 102)))
    cache, enqueued = Cache(), []
    watch = JobWatch(kube, cache, "team", enqueued.append)  # type: ignore[arg-type]
    watch.resync()
    assert (kube.accepted, kube.reads) == ([METADATA_LIST, "application/json"], [])
    assert len(jobs_in(cache)) == 101
    watch.resync()
    assert kube.accepted[2:] == [METADATA_LIST], "nothing is newer"


def jobs_in(cache: Cache) -> list[Json]:
    return cache.stage_jobs(KEY, UID)
