"""The responder's vote: bounds, and what leaves it unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.rewards import plain_implementation
from selfemo_jobs.rewards.label_sets import count_votes
from selfemo_jobs.rewards.responder_vote import apportion, emotion_evidence, joint_shares

LOGPROBS = st.lists(st.lists(st.floats(-200.0, 0.0), min_size=3, max_size=3), min_size=1)


@given(LOGPROBS, st.floats(-50.0, 50.0), st.integers(1, 60))
def test_what_all_emotions_share_says_nothing(
    logprobs: list[list[float]], shift: float, length: int
) -> None:
    lengths = np.full(len(logprobs), length)
    evidence = emotion_evidence(np.array(logprobs), lengths)
    assert evidence == pytest.approx(emotion_evidence(np.array(logprobs) + shift, lengths))
    assert evidence.sum(axis=1) == pytest.approx(0.0, abs=1e-9)


def test_a_long_turn_counts_more_than_a_short_one_but_not_in_proportion() -> None:
    per_token = np.array([[-1.0, -2.0]])
    short, long = (
        emotion_evidence(per_token * tokens, np.array([tokens]))[0, 0] for tokens in (4, 16)
    )
    assert long == pytest.approx(2 * short)


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=20), st.floats(0.0, 5.0))
def test_shares_add_up_and_follow_the_evidence(readings: list[int], weight: float) -> None:
    masks = np.array([readings], np.uint8)
    evidence = np.array([[1.0, 0.0, -1.0]])
    shares = joint_shares(masks, evidence, weight)
    unmoved = joint_shares(masks, evidence, 0.0)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0, 0] >= unmoved[0, 0] - 1e-12
    assert shares[0, 2] <= unmoved[0, 2] + 1e-12
    assert unmoved == pytest.approx(joint_shares(masks, np.zeros((1, 3)), weight))


@given(
    st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=20),
    st.lists(st.floats(-100.0, 0.0), min_size=3, max_size=3),
    st.integers(1, 40),
    st.floats(0.0, 3.0),
)
def test_the_vote_equals_the_plain_implementation(
    readings: list[int], logprobs: list[float], tokens: int, weight: float
) -> None:
    evidence = emotion_evidence(np.array([logprobs]), np.array([tokens]))
    (shares,) = joint_shares(np.array([readings], np.uint8), evidence, weight)
    counts = [readings.count(mask) for mask in (1, 2, 4)]
    plain = plain_implementation.joint_shares(counts, logprobs, tokens, weight)
    assert shares == pytest.approx(plain)


def test_extreme_evidence_does_not_overflow() -> None:
    shares = joint_shares(np.array([[1, 1]], np.uint8), np.array([[-5000.0, 5000.0]]))
    assert shares.tolist() == [[0.0, 1.0]]


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
