"""A watch goes on after every error, and asks at a bounded rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfemo_operator.controller.kube import list_watch
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.list_watch import ListWatch

Json = dict[str, Any]
Stream = Callable[[], Iterator[Json]]


class Watch(ListWatch):
    """A watch of whatever a script returns; it waits in no time."""

    def __init__(self, *streams: Stream, clock: list[float], ends: bool = True) -> None:
        super().__init__(self, "things", "/things", {})  # type: ignore[arg-type]
        self.streams = list(streams)
        self.clock = clock
        self.ends = ends
        self.lists = 0
        self.watches: list[float] = []
        self.events: list[str] = []
        self.error: ApiError | None = None
        self._stop.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, timeout: float | None = None) -> bool:
        self.clock[0] += timeout or 0.0
        return self._stop.is_set()

    def relist(self) -> str:
        self.lists += 1
        if self.error is not None:
            raise self.error
        return str(self.lists)

    def on_event(self, kind: str, item: Json) -> None:
        self.events.append(kind)

    def watch(self, *_: Any, **more: Any) -> Iterator[Json]:
        self.watches.append(self.clock[0])
        more["on_open"](lambda: None)
        if not self.streams:
            self.stop()
            return iter(())
        return self.streams.pop(0)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(list_watch.time, "monotonic", lambda: now[0])
    return now


def closed() -> Iterator[Json]:
    """A stream that a proxy closes at once."""
    return iter(())


def error(code: int) -> Stream:
    return lambda: iter([{"type": "ERROR", "object": {"code": code, "reason": "Why"}}])


def test_streams_that_are_closed_at_once_are_opened_at_a_falling_rate(clock: list[float]) -> None:
    watch = Watch(*[closed] * 60, clock=clock)
    watch.run()
    first_minute = [at for at in watch.watches if at < 1060]
    assert len(first_minute) <= 10
    pauses = [b - a for a, b in zip(watch.watches[9:], watch.watches[10:], strict=False)]
    assert min(pauses) >= list_watch.MAX_BACKOFF / 2
    assert max(pauses) <= list_watch.MAX_BACKOFF


@pytest.mark.parametrize("code", [500, 504, 401])
def test_error_events_restart_the_stream_and_then_the_list(clock: list[float], code: int) -> None:
    watch = Watch(*[error(code)] * 8, clock=clock)
    watch.run()
    assert len(watch.watches) == 9
    assert 3 <= watch.lists <= 7, "not at each error: a list is expensive"


def test_a_refusal_is_a_problem_until_the_list_succeeds(clock: list[float]) -> None:
    watch = Watch(clock=clock)
    watch.error = ApiError(403, "Forbidden", "no")
    waits = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(watch.problem)
        if len(waits) == 20:
            watch.error = None
        return False

    watch._stop.wait = wait  # type: ignore[method-assign]
    watch.run()
    assert waits[:20] == ["things: 403 Forbidden: no"] * 20
    assert watch.problem == ""
    assert watch.synced.is_set()


def test_a_reset_ends_the_stream_and_lists_again(clock: list[float]) -> None:
    def resetting() -> Iterator[Json]:
        yield {"type": "ADDED", "object": {"metadata": {"resourceVersion": "7"}}}
        watch.reset()
        yield {"type": "ADDED", "object": {"metadata": {"resourceVersion": "8"}}}

    watch = Watch(resetting, clock=clock)
    watch.run()
    assert watch.lists == 2
    assert watch.events == ["ADDED"], "what comes after the reset is older than the list"


def test_a_stream_is_ended_from_another_thread() -> None:
    """Neither the end of the process nor a reset waits for the server to end its watch."""
    ended = threading.Event()

    class Blocked(Watch):
        def watch(self, *_: Any, **more: Any) -> Iterator[Json]:
            more["on_open"](ended.set)
            ended.wait(20)
            return iter(())

    watch = Blocked(clock=[0.0])
    thread = threading.Thread(target=watch.run)
    thread.start()
    start = time.monotonic()
    watch.stop()
    while thread.is_alive() and time.monotonic() < start + 10:
        watch._end_stream()
        thread.join(0.05)
    assert not thread.is_alive()
