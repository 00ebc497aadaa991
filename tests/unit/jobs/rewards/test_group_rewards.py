"""The rewards of both roles and the advantages: by hand, against plain Python, and properties."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import LABELS, groups, label_sets

from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards import (
    RewardTerms,
    encode_label_sets,
    group_advantages,
    plain_implementation,
    recognizer_rewards,
    responder_rewards,
)
from selfemo_jobs.rewards.group_rewards import STD_FLOOR
from selfemo_jobs.rewards.label_sets import CHUNK_SIZE

DEFAULT = RewardTerms.from_spec(RewardSpec())
reward_terms = st.builds(
    RewardTerms, st.floats(0.01, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0)
)
JOY, ANGER, BOTH = frozenset({"joy"}), frozenset({"anger"}), frozenset({"joy", "surprise"})
ALL = frozenset(LABELS)


def rewards_of_group(
    members: list[frozenset[str]], truth: frozenset[str], terms: RewardTerms = DEFAULT
) -> np.ndarray:
    """Return the recognizer's rewards of one group; an empty answer is not well formed."""
    well_formed = np.array([[bool(m) for m in members]])
    masks = encode_label_sets(members, LABELS)[np.newaxis]
    return recognizer_rewards(masks, well_formed, encode_label_sets([truth], LABELS), terms).reward[
        0
    ]


def reward_of_response(
    intended: frozenset[str],
    readings: list[frozenset[str]],
    penalty: float = 0.0,
    terms: RewardTerms = DEFAULT,
) -> float:
    """Return the responder's reward of one well-formed response."""
    rewards = responder_rewards(
        encode_label_sets([intended], LABELS),
        encode_label_sets(readings, LABELS)[np.newaxis, np.newaxis],
        np.array([[True]]),
        np.array([[penalty]]),
        terms,
        num_labels=7,
    )
    return float(rewards.reward[0, 0])


def test_recognizer_rewards_by_hand() -> None:
    well_formed = np.array([[True, True, True, False]])
    members = encode_label_sets([JOY, JOY, BOTH, ()], LABELS)[np.newaxis]
    rewards = recognizer_rewards(members, well_formed, encode_label_sets([JOY], LABELS), DEFAULT)
    half = 1.1 / 2.1
    np.testing.assert_allclose(rewards.alignment, [[1, 1, half, 0]])
    agreement = [(1 + half) / 3, (1 + half) / 3, 2 * half / 3, 0]
    np.testing.assert_allclose(rewards.agreement, [agreement])
    np.testing.assert_allclose(rewards.consistency, [np.mean(agreement)])
    reward = [0.7 + 0.2 * agreement[0] + 0.1, 0.7 * half + 0.2 * agreement[2] + 0.1, 0]
    np.testing.assert_allclose(rewards.reward[0, 1:], reward)


def test_responder_rewards_by_hand() -> None:
    # q: joy 3/4, surprise 1/4, anger 1/4; sum of minima 0.75, sum of maxima 1.5
    readings = [JOY, JOY, BOTH, ANGER]
    alignment = (0.75 + 0.1) / (1 + 0.25 + 0.25 + 0.1)
    half, miss = 1.1 / 2.1, 0.1 / 2.1
    pairs = (1 + half + half + miss + miss + 0.1 / 3.1) / 6
    expected = (0.7 + 0.2 * pairs) * alignment
    assert reward_of_response(JOY, readings) == pytest.approx(expected + 0.1)
    assert reward_of_response(JOY, readings, 0.5) == pytest.approx(expected - 0.4)
    assert reward_of_response(JOY, [JOY]) == pytest.approx(1.0)  # one reading agrees with itself
    assert reward_of_response(JOY, [frozenset()]) == pytest.approx(0.1)


def test_a_sure_reading_of_another_emotion_is_worth_less_than_an_unsure_one_of_the_intended() -> (
    None
):
    unsure = [JOY, ANGER, frozenset({"sadness"}), frozenset({"neutral"})]
    assert reward_of_response(JOY, unsure) > reward_of_response(JOY, [ANGER] * 4)


