"""The vote of a group and the judge: results by hand, and properties of all votes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import LABELS, groups, label_sets

from selfemo_jobs.rewards import (
    Verdict,
    consensus,
    decode_label_set,
    encode_label_sets,
    plain_implementation,
)

JOY, ANGER = frozenset({"joy"}), frozenset({"anger"})
BOTH = frozenset({"joy", "surprise"})
NONE: frozenset[str] = frozenset()
ALL = frozenset(LABELS)


def vote(
    members: list[frozenset[str]],
    readings: list[frozenset[str]] | None = None,
    tau: float = 0.5,
    judge_weight: float = 0.5,
) -> frozenset[str] | Verdict:
    """Return the emotions of one group's vote, or the verdict if it has no result."""
    judge = None if readings is None else encode_label_sets(readings, LABELS)[np.newaxis]
    outcome = consensus(
        encode_label_sets(members, LABELS)[np.newaxis],
        judge,
        num_labels=7,
        threshold=tau,
        judge_weight=judge_weight,
    )
    if outcome.verdicts[0] != Verdict.AGREED:
        return Verdict(outcome.verdicts[0])
    return frozenset(decode_label_set(int(outcome.masks[0]), LABELS))


@pytest.mark.parametrize(
    ("members", "readings", "expected"),
    [
        ([JOY, JOY, JOY, ANGER], None, JOY),
        ([JOY, JOY, ANGER, NONE], None, JOY),  # half of the votes reach a threshold of a half
        ([JOY, JOY, ANGER, ANGER], None, Verdict.TIED),
        ([JOY, ANGER, NONE, NONE], None, Verdict.EMPTY),
        ([NONE] * 4, None, Verdict.EMPTY),
        ([BOTH, BOTH, BOTH, JOY], None, BOTH),
        ([BOTH, BOTH, JOY, JOY], None, Verdict.TIED),  # exactly half of the votes name surprise
        ([ALL] * 4, None, Verdict.TIED),  # the whole label set excludes nothing
        ([JOY] * 4, [JOY, ANGER], JOY),
        ([JOY] * 4, [ANGER] * 2, Verdict.TIED),  # the group and the judge contradict each other
        ([ANGER, ANGER, JOY, NONE], [JOY, JOY], JOY),  # 0.25 to 0.625: the judge decides
        ([BOTH] * 4, [JOY] * 2, Verdict.TIED),  # no reading of the judge names surprise
        ([ALL - {"fear"}] * 4, [JOY] * 2, Verdict.TIED),  # no reading names all six emotions
    ],
)
def test_votes_by_hand(
    members: list[frozenset[str]],
    readings: list[frozenset[str]] | None,
    expected: frozenset[str] | Verdict,
) -> None:
    assert vote(members, readings) == expected


def test_a_share_equal_to_the_threshold_reaches_it_despite_rounding() -> None:
    assert vote([JOY, ANGER, BOTH], tau=2 / 3) == JOY
    assert vote([JOY, JOY, JOY], [JOY], tau=1.0, judge_weight=0.3) == JOY
    assert vote([BOTH] * 3, [BOTH], tau=1.0, judge_weight=0.3) == BOTH  # every voter names both


@given(
    groups(),
    st.lists(label_sets(), min_size=1, max_size=4) | st.none(),
    st.sampled_from([0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 1.0]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_votes_equal_the_plain_implementation(
    some_groups: list[list[frozenset[str]]],
    readings: list[frozenset[str]] | None,
    tau: float,
    judge_weight: float,
) -> None:
    for members in some_groups:
        outcome = vote(members, readings, tau, judge_weight)
        expected = plain_implementation.consensus(
            members, readings or (), LABELS, tau, judge_weight
        )
        assert (None if isinstance(outcome, Verdict) else outcome) == expected


@given(groups(count=1), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(
    one_group: list[list[frozenset[str]]], random: object
) -> None:
    shuffled = list(one_group[0])
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert vote(shuffled) == vote(one_group[0])


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_answers_of_one_label_never_give_a_consensus_of_several(
    names: list[str], tau: float
) -> None:
    outcome = vote([frozenset({n}) for n in names], tau=tau)
    assert isinstance(outcome, Verdict) or len(outcome) == 1


@given(groups(count=1), st.sampled_from([0.5, 0.6, 0.75]))
def test_one_more_vote_for_the_consensus_does_not_change_it(
    one_group: list[list[frozenset[str]]], tau: float
) -> None:
    outcome = vote(one_group[0], tau=tau)
    if not isinstance(outcome, Verdict):
        assert vote([*one_group[0], outcome], tau=tau) == outcome
