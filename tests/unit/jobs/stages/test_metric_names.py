"""Stages produce the metrics, by the names, that the planner, the report and the series read."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest

from selfemo_api.metrics import (
    DROPPED,
    REWARD_AT_MOST,
    STAGE_METRICS,
    EvaluateMetric,
    FlywheelMetric,
    ScoreMetric,
    SelfPlayMetric,
    StageMetric,
)
from selfemo_api.results import SourceScore
from selfemo_api.spec import RewardSpec
from selfemo_api.stages import Stage
from selfemo_jobs.report.shown_metrics import SHOWN_METRICS
from selfemo_jobs.stages.evaluate import stage as evaluate
from selfemo_jobs.stages.flywheel import stage as flywheel
from selfemo_jobs.stages.score.score_summary import (
    BINS,
    RoleSummary,
    ScoreSummary,
    score_metrics,
)
from selfemo_jobs.stages.selfplay.metrics import self_play_metrics

LABELS = ["joy", "anger"]


def test_self_play() -> None:
    part = {
        "rows": 4,
        "groups": 2,
        "tokens": 9,
        "promptTokens": 40,
        "logprob": -3.0,
        "finished": 4,
        "recognizer": 2,
        "recognizerWellFormed": 1,
        "responder": 2,
        "responderWellFormed": 2,
        "bigrams": 2,
        "bigramHashes": "00000000",
        "labels": {"joy": 1},
    }
    metrics = self_play_metrics({"part-00000.parquet": part}, LABELS)
    assert set(metrics) == set(SelfPlayMetric)
    assert metrics[SelfPlayMetric.DIVERSITY] == 0.5


def test_score() -> None:
    role = RoleSummary(rows=4, candidates=4, groups=2, zero_variance=1, histogram=[1] * BINS)
    summary = ScoreSummary(
        recognizer=role, responder=role, consensus=[1, 0], gold=1, gold_voted=1, gold_right=1
    )
    metrics = score_metrics(summary, RewardSpec())
    family = {name for name in metrics if name.startswith(REWARD_AT_MOST)}
    assert family
    assert set(metrics) - family == set(ScoreMetric)
    assert metrics[ScoreMetric.ZERO_VARIANCE_SHARE] == 0.5


def test_flywheel() -> None:
    kept = pa.table({"role": ["Recognizer"], "emotions": ["joy"], "rows": [4]})
    step = {"filter": "reward", "after": 1, "rowsBefore": 8, "rowsAfter": 4}
    selection = SimpleNamespace(total_rows=8, total_groups=2, funnel=[step])
    spec = SimpleNamespace(dataset=SimpleNamespace(labels=LABELS))
    metrics = flywheel._metrics(kept, selection, spec)
    assert set(metrics) == {*FlywheelMetric, f"{DROPPED}reward"}
    assert metrics[FlywheelMetric.KEPT] == 4


def test_evaluate() -> None:
    score = SourceScore(
        source="dev",
        utterances=1,
        weighted_f1=0.5,
        strict_weighted_f1=0.4,
        macro_f1=0.3,
        accuracy=0.6,
        unparsable=0.1,
        label_entropy=0.9,
    )
    metrics = evaluate._metrics(score, malformed=0.2)
    assert set(metrics) == set(EvaluateMetric)
    assert metrics[EvaluateMetric.WEIGHTED_F1] == 0.5


@pytest.mark.parametrize("stage", SHOWN_METRICS)
def test_the_report_shows_metrics_of_the_stage(stage: Stage) -> None:
    metrics: list[StageMetric] = [metric for metric, _ in SHOWN_METRICS[stage]]
    assert metrics
    assert all(isinstance(metric, STAGE_METRICS[stage]) for metric in metrics)
