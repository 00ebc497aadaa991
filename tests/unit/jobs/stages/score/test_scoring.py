"""Scores of parts: by hand, against the plain implementation, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import label_sets
from tests.unit.jobs.stages.score.candidates import recognizer, responder, table

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import RewardSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.rewards import RewardTerms, encode_label_sets, plain_implementation
from selfemo_jobs.runtime.schemas import CANDIDATES, SCORED
from selfemo_jobs.stages.score.scoring import JudgePredictions, ScoredPart, score_candidates

JOY, ANGER = ["joy"], ["anger"]
ALONE = RewardSpec.model_validate({"judge": {"weight": 0.0}})
DEFAULT = RewardSpec()
HALF, MISS = 1.1 / 2.1, 0.1 / 2.1


def masks(sets: list[Any], *shape: int) -> np.ndarray:
    """Return label sets as masks of some shape."""
    return encode_label_sets(sets, MELD).reshape(shape)


NO_RESPONSES = masks([], 0, 4, 2)


def score(
    part: pa.Table,
    *,
    targets: np.ndarray | None = None,
    responses: np.ndarray = NO_RESPONSES,
    reward: RewardSpec = ALONE,
    size: int = 4,
) -> ScoredPart:
    return score_candidates(
        part,
        JudgePredictions(targets, responses),
        labels=MELD,
        reward=reward,
        group_size=size,
        uri="file:///part-0.parquet",
    )


def test_random_rewards_follow_from_the_seed_alone() -> None:
    part = table(recognizer("g1", [JOY, JOY, JOY, ANGER]))
    spec = RewardSpec.model_validate({"signal": "Random", "judge": {"weight": 0.0}})
    readings = JudgePredictions(None, NO_RESPONSES)
    first, again, other = (
        score_candidates(part, readings, labels=MELD, reward=spec, group_size=4, seed=seed).table
        for seed in (7, 7, 8)
    )
    assert first.equals(again)
    drawn = first["reward"].to_pylist()
    assert drawn != other["reward"].to_pylist()
    assert len(set(drawn)) == 4  # equal answers do not get equal rewards
    assert all(0.0 <= r < 1.0 for r in drawn)
    assert first["consistency"].equals(
        score(part).table["consistency"]
    )  # the consistency is still computed


def test_groups_can_have_equal_weights() -> None:
    part = table(recognizer("g1", [JOY, JOY, JOY, ANGER]))
    alike = RewardSpec.model_validate({"groupWeight": "None", "judge": {"weight": 0.0}})
    weighted, unweighted = score(part).table, score(part, reward=alike).table
    consistency = np.array(weighted["consistency"])
    assert np.allclose(
        np.array(unweighted["advantage"]) * consistency, weighted["advantage"], atol=1e-6
    )
    assert consistency[0] < 1.0


def test_the_division_by_the_deviation_can_be_taken_back() -> None:
    part = table(recognizer("g1", [JOY, JOY, JOY, ANGER]), recognizer("g2", [JOY, ANGER] * 2))
    plain = RewardSpec.model_validate(
        {"groupWeight": "Deviation", "consensus": 0.4, "judge": {"weight": 0.0}}
    )
    out = score(part, reward=plain).table
    rewards = np.array(out["reward"]).reshape(-1, 4)
    expected = rewards - rewards.mean(axis=1, keepdims=True)
    assert np.allclose(np.array(out["advantage"]).reshape(-1, 4), expected, atol=1e-3)
    assert np.abs(expected).max() > 0.1


def test_the_aligned_vote_refers_to_the_label_prior() -> None:
    votes = [[JOY, JOY, JOY, ANGER]] * 3 + [[JOY, JOY, ANGER, ANGER]]
    part = table(*(recognizer(f"g{i}", votes[i % 4]) for i in range(64)))
    reward = RewardSpec.model_validate({"consensus": 0, "judge": {"weight": 0.0}})
    prior = {"joy": 0.75, "anger": 0.25}
    options = {"labels": MELD, "reward": reward, "group_size": 4}
    readings = JudgePredictions(None, NO_RESPONSES)
    scored = score_candidates(part, readings, label_prior=prior, **options).table  # type: ignore[arg-type]
    assert scored["consensus"].to_pylist()[::4] == [JOY, JOY, JOY, ANGER] * 16
    plain = score_candidates(part, readings, **options).table  # type: ignore[arg-type]
    assert plain["consensus"].to_pylist()[::4][:3] == [JOY] * 3
    assert plain["consensus"].to_pylist()[12] in (JOY, ANGER)  # without a prior: equal votes


def test_without_smoothing_a_wrong_answer_has_alignment_0() -> None:
    part = table(recognizer("g1", [JOY, JOY, JOY, ANGER]))
    plain = RewardSpec.model_validate({"smoothing": 0.0, "judge": {"weight": 0.0}})
    assert score(part, reward=plain).table["alignment"].to_pylist() == [1.0, 1.0, 1.0, 0.0]


def test_a_recognizer_group_by_hand() -> None:
    part = table(recognizer("g1", [JOY, JOY, JOY, ["joy", "surprise"]]))
    scored = score(part)
    out = scored.table
    assert out.schema == SCORED
    assert out.select(CANDIDATES.names).equals(part)
    assert out["consensus"].to_pylist() == [JOY] * 4
    agreement = [(2 + HALF) / 3] * 3 + [HALF]
    c = sum(agreement) / 4
    reward = [0.7 + 0.2 * agreement[0] + 0.1] * 3 + [0.7 * HALF + 0.2 * HALF + 0.1]
    mean = sum(reward) / 4
    std = (sum((r - mean) ** 2 for r in reward) / 4) ** 0.5
    expected = {
        "alignment": [1, 1, 1, HALF],
        "agreement": agreement,
        "format": [1] * 4,
        "penalty": [0] * 4,
        "reward": reward,
        "confidence": [1.0] * 4,
        "consistency": [c] * 4,
        "advantage": [c * (r - mean) / (std + 1e-4) for r in reward],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(out[name].to_numpy(), values, rtol=1e-6)
    assert scored.summary.consensus == [0, 0, 0, 0, 1, 0, 0]
    assert scored.summary.recognizer.reward == pytest.approx(sum(reward))
    assert scored.summary.recognizer.zero_variance == 0


def test_a_group_that_names_sets_by_hand() -> None:
    both = ["surprise", "joy"]
    part = table(recognizer("g1", [both, both, both, JOY]))
    readings = masks([both, both, JOY, ANGER], 1, 4)
    spec = RewardSpec.model_validate({"consensus": 0.5, "judge": {"weight": 0.4}})
    scored = score(part, targets=readings, reward=spec)
    out = scored.table
    # joy: 0.6 * 4/4 + 0.4 * 3/4; surprise: 0.6 * 3/4 + 0.4 * 2/4, which is also the share of both
    assert out["consensus"].to_pylist() == [both] * 4
    np.testing.assert_allclose(out["confidence"].to_numpy(), 0.65, rtol=1e-6)
    np.testing.assert_allclose(out["alignment"].to_numpy(), [1, 1, 1, HALF], rtol=1e-6)
    agreement = [(2 + HALF) / 3] * 3 + [HALF]
    np.testing.assert_allclose(out["agreement"].to_numpy(), agreement, rtol=1e-6)
    reward = [0.7 + 0.2 * agreement[0] + 0.1] * 3 + [0.7 * HALF + 0.2 * HALF + 0.1]
    np.testing.assert_allclose(out["reward"].to_numpy(), reward, rtol=1e-6)
    assert scored.summary.consensus == [0, 1, 0, 0, 1, 0, 0]


def test_gold_sets_are_compared_as_a_whole() -> None:
    both = ["surprise", "joy"]
    part = table(
        recognizer("right", [both] * 4, gold=["joy", "surprise"]),
        recognizer("part", [JOY] * 4, gold=both),
    )
    scored = score(part)
    assert scored.table["consensus"].to_pylist() == [both] * 8
    np.testing.assert_allclose(scored.table["alignment"].to_numpy()[4:], HALF, rtol=1e-6)
    assert (scored.summary.gold_voted, scored.summary.gold_right) == (2, 1)


def test_confidence_is_the_consensus_share_of_the_vote() -> None:
    part = table(
        recognizer("g1", [JOY, JOY, JOY, ANGER]),
        recognizer("g2", [JOY, JOY, JOY, ANGER], gold=ANGER),
    )
    readings = masks([JOY, JOY, JOY, JOY, ANGER, JOY, JOY, JOY], 2, 4)
    spec = RewardSpec.model_validate({"judge": {"weight": 0.5}})
    out = score(part, targets=readings, reward=spec).table
    assert out["confidence"].to_pylist() == [0.875] * 4 + [1.0] * 4


def test_a_responder_group_by_hand() -> None:
    responses = [
        "That is the best news ever!",
        "Oh joy, how very nice.",  # names the emotion
        "Where were you last night then?",  # repeats the context
        "Yes.",  # too short
    ]
    readings = masks([JOY, JOY, JOY, ANGER, ANGER, ANGER, JOY, JOY], 1, 4, 2)
    scored = score(table(responder("g1", JOY, responses)), responses=readings)
    out = scored.table
    # shares of the second: joy 1/2, anger 1/2; minima 1/2, maxima 3/2
    alignment = [1, 0.6 / 1.6, 0.1 / 2.1, 1]
    agreement = [1, MISS, 1, 1]
    penalty = [0, 0.5, 0.5, 0.5]
    terms = zip(alignment, agreement, penalty, strict=True)
    reward = [(0.7 + 0.2 * c) * a + 0.1 - p for a, c, p in terms]
    expected = {
        "alignment": alignment,
        "agreement": agreement,
        "penalty": penalty,
        "reward": reward,
        "consistency": [(3 + MISS) / 4] * 4,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(out[name].to_numpy(), values, rtol=1e-6)
    assert out["consensus"].to_pylist() == [JOY] * 4
    summary = scored.summary
    assert (summary.names_emotion, summary.repeats_context, summary.bad_length) == (1, 1, 1)
    assert summary.consensus == [0] * 7  # intended emotions are not counted as votes
    assert summary.responder.penalty == pytest.approx(1.5)


def test_groups_whose_vote_has_no_result_are_dropped_and_counted() -> None:
    part = table(
        recognizer("tied", [JOY, JOY, ANGER, ANGER]),
        recognizer("kept", [JOY] * 4),
        recognizer("empty", [[], [], [], JOY]),
    )
    scored = score(part)
    assert scored.table["group_id"].to_pylist() == ["kept"] * 4
    summary = scored.summary
    assert (summary.empty, summary.tied, summary.recognizer.groups) == (1, 1, 1)
    assert (summary.recognizer.candidates, summary.recognizer.well_formed) == (12, 9)
    assert summary.recognizer.rows == 4
    assert summary.recognizer.zero_variance == 1
    assert scored.table["advantage"].to_pylist() == [0.0] * 4


def test_the_judge_votes_only_with_a_weight_above_0() -> None:
    part = table(recognizer("g1", [JOY, JOY, ANGER, []]))
    judge = masks([ANGER, ANGER], 1, 2)
    assert score(part).table["consensus"][0].as_py() == JOY
    against = score(part, targets=judge, reward=DEFAULT)
    assert against.table["consensus"][0].as_py() == ANGER  # 0.25 and 0.625


def test_gold_labels_replace_the_vote_and_its_accuracy_is_counted() -> None:
    part = table(
        recognizer("right", [JOY] * 4, gold=JOY),
        recognizer("wrong", [JOY] * 4, gold=ANGER),
        recognizer("tied", [JOY, JOY, ANGER, ANGER], gold=ANGER),
        recognizer("unknown", [ANGER] * 4),
    )
    scored = score(part)
    assert scored.table["consensus"].to_pylist() == [JOY] * 4 + [ANGER] * 12
    np.testing.assert_allclose(scored.table["alignment"].to_numpy()[4:8], MISS, rtol=1e-6)
    summary = scored.summary
    assert (summary.gold, summary.gold_voted, summary.gold_right) == (3, 2, 1)
    assert (summary.empty, summary.tied) == (0, 0)


def test_a_completion_that_was_cut_off_is_not_well_formed() -> None:
    part = table(recognizer("g1", [JOY] * 4, finished=False))
    assert score(part).table["format"].to_pylist() == [0.0] * 4


def test_rows_keep_their_order_and_may_be_in_any_order() -> None:
    groups = table(recognizer("a", [JOY, JOY, JOY, ANGER]), recognizer("b", [ANGER] * 4))
    order = [5, 3, 0, 4, 7, 1, 6, 2]
    plain = score(groups).table.take(order)
    mixed = score(groups.take(order)).table
    assert mixed.select(CANDIDATES.names).equals(plain.select(CANDIDATES.names))
    for name in ("reward", "advantage", "consistency"):
        np.testing.assert_allclose(mixed[name].to_numpy(), plain[name].to_numpy(), atol=1e-6)


def test_a_part_without_groups_gives_an_empty_table() -> None:
    scored = score(table())
    assert scored.table.num_rows == 0
    assert scored.table.schema == SCORED


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (recognizer("g1", [JOY] * 3), r"part-0.parquet: group g1 has members \[0, 1, 2\]"),
        (recognizer("g1", [JOY] * 5), "not 0 to 3"),
        (recognizer("g1", [JOY] * 4, role="Critic"), "group g1: `role`"),
        (recognizer("g1", [JOY, JOY, ["boredom"], JOY]), "row 3: `labels` names boredom"),
        (recognizer("g1", [JOY] * 4, gold=["boredom"]), "row 1: `gold` names boredom"),
        (responder("g1", [], ["a", "b", "c", "d"]), "row 1: `intended` is empty"),
    ],
)
def test_bad_candidates_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        score(table(rows), responses=masks([JOY] * 8, 1, 4, 2))


SIZE, SAMPLES = 3, 2
answers = label_sets(("joy", "anger", "neutral"))
group_answers = st.lists(answers, min_size=SIZE, max_size=SIZE)
readings_ = st.lists(answers, min_size=SAMPLES, max_size=SAMPLES)
specs = st.builds(
    lambda weight, tau, smoothing: RewardSpec.model_validate(
        {"judge": {"weight": weight}, "consensus": tau, "smoothing": smoothing}
    ),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([0.34, 0.5, 1.0]),
    st.sampled_from([0.01, 0.1, 1.0]),
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(group_answers, readings_, st.none() | answers), max_size=4),
    st.lists(
        st.tuples(
            label_sets(("joy", "anger"), least=1),
            st.lists(readings_, min_size=SIZE, max_size=SIZE),
        ),
        max_size=3,
    ),
    specs,
)
def test_scores_of_a_part_equal_the_plain_implementation(
    recognizer_groups: list[Any], responder_groups: list[Any], reward: RewardSpec
) -> None:
    part = table(
        *(
            recognizer(
                f"u{i}", [sorted(a) for a in members], gold=None if gold is None else sorted(gold)
            )
            for i, (members, _, gold) in enumerate(recognizer_groups)
        ),
        *(
            responder(f"x{i}", sorted(intended), ["You are kind"] * SIZE)
            for i, (intended, _) in enumerate(responder_groups)
        ),
    )
    weight = reward.judge.weight
    flat = [r for _, sets, _ in recognizer_groups for r in sets]
    targets = masks(flat, len(recognizer_groups), SAMPLES) if weight else None
    flat = [r for _, group in responder_groups for sets in group for r in sets]
    out = score(
        part,
        targets=targets,
        responses=masks(flat, len(responder_groups), SIZE, SAMPLES),
        reward=reward,
        size=SIZE,
    ).table.to_pylist()
    terms = RewardTerms.from_spec(reward)
    expected: list[tuple[str, frozenset[str], float, float, float]] = []
    for i, (members, sets, gold) in enumerate(recognizer_groups):
        vote = plain_implementation.consensus(
            members, sets if weight else (), MELD, reward.consensus, weight
        )
        truth = gold or vote
        if truth is None:
            continue
        rewards, c = plain_implementation.recognizer_rewards(
            members, [bool(m) for m in members], truth, terms
        )
        advantages = plain_implementation.group_advantages(rewards, c)
        expected += [(f"u{i}", truth, r, c, a) for r, a in zip(rewards, advantages, strict=True)]
    for i, (intended, group) in enumerate(responder_groups):
        pairs = [
            plain_implementation.responder_reward(intended, r, MELD, True, 0.0, terms)
            for r in group
        ]
        c = sum(agreed for _, agreed in pairs) / SIZE
        advantages = plain_implementation.group_advantages([r for r, _ in pairs], c)
        expected += [
            (f"x{i}", intended, r, c, a) for (r, _), a in zip(pairs, advantages, strict=True)
        ]
    assert [(r["group_id"], frozenset(r["consensus"])) for r in out] == [
        (group, truth) for group, truth, *_ in expected
    ]
    actual = [(r["reward"], r["consistency"], r["advantage"]) for r in out]
    np.testing.assert_allclose(
        np.array(actual).reshape(-1, 3),
        np.array([e[2:] for e in expected]).reshape(-1, 3),
        atol=2e-6,
    )
