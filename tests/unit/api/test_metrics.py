"""The names of metrics are those that stages have written into manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support import recorded

from selfemo_api.metrics import (
    DROPPED,
    PROGRESS_MESSAGE,
    REWARD_AT_MOST,
    STAGE_METRICS,
    TOKENS,
    FlywheelMetric,
    ProgressField,
    ScoreMetric,
    SelfPlayMetric,
    TrainMetric,
)
from selfemo_api.results import TERMINATION_MESSAGE_BYTES, StageResult, encode_message
from selfemo_api.stages import STAGE_ORDER, Stage

#: Metrics that are younger than the recorded run, or that its settings did not produce.
NOT_RECORDED = {
    Stage.SCORE: {
        ScoreMetric.CONSENSUS_ACCURACY,
        ScoreMetric.ZERO_VARIANCE_SHARE_RECOGNIZER,
        ScoreMetric.ZERO_VARIANCE_SHARE_RESPONDER,
    },
    Stage.FLYWHEEL: {FlywheelMetric.REPLAYED_CANDIDATES},
    Stage.TRAIN: {TrainMetric.IMITATION},
}
#: The recorded run has neither stage. The tests of the stages compare the names.
NOT_IN_THE_RUN = (Stage.WARM_START, Stage.PUBLISH)
RECORDED = tuple(stage for stage in STAGE_ORDER if stage not in NOT_IN_THE_RUN)


def recorded_metrics(stage: Stage) -> Iterator[dict[str, float]]:
    """Yield the metrics of each recorded manifest of a stage."""
    for path in sorted(recorded.STORAGE.glob(f"{recorded.RUN}/generations/*/{stage.slug}")):
        yield json.loads((path / "manifest.json").read_bytes())["metrics"]


@pytest.mark.parametrize("stage", RECORDED)
def test_a_stage_has_written_its_metrics_by_these_names(stage: Stage) -> None:
    manifests = list(recorded_metrics(stage))
    assert manifests
    names = {str(metric) for metric in STAGE_METRICS[stage]}
    expected = names - NOT_RECORDED.get(stage, set())
    for metrics in manifests:
        assert set(metrics) == expected


def test_every_stage_has_its_metrics() -> None:
    assert tuple(STAGE_METRICS) == STAGE_ORDER


def test_the_planner_adds_up_one_name() -> None:
    assert TOKENS == SelfPlayMetric.TOKENS == TrainMetric.TOKENS


@pytest.mark.parametrize("stage", STAGE_ORDER)
def test_no_metric_looks_like_one_of_a_family(stage: Stage) -> None:
    assert not [m for m in STAGE_METRICS[stage] if m.startswith((DROPPED, REWARD_AT_MOST))]


@pytest.mark.parametrize("stage", STAGE_ORDER)
def test_all_metrics_of_a_stage_fit_into_its_message(stage: Stage) -> None:
    metrics = {str(metric): 0.123456789 for metric in STAGE_METRICS[stage]}
    result = StageResult(
        stage=stage, generation=999, manifest="s" * 250, manifest_sha256="0" * 64, metrics=metrics
    )
    assert len(encode_message(result).encode()) < TERMINATION_MESSAGE_BYTES / 2


def test_a_stage_has_written_progress_lines_with_these_fields() -> None:
    (log,) = recorded.STATE.glob("jobs/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    progress = [line for line in lines if line["message"] == PROGRESS_MESSAGE]
    assert progress
    named = {ProgressField.DONE, ProgressField.TOTAL, ProgressField.LOSS, ProgressField.GRAD_NORM}
    common = {"time", "level", "stage", "logger", "message"}
    for line in progress:
        assert set(line) - common == named  # the learning rate is younger
