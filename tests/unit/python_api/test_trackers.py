"""A real run writes all trackers, and each of them has every figure of its manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.jobs.trackers import readers
from tests.unit.python_api.conftest import SmallRun

from selfemo_api.contract import StageConfig
from selfemo_api.spec import Tracker
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.store import open_store
from selfemo_jobs.trackers.points import TrackedRun
from selfemo_jobs.trackers.track import read_run

#: The run of a fixture may take long on a busy machine.
#: A whole run, which takes over a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def tracked_run(small_run: SmallRun) -> TrackedRun:
    """The run, as the last stage read it."""
    job = small_run.evolution.state_folder / "jobs/small-g001-publish-1"
    config = StageConfig.model_validate_json((job / "config.json").read_bytes())
    return read_run(StageContext(config, open_store(config.spec.storage), 0, 1, job))


@pytest.mark.parametrize("tracker", Tracker)
def test_a_tracker_has_every_figure_of_a_real_run(
    tracker: Tracker, small_run: SmallRun, tracked_run: TrackedRun
) -> None:
    storage = Path(small_run.evolution.spec.storage.uri.removeprefix("file://"))
    points = readers.read_points(tracker, small_run.tools, storage)
    expected = readers.expected_points(tracked_run)
    assert points.keys() == expected.keys()
    for key, values in points.items():
        assert values == pytest.approx(expected[key], rel=1e-6, abs=1e-12), key
    (train,) = (s for s in small_run.status.stages if s.stage == "Train")
    assert points["train/loss", 1] == pytest.approx([train.metrics["loss"]], rel=1e-6)
    steps = [step for name, step in points if name == "train-steps/loss"]
    assert sorted(steps) == list(range(1, int(train.metrics["steps"]) + 1))


def test_no_tracker_failed(small_run: SmallRun) -> None:
    (publish,) = (s for s in small_run.status.stages if s.stage == "Publish")
    assert publish.metrics["trackerFailures"] == 0.0
    log = small_run.evolution.state_folder / "jobs/small-g001-publish-1/log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    written = [x["tracker"] for x in lines if x["message"] == "the tracker has all generations"]
    assert written == [str(tracker) for tracker in Tracker]
