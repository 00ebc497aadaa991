"""Replay of earlier groups."""

from __future__ import annotations

from dataclasses import replace

import daft
from tests.unit.jobs.stages.flywheel.candidates import Group, table

from selfemo_jobs.stages.flywheel.group_table import summarize_groups
from selfemo_jobs.stages.flywheel.replay import choose_replay


def replay(
    earlier: list[Group], present: list[Group], quota: int, seed: int = 1, most_rows: int = 8
) -> list[str]:
    """Return the ids of the groups that are replayed."""
    old = summarize_groups(daft.from_arrow(table(earlier)))
    new = summarize_groups(daft.from_arrow(table(present))).select("group_id", "content")
    chosen = choose_replay(old, new, quota, seed, most_rows=most_rows)
    return list(chosen.to_pydict()["group_id"])


def test_replay_takes_the_newest_generation_first() -> None:
    earlier = [Group(f"o{i}", generation=1) for i in range(3)]
    earlier += [Group(f"n{i}", generation=2) for i in range(2)]
    assert sorted(replay(earlier, [Group("x")], 2)) == ["n0", "n1"]
    three = replay(earlier, [Group("x")], 3)
    assert {"n0", "n1"} < set(three)
    assert len(three) == 3


def test_replay_leaves_out_groups_that_are_present() -> None:
    same = Group("b", prompt=(1,), completions=((2,), (3,)))
    earlier = [Group("a"), same, Group("c")]
    present = [Group("a"), replace(same, id="z")]
    assert replay(earlier, present, 9) == ["c"]


def test_of_equal_earlier_groups_one_is_replayed() -> None:
    """Their own generation may have kept exact duplicates."""
    same = Group("b", prompt=(1,), completions=((2,), (3,)))
    assert sorted(replay([replace(same, id="c"), Group("a"), same], [Group("x")], 9)) == ["a", "b"]


def test_replay_leaves_out_groups_that_no_step_can_hold() -> None:
    """`training.batchSize` and `selfPlay.groupSize` were larger in an earlier generation."""
    earlier = [
        Group(f"g{size}", rewards=tuple(i / 10 for i in range(size))) for size in (2, 4, 5, 8)
    ]
    assert sorted(replay(earlier, [Group("x")], 9, most_rows=4)) == ["g2", "g4"]


def test_the_seed_selects_the_replayed_groups() -> None:
    earlier = [Group(f"o{i}") for i in range(12)]
    drawn = {tuple(sorted(replay(earlier, [Group("x")], 4, seed))) for seed in range(6)}
    assert len(drawn) > 1
    assert all(len(ids) == 4 for ids in drawn)
