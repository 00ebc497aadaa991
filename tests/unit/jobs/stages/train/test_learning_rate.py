"""The factor of the learning rate: it rises, and stays or falls, and is never 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.spec import OptimizerSpec, Schedule
from selfemo_jobs.stages.train.learning_rate import rate_factor


@given(
    steps=st.integers(1, 300),
    ratio=st.floats(0.0, 1.0),
    schedule=st.sampled_from(list(Schedule)),
)
def test_every_step_has_a_part_of_the_rate(steps: int, ratio: float, schedule: Schedule) -> None:
    factor = rate_factor(OptimizerSpec(warmup_ratio=ratio, schedule=schedule), steps)
    factors = [factor(step) for step in range(steps)]
    assert all(0.0 < value <= 1.0 for value in factors)
    assert max(factors) == pytest.approx(1.0)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factor(steps) >= 0.0  # the schedule is asked for the step after the last one too
