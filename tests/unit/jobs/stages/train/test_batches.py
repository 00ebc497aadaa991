"""The order of training: whole groups, nothing lost, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.batches import PADDING, Shape, Step, plan_steps


@st.composite
def trainings(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int], Shape]:
    shape = Shape(0, draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    passes = draw(st.integers(1, 4))
    shape = Shape(
        passes * shape.micro_batch_size * shape.processes, shape.micro_batch_size, shape.processes
    )
    sizes = draw(st.lists(st.integers(1, shape.batch_size), max_size=20))
    groups, row = [], 0
    for size in sizes:
        groups.append(list(range(row, row + size)))
        row += size
    lengths = [draw(st.integers(1, 9)) for _ in groups]
    prompts = [lengths[i] for i, group in enumerate(groups) for _ in group]
    completions = draw(st.lists(st.integers(0, 5), min_size=row, max_size=row))
    return groups, prompts, completions, shape


def rows_of(step: Step) -> list[int]:
    return [r for process in step.passes for p in process for r in p if r != PADDING]


@given(trainings(), st.integers(1, 3), st.integers(0, 5))
def test_each_epoch_has_every_row_once_in_whole_groups(
    training: tuple[list[list[int]], list[int], list[int], Shape], epochs: int, seed: int
) -> None:
    groups, prompts, completions, shape = training
    steps = plan_steps(groups, prompts, completions, shape, epochs=epochs, seed=seed)
    for epoch in range(epochs):
        rows = [r for s in steps if s.epoch == epoch for r in rows_of(s)]
        assert sorted(rows) == sorted(r for g in groups for r in g)
    for step in steps:
        assert len(step.passes) == shape.processes
        assert all(len(p) == shape.passes for p in step.passes)
        assert all(len(rows) == shape.micro_batch_size for p in step.passes for rows in p)
        found = set(rows_of(step))
        assert all(found.issuperset(g) or found.isdisjoint(g) for g in groups)
        assert step.tokens == sum(completions[r] for r in found)
    assert steps == plan_steps(groups, prompts, completions, shape, epochs=epochs, seed=seed)


def test_answers_are_counted_apart() -> None:
    (step,) = plan_steps(
        [[0, 1, 2]], [5] * 3, [2, 3, 4], Shape(4, 4, 1), epochs=1, seed=0, imitated={2}
    )
    assert (step.tokens, step.answers) == (5, 4)


def test_the_steps_do_not_depend_on_the_number_of_processes() -> None:
    groups = [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(7)]
    lengths = [i // 4 + 1 for i in range(28)]
    one, two = (
        plan_steps(groups, lengths, lengths, Shape(8, 2, processes), epochs=2, seed=1)
        for processes in (1, 2)
    )
    assert [sorted(rows_of(s)) for s in one] == [sorted(rows_of(s)) for s in two]
    assert [s.tokens for s in one] == [s.tokens for s in two]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    groups = [[i] for i in range(50)]
    ones = [1] * 50
    steps = plan_steps(groups, ones, ones, Shape(5, 5, 1), epochs=2, seed=0)
    other = plan_steps(groups, ones, ones, Shape(5, 5, 1), epochs=2, seed=1)
    assert [sorted(rows_of(s)) for s in steps[:10]] != [sorted(rows_of(s)) for s in steps[10:]]
    assert steps != other


def test_max_steps_ends_it() -> None:
    groups, ones = [[i] for i in range(20)], [1] * 20
    assert len(plan_steps(groups, ones, ones, Shape(4, 4, 1), epochs=3, seed=0, max_steps=7)) == 7


def test_a_pass_holds_members_of_one_group() -> None:
    groups = [[4 * i + j for j in range(4)] for i in range(6)]
    prompts = [10 - r // 4 for r in range(24)]
    (step,) = plan_steps(groups, prompts, [1] * 24, Shape(24, 4, 2), epochs=1, seed=3)
    for process in step.passes:
        for rows in process:
            assert len({r // 4 for r in rows}) == 1
    neighbors = [abs(a[0] // 4 - b[0] // 4) for a, b in zip(*step.passes, strict=True)]
    assert neighbors == [1, 1, 1]  # the longest with the next longest


def test_a_group_larger_than_a_step_is_refused() -> None:
    with pytest.raises(BadInput, match="batchSize"):
        plan_steps([[0, 1, 2]], [1] * 3, [1] * 3, Shape(2, 2, 1), epochs=1, seed=0)
