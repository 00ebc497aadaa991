"""The summary of scoring: sums of parts, metrics and report."""

from __future__ import annotations

import pytest
from tests.unit.jobs.stages.score.candidates import recognizer, responder, table

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards import encode_label_sets
from selfemo_jobs.stages.score.score_summary import (
    ScoreSummary,
    histogram_edges,
    merge_summaries,
    score_metrics,
    score_report,
)
from selfemo_jobs.stages.score.scoring import JudgePredictions, score_candidates

REWARD = RewardSpec.model_validate({"judge": {"weight": 0.0, "samples": 2}})
JOY, ANGER = ["joy"], ["anger"]


def summary_of(
    *groups: list[dict[str, object]], readings: list[list[str]] | None = None
) -> ScoreSummary:
    """Return the summary of some groups of two members; each response has two readings."""
    responses = encode_label_sets(readings or [], MELD).reshape(-1, 2, 2)
    return score_candidates(
        table(*groups), JudgePredictions(None, responses), labels=MELD, reward=REWARD, group_size=2
    ).summary


def test_parts_add_up_to_the_whole() -> None:
    first = recognizer("a", [JOY, JOY], gold=JOY)
    second = recognizer("b", [JOY, ANGER])
    third = responder("c", JOY, ["What a day it is", "Yes"])
    readings = [JOY, JOY, ANGER, ANGER]
    parts = [summary_of(first), summary_of(second), summary_of(third, readings=readings)]
    assert merge_summaries(parts) == summary_of(first, second, third, readings=readings)
    assert merge_summaries(
        [ScoreSummary.model_validate_json(p.model_dump_json()) for p in parts]
    ) == merge_summaries(parts)


def test_metrics_by_hand() -> None:
    readings = [JOY, JOY, ANGER, ANGER]
    summary = summary_of(
        recognizer("a", [JOY, JOY], gold=JOY),
        recognizer("b", [JOY, ANGER]),
        responder("c", JOY, ["What a day it is", "Yes"]),
        readings=readings,
    )
    low = (0.7 + 0.2) * 0.1 / 2.1 + 0.1
    rewards = [1, 1, 1, low - 0.5]
    mean = sum(rewards) / 4
    metrics = score_metrics(
        merge_summaries([summary, summary_of(recognizer("d", [[], []]))]), REWARD
    )
    assert metrics == pytest.approx(
        {
            "rewardMean": mean,
            "rewardStd": (sum((r - mean) ** 2 for r in rewards) / 4) ** 0.5,
            "rewardMeanRecognizer": 1.0,
            "rewardMeanResponder": (1 + low - 0.5) / 2,
            "alignmentMean": (3 + 0.1 / 2.1) / 4,
            "alignmentMeanRecognizer": 1.0,
            "alignmentMeanResponder": (1 + 0.1 / 2.1) / 2,
            "consistencyMean": 1.0,
            "penaltyMean": 0.25,
            "formatMean": 6 / 8,
            "zeroVarianceShare": 0.5,
            "zeroVarianceShareRecognizer": 1.0,
            "zeroVarianceShareResponder": 0.0,
            "groups": 2,
            "groupsDropped": 2,
            "consensusEntropy": 0.0,
            "consensusAccuracy": 1.0,
            # three rewards are 1 and one is -0.357
            "rewardAtMost:-0.5": 0,
            **{f"rewardAtMost:{edge}": 1 for edge in ("0", "0.2", "0.4", "0.6", "0.8", "0.9")},
            "rewardAtMost:1": 4,
        },
        abs=1e-6,
    )
    report = score_report(summary, MELD, REWARD)
    assert report["consensus"] == {**dict.fromkeys(MELD, 0), "joy": 1}
    assert report["dropped"] == {"empty": 0, "tied": 1}
    assert report["gold"] == {"groups": 1, "voted": 1, "right": 1, "accuracy": 1.0}
    histogram = report["rewardHistogram"]
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    assert sum(histogram["counts"]) == 4
    assert histogram["counts"][-1] == 3


def test_without_kept_groups_the_zero_variance_share_is_1() -> None:
    metrics = score_metrics(summary_of(recognizer("a", [JOY, ANGER])), REWARD)
    assert metrics == {
        "formatMean": 1.0,
        "zeroVarianceShare": 1.0,
        "groups": 0.0,
        "groupsDropped": 1.0,
    }
    assert score_metrics(merge_summaries([]), REWARD)["zeroVarianceShare"] == 1.0
    assert score_report(merge_summaries([]), MELD, REWARD)["consensus"] == dict.fromkeys(MELD, 0)
    assert "gold" not in score_report(merge_summaries([]), MELD, REWARD)


def test_the_histogram_covers_every_possible_reward() -> None:
    assert histogram_edges(REWARD)[0] == -1.5
    assert histogram_edges(REWARD)[-1] == 1.0
    best = merge_summaries([summary_of(recognizer("a", [JOY, JOY]))])
    assert best.recognizer.histogram[-1] == 2
