"""Work that nothing waits for."""

from __future__ import annotations

import threading
import time

import pytest

from selfemo_operator.controller.kube import background
from selfemo_operator.controller.kube.background import Background


def test_work_is_done_in_order_by_one_thread_and_before_the_end() -> None:
    work, done = Background("test"), []
    for number in range(5):
        work.add(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    work.start()
    work.stop(time.monotonic() + 60)
    assert done == [(number, "test") for number in range(5)]


def test_a_piece_of_work_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    work, done = Background("test"), []
    work.start()
    work.add(lambda: done.append(1 // 0))
    work.add(lambda: done.append(1))
    work.stop(time.monotonic() + 60)
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text


def test_with_too_much_work_whoever_adds_it_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_WAITING_MAX", 2)
    work, done = Background("test"), []
    for number in range(4):
        work.add(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [2, 3]
    work.stop(time.monotonic() + 0.01)  # no thread was started, and nothing waits for ever
    assert done == [2, 3]
