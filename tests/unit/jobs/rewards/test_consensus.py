from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.jobs.rewards.strategies import LABELS, groups, label_sets

from selfemo_jobs.rewards import Verdict, consensus, decode, encode, plain_implementation

JOY, ANGER = frozenset({"joy"}), frozenset({"anger"})
BOTH = frozenset({"joy", "surprise"})
NONE: frozenset[str] = frozenset()
ALL = frozenset(LABELS)


def vote(
    members: list[frozenset[str]],
    readings: list[frozenset[str]] | None = None,
    tau: float = 0.5,
    weight: float = 0.5,
) -> frozenset[str] | Verdict:
    judge = None if readings is None else encode(readings, LABELS)[np.newaxis]
    found = consensus(
        encode(members, LABELS)[np.newaxis], judge, size=7, threshold=tau, weight=weight
    )
    if found.verdicts[0] != Verdict.AGREED:
        return Verdict(found.verdicts[0])
    return frozenset(decode(int(found.masks[0]), LABELS))


@pytest.mark.parametrize(
    ("members", "readings", "expected"),
    [
        ([JOY, JOY, JOY, ANGER], None, JOY),
        ([JOY, JOY, ANGER, NONE], None, JOY),  # half of the votes reach a threshold of a half
        ([JOY, JOY, ANGER, ANGER], None, Verdict.TIED),
        ([JOY, ANGER, NONE, NONE], None, Verdict.EMPTY),
        ([NONE] * 4, None, Verdict.EMPTY),
        ([BOTH, BOTH, BOTH, JOY], None, BOTH),
        ([BOTH, BOTH, JOY, JOY], None, Verdict.TIED),  # surprise hangs on exactly half
        ([ALL] * 4, None, Verdict.TIED),  # every emotion at once says nothing
        ([JOY] * 4, [JOY, ANGER], JOY),
        ([JOY] * 4, [ANGER] * 2, Verdict.TIED),  # the group and the judge contradict each other
        ([ANGER, ANGER, JOY, NONE], [JOY, JOY], JOY),  # 0.25 to 0.625: the judge decides
        ([BOTH] * 4, [JOY] * 2, Verdict.TIED),  # the judge has never heard of surprise
        ([ALL - {"fear"}] * 4, [JOY] * 2, Verdict.TIED),  # nor of six emotions at once
    ],
)
def test_by_hand(
    members: list[frozenset[str]],
    readings: list[frozenset[str]] | None,
    expected: frozenset[str] | Verdict,
) -> None:
    assert vote(members, readings) == expected


def test_a_threshold_of_thirds_is_reached_by_thirds() -> None:
    assert vote([JOY, ANGER, BOTH], tau=2 / 3) == JOY
    assert vote([JOY, JOY, JOY], [JOY], tau=1.0, weight=0.3) == JOY
    assert vote([BOTH] * 3, [BOTH], tau=1.0, weight=0.3) == BOTH  # everybody names both


@given(
    groups(),
    st.lists(label_sets(), min_size=1, max_size=4) | st.none(),
    st.sampled_from([0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 1.0]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_votes_are_the_reference(
    found: list[list[frozenset[str]]],
    readings: list[frozenset[str]] | None,
    tau: float,
    weight: float,
) -> None:
    for members in found:
        outcome = vote(members, readings, tau, weight)
        expected = plain_implementation.consensus(members, readings or (), LABELS, tau, weight)
        assert (None if isinstance(outcome, Verdict) else outcome) == expected


@given(groups(count=1), st.randoms(use_true_random=False))
def test_the_order_of_members_is_nothing(found: list[list[frozenset[str]]], random: object) -> None:
    mixed = list(found[0])
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert vote(mixed) == vote(found[0])


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_single_answers_never_make_a_consensus_of_several(names: list[str], tau: float) -> None:
    outcome = vote([frozenset({n}) for n in names], tau=tau)
    assert isinstance(outcome, Verdict) or len(outcome) == 1


@given(groups(count=1), st.sampled_from([0.5, 0.6, 0.75]))
def test_more_votes_for_the_consensus_keep_it(
    found: list[list[frozenset[str]]], tau: float
) -> None:
    outcome = vote(found[0], tau=tau)
    if not isinstance(outcome, Verdict):
        assert vote([*found[0], outcome], tau=tau) == outcome
