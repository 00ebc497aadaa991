"""The aligned vote: winners by the label prior, and who they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.rewards.aligned_vote import PSEUDO_VOTES, aligned_vote
from selfemo_jobs.rewards.consensus import Verdict
from selfemo_jobs.rewards.label_sets import Masks

PRIOR = np.array([0.6, 0.3, 0.1])


def votes_of(generator: np.random.Generator, groups: int, voters: int) -> Masks:
    """Votes that favor the first label more than the prior does."""
    chances = generator.dirichlet([9.0, 3.0, 1.0], size=groups)
    drawn = [generator.choice(3, size=voters, p=chance) for chance in chances]
    return np.asarray(1 << np.array(drawn), np.uint8)


def frequencies(masks: Masks) -> list[float]:
    return [float(np.mean(masks == 1 << label)) for label in range(3)]


@pytest.mark.parametrize("seed", range(3))
def test_the_winners_have_the_frequencies_of_the_prior(seed: int) -> None:
    generator = np.random.default_rng(seed)
    members, readings = votes_of(generator, 256, 4), votes_of(generator, 256, 32)
    options = {"num_labels": 3, "judge_weight": 0.8}
    plain = aligned_vote(members, readings, **options, prior=None)  # type: ignore[arg-type]
    vote = aligned_vote(members, readings, **options, prior=PRIOR)  # type: ignore[arg-type]
    assert frequencies(plain.masks)[2] < 0.05
    assert frequencies(vote.masks) == pytest.approx(PRIOR, abs=0.03)
    assert (vote.verdicts == Verdict.AGREED).all()
    assert (vote.confidence > 1 / 3 - 1e-9).all()
    # where a rare emotion wins, it has more votes than where it does not
    named = (readings == 4).mean(axis=1)
    assert named[vote.masks == 4].mean() > 2 * named[vote.masks != 4].mean()


def test_without_a_prior_the_most_votes_win() -> None:
    members = np.array([[1, 1, 2, 4], [2, 2, 1, 1]], np.uint8)
    readings = np.array([[4, 4], [2, 1]], np.uint8)
    vote = aligned_vote(members, readings, num_labels=3, judge_weight=0.5, prior=None)
    assert vote.masks.tolist() == [4, 1]  # of equal shares, the label that comes first


def test_the_added_votes_are_shares_of_all_voters() -> None:
    members, readings = np.array([[1, 1, 1, 1]], np.uint8), np.array([[1, 1, 1, 2]], np.uint8)
    vote = aligned_vote(members, readings, num_labels=3, judge_weight=0.5, prior=None)
    added = PSEUDO_VOTES / 8  # four members and four readings, whatever their weight
    assert vote.confidence.tolist() == pytest.approx([(7 / 8 + added) / (1 + 3 * added)])


def test_without_a_named_emotion_there_is_no_winner() -> None:
    members = np.array([[0, 0], [1, 0]], np.uint8)
    vote = aligned_vote(members, None, num_labels=3, judge_weight=0.0, prior=PRIOR)
    assert vote.masks.tolist() == [0, 1]
    assert vote.verdicts.tolist() == [Verdict.EMPTY, Verdict.AGREED]
    assert vote.confidence[0] == 0.0
    none = aligned_vote(members[:0], None, num_labels=3, judge_weight=0.0, prior=PRIOR)
    assert none.masks.shape == (0,)


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=4, max_size=4), max_size=9))
def test_each_winner_is_one_emotion(votes: list[list[int]]) -> None:
    members = np.array(votes, np.uint8).reshape(-1, 4)
    vote = aligned_vote(members, None, num_labels=3, judge_weight=0.0, prior=PRIOR)
    agreed = vote.verdicts == Verdict.AGREED
    assert (np.bitwise_count(vote.masks[agreed]) == 1).all()
    assert ((vote.confidence >= 0.0) & (vote.confidence <= 1.0)).all()


@pytest.mark.parametrize("emotion", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 10, 300])
def test_an_emotion_that_every_voter_names_wins(emotion: int, groups: int) -> None:
    members, readings = np.full((groups, 4), emotion, np.uint8), np.full((groups, 8), emotion)
    options = {"num_labels": 3, "judge_weight": 0.8, "prior": PRIOR}
    vote = aligned_vote(members, readings.astype(np.uint8), **options)  # type: ignore[arg-type]
    assert (vote.masks == emotion).all()


def test_one_other_reading_does_not_overturn_an_emotion_that_every_voter_names() -> None:
    members, readings = np.ones((256, 4), np.uint8), np.ones((256, 32), np.uint8)
    readings[:180, 0] = 0b101  # one reading also names the last emotion
    options = {"num_labels": 3, "judge_weight": 0.8, "prior": PRIOR}
    vote = aligned_vote(members, readings, **options)  # type: ignore[arg-type]
    assert (vote.masks == 1).all()


def test_of_two_emotions_that_every_voter_names_one_wins() -> None:
    members = np.full((64, 4), 0b011, np.uint8)
    members[:, 0] = 0b111
    vote = aligned_vote(members, None, num_labels=3, judge_weight=0.0, prior=PRIOR[::-1].copy())
    assert set(vote.masks.tolist()) <= {1, 2}


def test_a_few_groups_do_not_have_the_frequencies_of_a_dataset() -> None:
    members = np.array([[4, 4, 4, 1]] * 6 + [[2, 2, 2, 1]] * 4, np.uint8)
    vote = aligned_vote(members, None, num_labels=3, judge_weight=0.0, prior=PRIOR)
    assert np.count_nonzero(vote.masks == 1) <= 3  # the prior has 6 of them
    one = aligned_vote(members[:1], None, num_labels=3, judge_weight=0.0, prior=PRIOR)
    assert one.masks.tolist() == [4]


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_the_unit_of_the_prior_does_not_count(unit: float) -> None:
    members = votes_of(np.random.default_rng(3), 64, 4)
    options = {"num_labels": 3, "judge_weight": 0.0}
    masks = [
        aligned_vote(members, None, **options, prior=prior).masks.tolist()  # type: ignore[arg-type]
        for prior in (PRIOR, unit * PRIOR)
    ]
    assert masks[0] == masks[1]