@given(groups(), label_sets(least=1), reward_terms)
def test_recognizer_rewards_equal_the_plain_implementation(
    some_groups: list[list[frozenset[str]]], truth: frozenset[str], terms: RewardTerms
) -> None:
    masks = np.array([encode_label_sets(g, LABELS) for g in some_groups])
    well_formed = np.array([[bool(p) for p in g] for g in some_groups])
    truths = encode_label_sets([truth] * len(some_groups), LABELS)
    rewards = recognizer_rewards(masks, well_formed, truths, terms)
    bound = terms.alignment + terms.consistency + terms.format + 1e-12
    for i, group in enumerate(some_groups):
        expected, consistency = plain_implementation.recognizer_rewards(
            group, well_formed[i], truth, terms
        )
        np.testing.assert_allclose(rewards.reward[i], expected, rtol=0, atol=1e-12)
        assert rewards.consistency[i] == pytest.approx(consistency, abs=1e-12)
        assert (rewards.reward[i] >= 0).all()
        assert (rewards.reward[i] <= bound).all()


@given(groups(), label_sets(least=1), reward_terms, st.sampled_from([0.0, 0.5, 1.5]))
def test_responder_rewards_equal_the_plain_implementation(
    some_groups: list[list[frozenset[str]]],
    intended: frozenset[str],
    terms: RewardTerms,
    penalty: float,
) -> None:
    # each group is taken as the readings of one response
    readings = np.array([[encode_label_sets(g, LABELS)] for g in some_groups])
    n = len(some_groups)
    rewards = responder_rewards(
        encode_label_sets([intended] * n, LABELS),
        readings,
        np.ones((n, 1), bool),
        np.full((n, 1), penalty),
        terms,
        num_labels=7,
    )
    for i, group in enumerate(some_groups):
        reward, agreement = plain_implementation.responder_reward(
            intended, group, LABELS, True, penalty, terms
        )
        assert rewards.reward[i, 0] == pytest.approx(reward, abs=1e-12)
        assert rewards.consistency[i] == pytest.approx(agreement, abs=1e-12)


@given(groups(count=1), st.sampled_from(LABELS), reward_terms)
def test_naming_all_labels_never_beats_the_one_right_label(
    one_group: list[list[frozenset[str]]], right: str, terms: RewardTerms
) -> None:
    """This holds even if the others of the group name all labels, since alignment weighs more
    than agreement. It need not hold if consistency has a larger weight than alignment."""
    exact = frozenset({right})
    others = one_group[0]
    one_label = rewards_of_group([exact, *others], exact, terms)[0]
    all_labels = rewards_of_group([ALL, *others], exact, terms)[0]
    if terms.alignment >= terms.consistency:
        assert one_label >= all_labels - 1e-12


@given(groups(count=1), st.sampled_from(LABELS))
def test_a_wrong_answer_beats_an_empty_one(
    one_group: list[list[frozenset[str]]], right: str
) -> None:
    exact, wrong = frozenset({right}), frozenset({"fear" if right != "fear" else "joy"})
    others = one_group[0]
    empty = rewards_of_group([frozenset(), *others], exact)[0]
    assert empty == 0.0
    assert rewards_of_group([wrong, *others], exact)[0] > empty


@given(groups(count=1), label_sets(least=1), st.randoms(use_true_random=False))
def test_rewards_move_with_their_members_and_ignore_the_order_of_labels(
    one_group: list[list[frozenset[str]]], truth: frozenset[str], random: object
) -> None:
    group = one_group[0]
    order = list(range(len(group)))
    random.shuffle(order)  # type: ignore[attr-defined]
    labels = list(LABELS)
    random.shuffle(labels)  # type: ignore[attr-defined]
    members = encode_label_sets([group[i] for i in order], labels)[np.newaxis]
    well_formed = np.array([[bool(group[i]) for i in order]])
    shuffled = recognizer_rewards(
        members, well_formed, encode_label_sets([truth], labels), DEFAULT
    ).reward[0]
    np.testing.assert_allclose(shuffled, rewards_of_group(group, truth)[order], rtol=0, atol=1e-12)


@given(st.lists(label_sets(), min_size=1, max_size=6), st.sampled_from(LABELS))
def test_a_response_read_as_intended_beats_every_other(
    readings: list[frozenset[str]], intended: str
) -> None:
    exact = frozenset({intended})
    best = reward_of_response(exact, [exact] * len(readings))
    assert best == pytest.approx(1.0)
    assert reward_of_response(exact, readings) <= best + 1e-12
    assert reward_of_response(exact, [ALL] * len(readings)) < best


