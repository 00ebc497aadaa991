"""Trackers are fed after the report, and none of them ends the stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.jobs.stages.publish.planned_runs import PlannedRun, context_of
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.spec import Tracker
from selfemo_jobs.errors import BadInput, Terminated, Unavailable
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.stages.publish import stage, tracking
from selfemo_jobs.stages.publish.stage import run_publish
from selfemo_jobs.stages.publish.tracking import feed_trackers
from selfemo_jobs.store import join
from selfemo_jobs.trackers.worker import TrackerResult

Track = Callable[[StageContext], dict[Tracker, TrackerResult]]


@pytest.fixture
def context() -> StageContext:
    run = PlannedRun(spec_of(stopping={"maxGenerations": 1}, trackers=["MLflow", "WandB"]))
    run.settle()
    return context_of(run.configs[-1], run.store)


def returning(**errors: str | None) -> Track:
    return lambda _: {Tracker(name): TrackerResult(error=e) for name, e in errors.items()}


def raising(error: Exception) -> Track:
    def track(_: StageContext) -> dict[Tracker, TrackerResult]:
        raise error

    return track


@pytest.mark.parametrize(
    ("track", "failures", "report"),
    [
        (returning(MLflow=None, WandB=None), 0.0, {}),
        (returning(MLflow=None, WandB="away"), 1.0, {"trackerErrors": {"WandB": "away"}}),
        (
            raising(BadInput("it is\ndamaged")),
            2.0,
            {"trackerErrors": dict.fromkeys(("MLflow", "WandB"), "BadInput: it is damaged")},
        ),
        (
            raising(KeyError("x")),
            2.0,
            {"trackerErrors": dict.fromkeys(("MLflow", "WandB"), "KeyError: 'x'")},
        ),
    ],
)
def test_failures_are_counted(
    context: StageContext,
    track: Track,
    failures: float,
    report: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "track_generation", track)
    output = feed_trackers(context)
    assert output.metrics == {"trackerFailures": failures}
    assert output.report == report
    output = run_publish(context)
    assert output.metrics == {"reportFailures": 0.0, "trackerFailures": failures}
    assert output.report == report


def test_without_trackers_nothing_is_counted(context: StageContext) -> None:
    spec = context.config.spec.model_copy(update={"trackers": []})
    config = context.config.model_copy(update={"spec": spec})
    output = feed_trackers(context_of(config, context.store))
    assert (output.metrics, output.report) == ({}, {})


@pytest.mark.parametrize("error", [Unavailable("S3 is away"), Terminated("SIGTERM")])
def test_what_is_tried_again_is_raised(
    context: StageContext, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "track_generation", raising(error))
    with pytest.raises(type(error)):
        feed_trackers(context)


def test_the_report_is_there_before_and_the_copy_comes_after(
    context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that fails does not keep the figures from the trackers."""
    fed: list[bytes] = []

    def track(given: StageContext) -> dict[Tracker, TrackerResult]:
        fed.append(given.store.get(join(given.run_uri, "report.html")))
        return {}

    def copy(*_: object) -> None:
        raise BadInput("it may not be written")

    monkeypatch.setattr(tracking, "track_generation", track)
    monkeypatch.setattr(stage, "copy_best", copy)
    with pytest.raises(BadInput, match="may not be written"):
        run_publish(context)
    assert len(fed) == 1
