from __future__ import annotations

import pytest
from tests.unit.jobs.stages.score.candidates import recognizer, responder, table

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards import encode_label_sets
from selfemo_jobs.stages.score.scoring import Readings, score_candidates
from selfemo_jobs.stages.score.tally import Tally, combined, metrics_of, report_of, reward_edges

REWARD = RewardSpec.model_validate({"judge": {"weight": 0.0, "samples": 2}})
JOY, ANGER = ["joy"], ["anger"]


def tally(*groups: list[dict[str, object]], read: list[list[str]] | None = None) -> Tally:
    responses = encode_label_sets(read or [], MELD).reshape(-1, 2, 2)
    return score_candidates(
        table(*groups), Readings(None, responses), labels=MELD, reward=REWARD, group_size=2
    ).tally


def test_parts_add_up_to_the_whole() -> None:
    first = recognizer("a", [JOY, JOY], gold=JOY)
    second = recognizer("b", [JOY, ANGER])
    third = responder("c", JOY, ["What a day it is", "Yes"])
    read = [JOY, JOY, ANGER, ANGER]
    parts = [tally(first), tally(second), tally(third, read=read)]
    assert combined(parts) == tally(first, second, third, read=read)
    assert combined([Tally.model_validate_json(p.model_dump_json()) for p in parts]) == combined(
        parts
    )


def test_metrics_by_hand() -> None:
    read = [JOY, JOY, ANGER, ANGER]
    found = tally(
        recognizer("a", [JOY, JOY], gold=JOY),
        recognizer("b", [JOY, ANGER]),
        responder("c", JOY, ["What a day it is", "Yes"]),
        read=read,
    )
    low = 0.7 * 0.1 / 2.1 + 0.2 + 0.1
    rewards = [1, 1, 1, low - 0.5]
    mean = sum(rewards) / 4
    metrics = metrics_of(combined([found, tally(recognizer("d", [[], []]))]), REWARD)
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
            "groups": 2,
            "groupsDropped": 2,
            "consensusEntropy": 0.0,
            "consensusAccuracy": 1.0,
            # the one that is not 1 is -0.167
            "rewardAtMost:-0.5": 0,
            **{f"rewardAtMost:{edge}": 1 for edge in ("0", "0.2", "0.4", "0.6", "0.8", "0.9")},
            "rewardAtMost:1": 4,
        },
        abs=1e-6,
    )
    report = report_of(found, MELD, REWARD)
    assert report["consensus"] == {**dict.fromkeys(MELD, 0), "joy": 1}
    assert report["dropped"] == {"empty": 0, "tied": 1}
    assert report["gold"] == {"groups": 1, "voted": 1, "right": 1, "accuracy": 1.0}
    histogram = report["rewardHistogram"]
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    assert sum(histogram["counts"]) == 4
    assert histogram["counts"][-1] == 3


def test_nothing_left_is_nothing_to_learn_from() -> None:
    metrics = metrics_of(tally(recognizer("a", [JOY, ANGER])), REWARD)
    assert metrics == {
        "formatMean": 1.0,
        "zeroVarianceShare": 1.0,
        "groups": 0.0,
        "groupsDropped": 1.0,
    }
    assert metrics_of(combined([]), REWARD)["zeroVarianceShare"] == 1.0
    assert report_of(combined([]), MELD, REWARD)["consensus"] == dict.fromkeys(MELD, 0)
    assert "gold" not in report_of(combined([]), MELD, REWARD)


def test_the_edges_hold_every_reward() -> None:
    assert reward_edges(REWARD)[0] == -1.5
    assert reward_edges(REWARD)[-1] == 1.0
    best = combined([tally(recognizer("a", [JOY, JOY]))])
    assert best.recognizer.histogram[-1] == 2