#: Up to four groups of one size, from 1 to MEMBERS. Rewards are 16-bit floats, so two different
#: ones differ by at least 6e-8, far more than SAME_REWARD.
MEMBERS = 9
group_rewards = st.integers(1, MEMBERS).flatmap(
    lambda g: st.lists(
        st.lists(st.floats(-1.5, 1.0, width=16), min_size=g, max_size=g), min_size=1, max_size=4
    )
)


@given(group_rewards, st.floats(0.0, 1.0))
def test_advantages_equal_the_plain_implementation(
    rewards: list[list[float]], weight: float
) -> None:
    advantages, zero_variance = group_advantages(np.array(rewards), np.full(len(rewards), weight))
    expected = [plain_implementation.group_advantages(r, weight) for r in rewards]
    np.testing.assert_allclose(advantages, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-9)
    for row, equal, group in zip(rewards, zero_variance, advantages, strict=True):
        assert equal == (max(row) - min(row) <= 1e-9)
        if equal:
            assert not group.any()
        # the standard deviation of the advantages is at most the weight
        assert np.square(group).mean() <= weight**2 + 1e-9


def test_rewards_that_differ_by_rounding_only_have_no_variance() -> None:
    advantages, zero_variance = group_advantages(np.array([[0.1 + 0.2, 0.3, 0.3]]), np.ones(1))
    assert zero_variance.tolist() == [True]
    assert advantages.tolist() == [[0.0, 0.0, 0.0]]


@given(group_rewards, st.floats(-1.0, 1.0), st.floats(1.0, 10.0))
# one member far from the others, a small spread, the largest scale: the largest possible change
@example([[0.0] * 8 + [0.3203125]], 0.0, 10.0)
def test_advantages_ignore_an_offset_and_nearly_the_scale(
    rewards: list[list[float]], offset: float, scale: float
) -> None:
    r = np.array(rewards)
    weight = np.ones(len(rewards))
    advantages, zero_variance = group_advantages(r, weight)
    assert r.tolist() == rewards
    shifted, _ = group_advantages(r + offset, weight)
    np.testing.assert_allclose(shifted, advantages, rtol=0, atol=1e-6)

    # With A = d / (std + f), f = STD_FLOOR, rewards times k give k d / (k std + f). That is
    # A (std + f) / (std + f / k) exactly. Rounding changes it by under 1e-10: rewards are known
    # to 1e-15, and are divided by at least f = 1e-4.
    std = r.std(axis=1, keepdims=True)
    scaled, _ = group_advantages(r * scale, weight)
    expected = advantages * (std + STD_FLOOR) / (std + STD_FLOOR / scale)
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-9)

    # So the change is |A| f (1 - 1/k) / (std + f / k), below |d| f / std^2. In a group of G no
    # member is further from the mean than std sqrt(G - 1) (Samuelson's inequality), so the change
    # is below sqrt(G - 1) f / std: at most 2.9e-3 for G = 9 and std > 0.1.
    wide = ~zero_variance & (std[:, 0] > 0.1)
    bound = sqrt(MEMBERS - 1) * STD_FLOOR / 0.1
    np.testing.assert_allclose(scaled[wide], advantages[wide], rtol=0, atol=bound)


def test_groups_beyond_the_first_chunk_get_the_same_values() -> None:
    rng = np.random.default_rng(0)
    n = 2 * CHUNK_SIZE + 3
    members = rng.integers(0, 128, (n, 5), dtype=np.uint8)
    well_formed = members != 0
    truth = rng.integers(1, 128, n, dtype=np.uint8)
    whole = recognizer_rewards(members, well_formed, truth, DEFAULT)
    tail = slice(n - 5, n)
    part = recognizer_rewards(members[tail], well_formed[tail], truth[tail], DEFAULT)
    assert np.array_equal(whole.reward[tail], part.reward)
    whole_advantages, zero_variance = group_advantages(whole.reward, whole.consistency)
    part_advantages, _ = group_advantages(part.reward, part.consistency)
    assert np.array_equal(whole_advantages[tail], part_advantages)
    assert zero_variance.shape == (n,)
