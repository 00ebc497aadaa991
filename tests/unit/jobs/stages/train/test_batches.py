"""The steps of a training: whole groups, all rows, equal for equal seeds."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.batches import PADDING, BatchShape, TrainingStep, plan_steps


@st.composite
def trainings(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int], BatchShape]:
    shape = BatchShape(0, draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    accumulation = draw(st.integers(1, 4))
    shape = BatchShape(
        accumulation * shape.micro_batch_size * shape.processes,
        shape.micro_batch_size,
        shape.processes,
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


def rows_of(step: TrainingStep) -> list[int]:
    return [r for share in step.micro_batches for batch in share for r in batch if r != PADDING]


@given(trainings(), st.integers(1, 3), st.integers(0, 5))
def test_each_epoch_has_every_row_once_in_whole_groups(
    training: tuple[list[list[int]], list[int], list[int], BatchShape], epochs: int, seed: int
) -> None:
    groups, prompts, completions, shape = training
    steps = plan_steps(groups, prompts, completions, shape, epochs=epochs, seed=seed)
    for epoch in range(epochs):
        rows = [r for s in steps if s.epoch == epoch for r in rows_of(s)]
        assert sorted(rows) == sorted(r for g in groups for r in g)
    for step in steps:
        assert len(step.micro_batches) == shape.processes
        assert all(len(share) == shape.gradient_accumulation_steps for share in step.micro_batches)
        assert all(
            len(batch) == shape.micro_batch_size for share in step.micro_batches for batch in share
        )
        rows_of_step = set(rows_of(step))
        assert all(rows_of_step.issuperset(g) or rows_of_step.isdisjoint(g) for g in groups)
        assert step.sampled_tokens == sum(completions[r] for r in rows_of_step)
    again = plan_steps(groups, prompts, completions, shape, epochs=epochs, seed=seed)
    assert [*steps] == [*again]
    assert steps[1:3] == [*steps][1:3]


def test_tokens_of_imitated_answers_are_counted_separately() -> None:
    (step,) = plan_steps(
        [[0, 1, 2]], [5] * 3, [2, 3, 4], BatchShape(4, 4, 1), epochs=1, seed=0, imitated={2}
    )
    assert (step.sampled_tokens, step.imitated_tokens) == (5, 4)


def test_tokens_of_turns_that_were_said_are_counted_separately() -> None:
    (step,) = plan_steps(
        [[0, 1, 2], [3]], [5] * 4, [2, 3, 4, 9], BatchShape(4, 4, 1),
        epochs=1, seed=0, imitated={2, 3}, responses={3},
    )  # fmt: skip
    assert (step.sampled_tokens, step.imitated_tokens, step.response_tokens) == (5, 4, 9)


def test_the_steps_do_not_depend_on_the_number_of_processes() -> None:
    groups = [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(7)]
    lengths = [i // 4 + 1 for i in range(28)]
    one, two = (
        plan_steps(groups, lengths, lengths, BatchShape(8, 2, processes), epochs=2, seed=1)
        for processes in (1, 2)
    )
    assert [sorted(rows_of(s)) for s in one] == [sorted(rows_of(s)) for s in two]
    assert [s.sampled_tokens for s in one] == [s.sampled_tokens for s in two]


def test_each_epoch_and_each_seed_has_another_order() -> None:
    groups = [[i] for i in range(50)]
    ones = [1] * 50
    steps = plan_steps(groups, ones, ones, BatchShape(5, 5, 1), epochs=2, seed=0)
    other = plan_steps(groups, ones, ones, BatchShape(5, 5, 1), epochs=2, seed=1)
    assert [sorted(rows_of(s)) for s in steps[:10]] != [sorted(rows_of(s)) for s in steps[10:]]
    assert [*steps] != [*other]


def test_max_steps_limits_the_number_of_steps() -> None:
    groups, ones, shape = [[i] for i in range(20)], [1] * 20, BatchShape(4, 4, 1)
    whole = plan_steps(groups, ones, ones, shape, epochs=3, seed=0)
    assert len(whole) == 15
    for most in (0, 5, 7, 15, 20):
        steps = plan_steps(groups, ones, ones, shape, epochs=3, seed=0, max_steps=most)
        assert [*steps] == [*whole][:most]


def test_a_plan_holds_the_order_of_its_groups_and_makes_a_step_when_it_is_taken() -> None:
    groups = [range(8 * i, 8 * i + 8) for i in range(2_000)]
    ones = np.ones(16_000, np.int64)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    steps = plan_steps(groups, ones, ones, BatchShape(64, 8, 1), epochs=10, seed=0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(steps) == 2_500
    assert after - before < 12 * 2_000 * 10, "8 bytes for each group of each epoch, and the steps"


def test_a_micro_batch_has_members_of_one_group() -> None:
    groups = [[4 * i + j for j in range(4)] for i in range(6)]
    prompts = [10 - r // 4 for r in range(24)]
    (step,) = plan_steps(groups, prompts, [1] * 24, BatchShape(24, 4, 2), epochs=1, seed=3)
    for share in step.micro_batches:
        for rows in share:
            assert len({r // 4 for r in rows}) == 1
    neighbors = [abs(a[0] // 4 - b[0] // 4) for a, b in zip(*step.micro_batches, strict=True)]
    assert neighbors == [
        1,
        1,
        1,
    ]  # the longest prompt beside the next longest


def test_a_group_larger_than_a_step_is_refused() -> None:
    with pytest.raises(BadInput, match="batchSize"):
        plan_steps([[0, 1, 2]], [1] * 3, [1] * 3, BatchShape(2, 2, 1), epochs=1, seed=0)
