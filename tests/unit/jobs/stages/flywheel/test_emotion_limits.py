"""Limits on groups that may have several emotions: by hand, and properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.stages.flywheel.balance_cap import balance_cap
from selfemo_jobs.stages.flywheel.emotion_limits import (
    EmotionSet,
    RankedGroup,
    RankedGroups,
    count_emotions,
    within_limits,
    within_share,
)

LABELS = ("neutral", "joy", "surprise", "fear")


def ranked(*sets: EmotionSet) -> list[RankedGroup]:
    """Return a group for each set; of equal sets the first ranks highest."""
    seen: Counter[EmotionSet] = Counter()
    groups = []
    for index, emotions in enumerate(sets):
        seen[emotions] += 1
        groups.append(RankedGroup(emotions, seen[emotions], 0, f"g{index:03d}"))
    return groups


def kept_of(groups: Sequence[RankedGroup], stays: Sequence[bool]) -> dict[str, int]:
    return count_emotions(Counter(g.emotions for g, s in zip(groups, stays, strict=True) if s))


SETS = st.lists(
    st.frozensets(st.sampled_from(LABELS), min_size=1, max_size=3).map(
        lambda names: tuple(label for label in LABELS if label in names)
    ),
    max_size=40,
)
SINGLES = st.lists(st.sampled_from(LABELS).map(lambda label: (label,)), max_size=40)


def test_a_frequent_emotion_does_not_crowd_out_a_rare_one_beside_it() -> None:
    groups = ranked(*[("neutral",)] * 5, *[("neutral", "fear")] * 2, ("joy",))
    stays = within_limits(RankedGroups.of(groups), {"neutral": 3, "joy": 3, "fear": 3})
    assert kept_of(groups, stays.tolist()) == {"neutral": 3, "fear": 2, "joy": 1}
    assert stays.tolist() == [True, False, False, False, False, True, True, True]


def test_sets_with_the_same_rarest_emotion_lose_the_same_share() -> None:
    groups = ranked(*[("joy",)] * 8, *[("joy", "surprise")] * 8, *[("surprise",)] * 24)
    stays = within_limits(RankedGroups.of(groups), {"joy": 8, "surprise": 40})
    kept = Counter(g.emotions for g, s in zip(groups, stays, strict=True) if s)
    assert kept == {("joy",): 4, ("joy", "surprise"): 4, ("surprise",): 24}


def test_an_emotion_without_a_limit_keeps_its_groups() -> None:
    groups = ranked(("joy",), ("fear",), ("fear",))
    assert within_limits(RankedGroups.of(groups), {"fear": 0}).tolist() == [True, False, False]


@given(SETS, st.dictionaries(st.sampled_from(LABELS), st.integers(0, 20)))
def test_no_emotion_exceeds_its_limit_and_no_group_is_dropped_without_need(
    sets: list[EmotionSet], limits: dict[str, int]
) -> None:
    groups = ranked(*sets)
    stays = within_limits(RankedGroups.of(groups), limits)
    kept = kept_of(groups, stays.tolist())
    assert all(kept.get(emotion, 0) <= limit for emotion, limit in limits.items())
    for group, stay in zip(groups, stays, strict=True):
        full = [e for e in group.emotions if e in limits and kept.get(e, 0) == limits[e]]
        assert stay or full
    for group, stay in zip(groups, stays, strict=True):
        better = [
            s
            for other, s in zip(groups, stays, strict=True)
            if other.emotions == group.emotions and other.rank < group.rank
        ]
        assert not stay or all(better)  # of a set the groups that rank highest stay


@given(SINGLES, st.integers(0, 20))
def test_with_one_emotion_each_the_limit_is_a_rank(sets: list[EmotionSet], limit: int) -> None:
    groups = ranked(*sets)
    stays = within_limits(RankedGroups.of(groups), dict.fromkeys(LABELS, limit))
    assert stays.tolist() == [group.rank <= limit for group in groups]


@given(SETS, st.sampled_from([0.25, 0.3, 0.4, 0.5, 0.75, 1.0]))
def test_no_emotion_has_more_than_its_share(sets: list[EmotionSet], share: float) -> None:
    groups = ranked(*sets)
    stays, cap = within_share(RankedGroups.of(groups), share)
    kept = kept_of(groups, stays.tolist())
    total = sum(kept.values())
    assert all(n <= share * total + 1e-9 and n <= cap for n in kept.values())
    if share == 1.0:
        assert stays.all()


@given(SINGLES, st.sampled_from([0.25, 0.3, 0.4, 0.5, 0.75, 1.0]))
def test_with_one_emotion_each_the_cap_is_the_balance_cap(
    sets: list[EmotionSet], share: float
) -> None:
    groups = ranked(*sets)
    stays, cap = within_share(RankedGroups.of(groups), share)
    assert cap == balance_cap(Counter(emotion for (emotion,) in sets), share)
    assert stays.tolist() == [group.rank <= cap for group in groups]


@given(SETS, st.randoms(use_true_random=False), st.sampled_from([0.3, 0.5]))
def test_the_order_of_the_groups_does_not_matter(
    sets: list[EmotionSet], random: object, share: float
) -> None:
    groups = ranked(*sets)
    shuffled = list(groups)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def ids(members: list[RankedGroup]) -> list[str]:
        stays, _ = within_share(RankedGroups.of(members), share)
        return sorted(g.group_id for g, s in zip(members, stays, strict=True) if s)

    assert ids(shuffled) == ids(groups)
