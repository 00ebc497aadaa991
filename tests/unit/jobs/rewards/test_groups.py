from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import LABELS, groups, label_sets

from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards import (
    Terms,
    advantages,
    encode,
    expression,
    plain_implementation,
    understanding,
)
from selfemo_jobs.rewards.label_sets import CHUNK

DEFAULT = Terms.of(RewardSpec())
terms_ = st.builds(
    Terms, st.floats(0.01, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0)
)
JOY, ANGER, BOTH = frozenset({"joy"}), frozenset({"anger"}), frozenset({"joy", "surprise"})
ALL = frozenset(LABELS)


def understand(
    members: list[frozenset[str]], truth: frozenset[str], terms: Terms = DEFAULT
) -> np.ndarray:
    formed = np.array([[bool(m) for m in members]])
    sets = encode(members, LABELS)[np.newaxis]
    return understanding(sets, formed, encode([truth], LABELS), terms).reward[0]


def express(
    intended: frozenset[str],
    readings: list[frozenset[str]],
    penalty: float = 0.0,
    terms: Terms = DEFAULT,
) -> float:
    found = expression(
        encode([intended], LABELS),
        encode(readings, LABELS)[np.newaxis, np.newaxis],
        np.array([[True]]),
        np.array([[penalty]]),
        terms,
        size=7,
    )
    return float(found.reward[0, 0])


def test_understanding_by_hand() -> None:
    formed = np.array([[True, True, True, False]])
    members = encode([JOY, JOY, BOTH, ()], LABELS)[np.newaxis]
    found = understanding(members, formed, encode([JOY], LABELS), DEFAULT)
    half = 1.1 / 2.1
    np.testing.assert_allclose(found.alignment, [[1, 1, half, 0]])
    agreement = [(1 + half) / 3, (1 + half) / 3, 2 * half / 3, 0]
    np.testing.assert_allclose(found.agreement, [agreement])
    np.testing.assert_allclose(found.consistency, [np.mean(agreement)])
    reward = [0.7 + 0.2 * agreement[0] + 0.1, 0.7 * half + 0.2 * agreement[2] + 0.1, 0]
    np.testing.assert_allclose(found.reward[0, 1:], reward)


def test_expression_by_hand() -> None:
    # q: joy 3/4, surprise 1/4, anger 1/4; minima 0.75, maxima 1.5
    readings = [JOY, JOY, BOTH, ANGER]
    aligned = (0.75 + 0.1) / (1 + 0.25 + 0.25 + 0.1)
    half, miss = 1.1 / 2.1, 0.1 / 2.1
    pairs = (1 + half + half + miss + miss + 0.1 / 3.1) / 6
    assert express(JOY, readings) == pytest.approx(0.7 * aligned + 0.2 * pairs + 0.1)
    assert express(JOY, readings, 0.5) == pytest.approx(0.7 * aligned + 0.2 * pairs - 0.4)
    assert express(JOY, [JOY]) == pytest.approx(1.0)  # one reading agrees with itself
    assert express(JOY, [frozenset()]) == pytest.approx(0.1)


@given(groups(), label_sets(least=1), terms_)
def test_understanding_is_the_reference(
    found: list[list[frozenset[str]]], truth: frozenset[str], terms: Terms
) -> None:
    masks = np.array([encode(g, LABELS) for g in found])
    formed = np.array([[bool(p) for p in g] for g in found])
    out = understanding(masks, formed, encode([truth] * len(found), LABELS), terms)
    bound = terms.alignment + terms.consistency + terms.format + 1e-12
    for i, g in enumerate(found):
        rewards, c = plain_implementation.understanding(g, formed[i], truth, terms)
        np.testing.assert_allclose(out.reward[i], rewards, rtol=0, atol=1e-12)
        assert out.consistency[i] == pytest.approx(c, abs=1e-12)
        assert (out.reward[i] >= 0).all()
        assert (out.reward[i] <= bound).all()


@given(groups(), label_sets(least=1), terms_, st.sampled_from([0.0, 0.5, 1.5]))
def test_expression_is_the_reference(
    found: list[list[frozenset[str]]], intended: frozenset[str], terms: Terms, penalty: float
) -> None:
    readings = np.array([[encode(g, LABELS)] for g in found])  # groups of one response
    n = len(found)
    out = expression(
        encode([intended] * n, LABELS),
        readings,
        np.ones((n, 1), bool),
        np.full((n, 1), penalty),
        terms,
        size=7,
    )
    for i, g in enumerate(found):
        reward, c = plain_implementation.expression(intended, g, LABELS, True, penalty, terms)
        assert out.reward[i, 0] == pytest.approx(reward, abs=1e-12)
        assert out.consistency[i] == pytest.approx(c, abs=1e-12)


