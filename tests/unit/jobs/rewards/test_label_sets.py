"""Label sets as bit masks, and the similarity of two sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import LABELS, groups, label_sets, smoothings

from selfemo_jobs.rewards import (
    decode_label_set,
    encode_label_sets,
    mean_agreement,
    plain_implementation,
    smoothed_iou,
    soft_iou,
)
from selfemo_jobs.rewards.label_sets import apportion, count_votes, mask_dtype, pack_masks

MANY = tuple(f"e{'abcdefgh'[i // 8]}{'abcdefgh'[i % 8]}" for i in range(64))


def iou(a: frozenset[str], b: frozenset[str], s: float) -> float:
    x, y = encode_label_sets([a, b], LABELS)
    return float(smoothed_iou(np.array([x]), np.array([y]), s)[0])


def test_smoothed_iou_by_hand() -> None:
    one, two = frozenset({"joy"}), frozenset({"joy", "surprise"})
    assert iou(one, one, 0.1) == 1.0
    assert iou(one, two, 0.1) == pytest.approx(1.1 / 2.1)
    assert iou(one, frozenset({"anger"}), 0.1) == pytest.approx(0.1 / 2.1)
    assert iou(one, frozenset(), 0.1) == 0.0
    assert iou(frozenset(), frozenset(), 0.1) == 0.0


@given(st.lists(label_sets(MANY), min_size=1, max_size=8), st.integers(2, 64))
def test_masks_hold_the_sets(sets: list[frozenset[str]], size: int) -> None:
    labels = MANY[:size]
    sets = [s & frozenset(labels) for s in sets]
    masks = encode_label_sets(sets, labels)
    assert [frozenset(decode_label_set(int(m), labels)) for m in masks] == sets
    membership = np.array([[e in s for e in labels] for s in sets])
    assert np.array_equal(pack_masks(membership), masks)
    assert np.array_equal(count_votes(masks, size), membership.sum(axis=0))


@pytest.mark.parametrize("voters", [255, 256, 300])
def test_more_voters_than_a_byte_holds_are_counted(voters: int) -> None:
    assert count_votes(np.ones((2, voters), np.uint8), 3).tolist() == [[voters, 0, 0]] * 2


@pytest.mark.parametrize("size", [0, 65])
def test_a_label_set_has_1_to_64_labels(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        mask_dtype(size)


def test_an_unknown_label_raises() -> None:
    with pytest.raises(KeyError, match="boredom"):
        encode_label_sets([["boredom"]], LABELS)


@given(label_sets(), label_sets(), smoothings)
def test_smoothed_iou_equals_the_plain_implementation_is_bounded_and_symmetric(
    a: frozenset[str], b: frozenset[str], s: float
) -> None:
    value = iou(a, b, s)
    assert value == pytest.approx(plain_implementation.smoothed_iou(a, b, s), abs=1e-15)
    assert 0.0 <= value <= 1.0
    assert value == iou(b, a, s)
    assert (value == 1.0) == (a == b and bool(a))


@given(label_sets(), label_sets(), smoothings, smoothings)
def test_more_smoothing_raises_every_value_below_1(
    a: frozenset[str], b: frozenset[str], s: float, t: float
) -> None:
    low, high = iou(a, b, min(s, t)), iou(a, b, max(s, t))
    assert low <= high + 1e-12
    if a and b and a != b and max(s, t) > 1.01 * min(s, t):
        assert low < high


@given(label_sets(), st.sampled_from(LABELS), smoothings)
def test_naming_more_than_the_one_right_label_lowers_the_value(
    extra: frozenset[str], right: str, s: float
) -> None:
    exact, more = frozenset({right}), extra | {right}
    assert iou(more, exact, s) < 1.0 or more == exact
    assert iou(frozenset(LABELS), exact, s) < iou(exact, exact, s)
    assert iou(more | {"fear"}, exact, s) <= iou(more, exact, s) or right == "fear"


@given(
    st.lists(st.integers(0, 20), min_size=len(LABELS), max_size=len(LABELS)).filter(any),
    label_sets(least=1),
    st.floats(1e-3, 1.0),
)
def test_naming_several_labels_never_has_a_higher_expected_value(
    chances: list[int], several: frozenset[str], s: float
) -> None:
    """Whatever the belief, its most likely label alone has the highest expected value."""

    def expected_iou(answer: frozenset[str]) -> float:
        return sum(
            c / sum(chances) * iou(answer, frozenset({e}), s)
            for e, c in zip(LABELS, chances, strict=True)
        )

    best = LABELS[chances.index(max(chances))]
    assert expected_iou(frozenset({best})) >= expected_iou(several) - 1e-12


@given(label_sets(), label_sets(), smoothings)
def test_soft_iou_of_sets_equals_the_smoothed_iou(
    a: frozenset[str], b: frozenset[str], s: float
) -> None:
    p, q = [[float(e in x) for e in LABELS] for x in (a, b)]
    assert soft_iou(np.array(p), np.array(q), s) == pytest.approx(iou(a, b, s), abs=1e-15)


shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=7, max_size=7)


@given(shares, shares, smoothings)
def test_soft_iou_equals_the_plain_implementation_and_is_bounded(
    p: list[float], q: list[float], s: float
) -> None:
    value = float(soft_iou(np.array(p), np.array(q), s))
    by_label = (dict(zip(LABELS, x, strict=True)) for x in (p, q))
    assert value == pytest.approx(plain_implementation.soft_iou(*by_label, s), abs=1e-12)
    assert 0.0 <= value <= 1.0


@given(groups(), smoothings)
def test_mean_agreement_equals_the_plain_implementation(
    some_groups: list[list[frozenset[str]]], s: float
) -> None:
    masks = np.array([encode_label_sets(g, LABELS) for g in some_groups])
    expected = [plain_implementation.mean_agreement(g, s) for g in some_groups]
    np.testing.assert_allclose(mean_agreement(masks, s), expected, rtol=0, atol=1e-12)


@given(groups(), smoothings, st.randoms(use_true_random=False))
def test_agreement_moves_with_its_members_and_ignores_the_order_of_labels(
    some_groups: list[list[frozenset[str]]], s: float, random: object
) -> None:
    order = list(range(len(some_groups[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    labels = list(LABELS)
    random.shuffle(labels)  # type: ignore[attr-defined]
    original = mean_agreement(np.array([encode_label_sets(g, LABELS) for g in some_groups]), s)
    shuffled = mean_agreement(
        np.array([encode_label_sets([g[i] for i in order], labels) for g in some_groups]), s
    )
    np.testing.assert_allclose(shuffled, original[:, order], rtol=0, atol=1e-12)


@given(
    st.lists(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(1, 64),
)
def test_readings_are_in_proportion_to_the_shares(weights: list[list[float]], seats: int) -> None:
    shares = np.array(weights)
    shares /= shares.sum(axis=1, keepdims=True)
    masks = apportion(shares, seats)
    assert masks.shape == (len(weights), seats)
    assert (np.bitwise_count(masks) == 1).all()
    assert (np.abs(count_votes(masks, 4) - shares * seats) < 1.0).all()
