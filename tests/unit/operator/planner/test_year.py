"""A short form of the simulated year (`benchmarks/year.py`)."""

from __future__ import annotations

import itertools

import pytest
from benchmarks.year import simulate

from selfemo_operator.controller.kube.workqueue import WorkQueue


def test_every_evolution_ends_and_none_waits() -> None:
    line = simulate(evolutions=40, days=3)
    assert line["holds"], line
    assert line["unfinished"] == 0
    assert sum(line["ends"].values()) == 40
    assert line["mostQueuedKeys"] <= line["mostUnfinishedEvolutions"] + 8
    assert line["mostJobsWaitingForGpus"] > 0  # the GPUs were few


def test_a_sweep_of_one_namespace_delays_no_evolution_for_long() -> None:
    line = simulate(evolutions=60, days=0.5, load=3.0)
    assert line["holds"], line


def test_a_queue_that_loses_a_key_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    add, count = WorkQueue.add, itertools.count()

    def lose(self: WorkQueue[str], key: str) -> None:
        if next(count) % 100 != 99:
            add(self, key)

    monkeypatch.setattr(WorkQueue, "add", lose)
    assert not simulate(evolutions=10, days=2)["holds"]