@given(groups(count=1), st.sampled_from(LABELS), terms_)
def test_naming_all_never_beats_the_one_right_label(
    found: list[list[frozenset[str]]], right: str, terms: Terms
) -> None:
    """Not even where the others of the group name all: what is right outweighs who agrees,
    unless consistency is weighted above alignment."""
    exact = frozenset({right})
    others = found[0]
    honest = understand([exact, *others], exact, terms)[0]
    greedy = understand([ALL, *others], exact, terms)[0]
    if terms.alignment >= terms.consistency:
        assert honest >= greedy - 1e-12


@given(groups(count=1), st.sampled_from(LABELS))
def test_a_wrong_answer_never_loses_to_an_empty_one(
    found: list[list[frozenset[str]]], right: str
) -> None:
    exact, wrong = frozenset({right}), frozenset({"fear" if right != "fear" else "joy"})
    others = found[0]
    empty = understand([frozenset(), *others], exact)[0]
    assert empty == 0.0
    assert understand([wrong, *others], exact)[0] > empty


@given(groups(count=1), label_sets(least=1), st.randoms(use_true_random=False))
def test_rewards_follow_members_and_ignore_the_labels_order(
    found: list[list[frozenset[str]]], truth: frozenset[str], random: object
) -> None:
    order = list(range(len(found[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    labels = list(LABELS)
    random.shuffle(labels)  # type: ignore[attr-defined]
    members = encode([found[0][i] for i in order], labels)[np.newaxis]
    formed = np.array([[bool(found[0][i]) for i in order]])
    moved = understanding(members, formed, encode([truth], labels), DEFAULT).reward[0]
    np.testing.assert_allclose(moved, understand(found[0], truth)[order], rtol=0, atol=1e-12)


@given(st.lists(label_sets(), min_size=1, max_size=6), st.sampled_from(LABELS))
def test_a_response_read_as_intended_beats_every_other(
    readings: list[frozenset[str]], intended: str
) -> None:
    exact = frozenset({intended})
    best = express(exact, [exact] * len(readings))
    assert best == pytest.approx(1.0)
    assert express(exact, readings) <= best + 1e-12
    assert express(exact, [ALL] * len(readings)) < best


rewards_ = st.integers(1, 9).flatmap(
    lambda g: st.lists(
        st.lists(st.floats(-1.5, 1.0, width=16), min_size=g, max_size=g), min_size=1, max_size=4
    )
)


@given(rewards_, st.floats(0.0, 1.0))
def test_advantages_are_the_reference(rewards: list[list[float]], weight: float) -> None:
    out, zero = advantages(np.array(rewards), np.full(len(rewards), weight))
    expected = [plain_implementation.advantages(r, weight) for r in rewards]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(out.sum(axis=1), 0, atol=1e-9)
    for row, flat, found in zip(rewards, zero, out, strict=True):
        assert flat == (max(row) - min(row) <= 1e-9)
        if flat:
            assert not found.any()
        assert np.square(found).mean() <= weight**2 + 1e-9  # at most unit spread, times C


def test_rewards_equal_but_for_rounding_have_no_variance() -> None:
    out, zero = advantages(np.array([[0.1 + 0.2, 0.3, 0.3]]), np.ones(1))
    assert zero.tolist() == [True]
    assert out.tolist() == [[0.0, 0.0, 0.0]]


@given(rewards_, st.floats(-1.0, 1.0), st.floats(1.0, 10.0))
def test_advantages_ignore_an_offset_and_nearly_the_scale(
    rewards: list[list[float]], offset: float, scale: float
) -> None:
    r = np.array(rewards)
    one = np.ones(len(rewards))
    plain, zero = advantages(r, one)
    assert r.tolist() == rewards
    np.testing.assert_allclose(advantages(r + offset, one)[0], plain, rtol=0, atol=1e-6)
    wide = ~zero & (r.std(axis=1) > 0.1)
    np.testing.assert_allclose(advantages(r * scale, one)[0][wide], plain[wide], atol=2e-3)


def test_many_groups_are_as_few() -> None:
    """Groups past a chunk's end are worked out like any other."""
    rng = np.random.default_rng(0)
    n = 2 * CHUNK + 3
    members = rng.integers(0, 128, (n, 5), dtype=np.uint8)
    formed = members != 0
    truth = rng.integers(1, 128, n, dtype=np.uint8)
    whole = understanding(members, formed, truth, DEFAULT)
    tail = slice(n - 5, n)
    part = understanding(members[tail], formed[tail], truth[tail], DEFAULT)
    assert np.array_equal(whole.reward[tail], part.reward)
    whole_advantage, zero = advantages(whole.reward, whole.consistency)
    part_advantage, _ = advantages(part.reward, part.consistency)
    assert np.array_equal(whole_advantage[tail], part_advantage)
    assert zero.shape == (n,)
