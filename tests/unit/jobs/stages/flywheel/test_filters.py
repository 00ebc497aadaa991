"""Each filter by hand, and properties of the filters on any table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import daft
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.jobs.stages.flywheel.candidates import RECOGNIZER, RESPONDER, Group, table

from selfemo_api.spec import FlywheelSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.flywheel.filters import Selection, select_groups
from selfemo_jobs.stages.flywheel.group_table import summarize_groups

#: Settings with which every filter lets all groups pass; a test changes those that it is about.
OPEN: dict[str, Any] = {
    "minReward": -2.0,
    "consistency": {"min": 0.0, "max": 1.0},
    "maxShare": 1.0,
    "deduplicate": {"exact": False, "near": False},
}


def select(
    groups: Sequence[Group],
    seed: int = 1,
    *,
    label_prior: dict[str, float] | None = None,
    imitation: bool = False,
    **changes: Any,
) -> Selection:
    spec = FlywheelSpec.model_validate({**OPEN, **changes})
    rows = daft.from_arrow(table(groups))
    return select_from(rows, spec, seed, label_prior=label_prior, imitation=imitation)


def select_from(rows: daft.DataFrame, spec: FlywheelSpec, seed: int, **more: Any) -> Selection:
    return select_groups(summarize_groups(rows), rows, spec, seed, **more)


def kept(groups: Sequence[Group], seed: int = 1, **changes: Any) -> list[str]:
    return sorted(select(groups, seed, **changes).groups.to_pydict()["group_id"])


def test_zero_variance_filter_drops_groups_without_variance_or_consensus() -> None:
    groups = [
        Group("a"),
        Group("b", rewards=(0.5, 0.5)),
        Group("c", rewards=(0.9, 0.1), advantages=(0.0, 0.0)),
        Group("d", label=None),
    ]
    selection = select(groups)
    assert selection.groups.to_pydict()["group_id"] == ["a"]
    assert selection.total_groups == 4
    assert selection.total_rows == 8
    assert selection.funnel[0] == {
        "filter": "zeroVariance",
        "before": 4,
        "after": 1,
        "rowsBefore": 8,
        "rowsAfter": 2,
    }


def test_with_imitation_a_recognizer_group_needs_no_variance() -> None:
    flat = (0.5, 0.5)
    groups = [
        Group("a", rewards=flat),
        Group("b", RESPONDER, rewards=flat),
        Group("c", rewards=flat, label=None),
    ]
    assert kept(groups) == []
    assert kept(groups, imitation=True) == ["a"]


def test_groups_with_gold_labels_pass_the_filters_of_reliability() -> None:
    unreliable = {"rewards": (0.2, 0.1), "consistency": 0.1, "confidence": 0.2}
    groups = [Group("a", **unreliable), Group("b", **unreliable, gold=("joy",))]
    assert kept(groups, minReward=0.3, consistency={"min": 0.3, "max": 1.0}) == ["b"]
    assert kept([*groups, Group("c")], keep=0.5) == ["b", "c"]


def test_keep_share_filter_keeps_the_most_reliable_groups_of_each_emotion() -> None:
    groups = [
        Group("a", confidence=0.9),
        Group("b", confidence=1.0),
        Group("c", confidence=1.0, consistency=0.7),
        Group("d", label="fear", confidence=0.5),
        Group("e", RESPONDER, confidence=0.5),
        Group("f", RESPONDER, confidence=0.5, consistency=0.7),
    ]
    assert kept(groups, keep=0.34) == ["a", "b", "d", "e"]
    assert kept(groups, keep=0.33) == ["b", "d", "e"]
    assert kept(groups, keep=0.5) == ["a", "b", "d", "e"]


def test_a_share_that_is_a_whole_number_of_groups_is_not_rounded_up() -> None:
    groups = [Group(f"g{i:02d}", confidence=1.0 - i / 100) for i in range(25)]
    assert 0.28 * 25 > 7  # by the rounding of floating-point numbers
    assert kept(groups, keep=0.28) == [f"g{i:02d}" for i in range(7)]


@pytest.mark.parametrize("rewards", [(0.9, 0.5), (-0.2, -0.6)])
def test_each_part_of_reliability_raises_the_rank_whatever_the_sign_of_the_reward(
    rewards: tuple[float, float],
) -> None:
    base = Group("base", rewards=rewards, confidence=0.5, consistency=0.5)
    worse = [
        replace(base, id="confidence", confidence=0.4),
        replace(base, id="consistency", consistency=0.0),
        replace(base, id="reward", rewards=(rewards[0] - 0.1, rewards[1] - 0.1)),
    ]
    for group in worse:
        assert kept([base, group], keep=0.5) == ["base"]


def test_keep_share_may_refer_to_the_groups_expected_by_the_label_prior() -> None:
    groups = [Group(f"j{i}", confidence=1.0 - i / 20) for i in range(6)]
    groups += [Group(f"f{i}", label="fear", confidence=0.5 - i / 20) for i in range(4)]
    groups += [Group("r", RESPONDER), Group("s", RESPONDER, confidence=0.5)]
    groups += [Group("x", label="joy", gold=("joy",))]
    prior = {"joy": 0.3, "fear": 0.7}
    # of ten groups without gold: 0.5 * 3 rounded up, and 0.5 * 7 of which there are four
    assert kept(groups, keep=0.5, label_prior=prior) == [
        *("f0", "f1", "f2", "f3", "j0", "j1", "r", "x")
    ]
    assert kept(groups, keep=1.0, label_prior=prior) == [
        *("f0", "f1", "f2", "f3", "j0", "j1", "j2", "r", "s", "x")
    ]


def test_groups_with_several_emotions_are_ranked_among_those_of_their_set() -> None:
    both = ("joy", "surprise")
    groups = [Group(f"j{i}", confidence=1.0 - i / 20) for i in range(4)]
    groups += [Group(f"b{i}", label=both, confidence=0.5 - i / 20) for i in range(2)]
    # half of each set, although each group of two emotions is less reliable than all others
    assert kept(groups, keep=0.5) == ["b0", "j0", "j1"]


def test_a_group_with_several_emotions_counts_for_each_of_their_quotas() -> None:
    both = ("joy", "surprise")
    groups = [Group(f"b{i}", label=both, confidence=0.9 - i / 20) for i in range(3)]
    groups += [Group(f"j{i}", confidence=0.8 - i / 20) for i in range(2)]
    groups += [Group(f"f{i}", label="fear", confidence=0.7 - i / 20) for i in range(2)]
    groups += [Group("x", label=both, gold=both), Group("r", RESPONDER, label=both)]
    # 7 groups without gold have 10 labels: joy keeps at most 3, surprise 2, fear 5
    prior = {"joy": 0.3, "surprise": 0.2, "fear": 0.5}
    assert kept(groups, label_prior=prior) == ["b0", "b1", "f0", "f1", "j0", "r", "x"]
    # half of that: joy 2, surprise 1, fear 3; the responder's quota is of the groups present
    assert kept(groups, keep=0.5, label_prior=prior) == ["b0", "f0", "f1", "j0", "r", "x"]


def test_the_balance_cap_counts_every_emotion_of_a_group() -> None:
    groups = [Group(f"n{i}", label="neutral", confidence=1.0 - i / 20) for i in range(6)]
    groups += [Group("a", label=("neutral", "fear")), Group("b", label=("neutral", "joy"))]
    groups += [Group("c", label=("joy", "fear"))]
    selection = select(groups, maxShare=0.5)
    # neutral 4, joy 2, fear 2
    assert sorted(selection.groups.to_pydict()["group_id"]) == ["a", "b", "c", "n0", "n1"]
    assert selection.caps == {RECOGNIZER: 4}


def test_the_funnel_has_an_entry_for_every_filter_in_order() -> None:
    funnel = select([Group("a")]).funnel
    assert [line["filter"] for line in funnel] == [
        "zeroVariance",
        "consistency",
        "minReward",
        "exactDuplicates",
        "nearDuplicates",
        "keep",
        "balance",
    ]
    assert all(line["after"] == 1 for line in funnel)


@pytest.mark.parametrize(
    ("consistency", "stays"), [(0.29, False), (0.3, True), (0.8, True), (0.81, False)]
)
def test_both_bounds_belong_to_the_consistency_band(consistency: float, stays: bool) -> None:
    group = Group("a", consistency=consistency)
    assert kept([group], consistency={"min": 0.3, "max": 0.8}) == ["a"] * stays


@pytest.mark.parametrize(
    ("rewards", "stays"),
    [((0.2, 0.4), True), ((0.1, 0.2, 0.6), True), ((0.2, 0.39), False), ((-1.0, 1.0), False)],
)
def test_a_mean_reward_equal_to_the_threshold_passes(
    rewards: tuple[float, ...], stays: bool
) -> None:
    assert kept([Group("a", rewards=rewards)], minReward=0.3) == ["a"] * stays


def test_exact_duplicates_have_equal_role_prompt_and_completions_in_any_order() -> None:
    base = Group("b", prompt=(1, 2), completions=((3,), (4, 4)))
    groups = [
        replace(base, id="c", completions=((4, 4), (3,))),  # equal, with the members swapped
        base,
        replace(base, id="d", role=RESPONDER),
        replace(base, id="e", prompt=(1, 2, 3)),
        replace(base, id="f", completions=((3,), (3,))),
        replace(base, id="g", completions=((4,), (4, 3))),
    ]
    exact = {"exact": True, "near": False}
    assert kept(groups, deduplicate=exact) == ["b", "d", "e", "f", "g"]
    assert len(kept(groups)) == 6


@pytest.mark.parametrize("ids", [("a", "b", "c", "d", "e"), ("e", "d", "c", "b", "a")])
def test_of_exact_duplicates_all_gold_labels_stay_whatever_the_sources_are_called(
    ids: tuple[str, ...],
) -> None:
    base = Group("", prompt=(1, 2), completions=((3,), (4, 4)))
    labels = [("neutral", None), ("anger", ("anger",)), ("joy", ("joy",)), ("joy", ("joy",))]
    groups = [
        replace(base, id=name, label=label, gold=gold)
        for name, (label, gold) in zip(ids, labels, strict=False)
    ]
    groups += [replace(base, id=ids[4], role=RESPONDER)]
    exact = {"exact": True, "near": False}
    assert kept(groups, deduplicate=exact) == sorted([ids[1], min(ids[2], ids[3]), ids[4]])


def test_near_duplicate_filter_compares_only_the_best_responses() -> None:
    response = "I never thought that it would come to this between the two of us"
    groups = [
        Group("a", RESPONDER, texts=(response, "Something else entirely, friend.")),
        Group("b", RESPONDER, texts=(response + "!", "What is this all about now?")),
        Group("c", RESPONDER, rewards=(0.5, 0.9), texts=(response, "My own words, not yours.")),
        Group("d", RESPONDER, rewards=(0.9, 0.9, 0.1), texts=("Mine.", response, response)),
        Group("e", RECOGNIZER, texts=(response, response)),
    ]
    assert kept(groups, deduplicate={"exact": False, "near": True}) == ["a", "c", "d", "e"]


def test_balance_filter_keeps_the_most_reliable_groups_of_each_emotion() -> None:
    groups = [
        Group("a", label="joy", consistency=0.5),
        Group("b", label="joy", consistency=0.9),
        Group("c", label="joy", consistency=0.9, rewards=(0.9, 0.8)),
        Group("d", label="fear", consistency=0.1),
        Group("e", label="anger", consistency=0.1),
        Group("f", RESPONDER, label="joy"),
        Group("g", RESPONDER, label="fear"),
    ]
    selection = select(groups, maxShare=0.5)
    assert sorted(selection.groups.to_pydict()["group_id"]) == ["b", "c", "d", "e", "f", "g"]
    assert selection.caps == {RECOGNIZER: 2, RESPONDER: 1}


def test_the_seed_orders_groups_of_equal_reliability() -> None:
    groups = [Group(f"j{i}") for i in range(8)] + [Group(f"f{i}", label="fear") for i in range(2)]
    chosen = {seed: kept(groups, seed, maxShare=0.5) for seed in range(6)}
    assert all(len(ids) == 4 for ids in chosen.values())
    assert len({tuple(ids) for ids in chosen.values()}) > 1


def test_a_role_with_a_single_emotion_is_dropped() -> None:
    groups = [Group("a"), Group("b"), Group("c", RESPONDER), Group("d", RESPONDER, label="fear")]
    selection = select(groups, maxShare=0.5)
    assert sorted(selection.groups.to_pydict()["group_id"]) == ["c", "d"]
    assert selection.caps == {RECOGNIZER: 0, RESPONDER: 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_raises_with_the_group(value: float) -> None:
    broken = Group("b", rewards=(value, 0.1), advantages=(0.5, -0.5))
    with pytest.raises(BadInput, match="group b: a reward"):
        select([Group("a"), broken])


def test_without_rows_nothing_is_selected() -> None:
    selection = select([])
    assert selection.groups.count_rows() == 0
    assert (selection.total_groups, selection.total_rows) == (0, 0)
    assert all(line["after"] == 0 for line in selection.funnel)


WORDS = ("I am so glad", "that you came", "to see us here", "not today", "please", "never again")
GROUPS = st.lists(
    st.builds(
        Group,
        id=st.text("abcdef0123456789", min_size=1, max_size=6),
        role=st.sampled_from([RECOGNIZER, RESPONDER]),
        label=st.sampled_from(
            ["joy", "joy", "joy", "fear", "anger", None, ("joy", "fear"), ("joy", "anger")]
        ),
        rewards=st.lists(st.sampled_from([-0.5, 0.2, 0.3, 0.9]), min_size=2, max_size=3).map(tuple),
        consistency=st.sampled_from([0.1, 0.3, 0.5, 0.9]),
        prompt=st.one_of(st.none(), st.just((1, 2))),
        completions=st.one_of(st.none(), st.just(((1,), (2,), (3,)))),
        texts=st.lists(st.sampled_from(WORDS), min_size=4, max_size=4).map(
            lambda words: tuple(" ".join(words[i:] + words[:i]) for i in range(3))
        ),
    ),
    max_size=24,
    unique_by=lambda group: group.id,
)


def expected_groups(groups: Sequence[Group], spec: FlywheelSpec) -> list[Group]:
    """Return what filters 1 to 4 keep, in plain Python."""
    left = []
    contents = set()
    for group in sorted(groups, key=lambda g: g.id):
        content = (
            group.role,
            str(group.prompt or group.id),
            str(sorted(str(row["completion_ids"]) for row in group.rows())),
        )
        if (
            group.label is None
            or len(set(group.rewards)) == 1
            or not spec.consistency.min <= group.consistency <= spec.consistency.max
            or round(sum(group.rewards), 6) < round(spec.min_reward * len(group.rewards), 6)
            or content in contents
        ):
            continue
        contents.add(content)
        left.append(group)
    return left


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.randoms(use_true_random=False))
def test_the_first_four_filters_equal_a_plain_implementation(
    groups: list[Group], order: random.Random
) -> None:
    changes = {
        "minReward": 0.3,
        "consistency": {"min": 0.3, "max": 0.8},
        "deduplicate": {"exact": True, "near": False},
    }
    spec = FlywheelSpec.model_validate({**OPEN, **changes})
    shuffled = order.sample(groups, len(groups))
    assert kept(shuffled, **changes) == [g.id for g in expected_groups(groups, spec)]


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.randoms(use_true_random=False), st.sampled_from([0.4, 0.5, 0.75]))
def test_properties_of_all_filters_on_any_table(
    groups: list[Group], order: random.Random, share: float
) -> None:
    rows = [row for group in groups for row in group.rows()]
    order.shuffle(rows)
    spec = FlywheelSpec(max_share=share)
    plain = select_from(daft.from_arrow(table(groups)), spec, 3)
    mixed = pa.Table.from_pylist(rows, schema=SCORED)
    selection = select_from(daft.from_arrow(mixed), spec, 3)
    ids = sorted(selection.groups.to_pydict()["group_id"])
    assert ids == sorted(plain.groups.to_pydict()["group_id"])
    assert selection.funnel == plain.funnel
    by_id = {group.id: group for group in groups}
    left = [by_id[i] for i in ids]
    for role in (RECOGNIZER, RESPONDER):
        counts = Counter(name for g in left if g.role == role for name in g.emotions)
        assert all(n <= share * counts.total() + 1e-9 for n in counts.values())
    again = select_from(daft.from_arrow(table(left)), spec, 3)
    assert sorted(again.groups.to_pydict()["group_id"]) == ids
    befores = [line["before"] for line in selection.funnel]
    afters = [line["after"] for line in selection.funnel]
    assert befores == [len(groups), *afters[:-1]]
