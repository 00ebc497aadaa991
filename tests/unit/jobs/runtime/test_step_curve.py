"""The stored curve: at most so many points, each the mean of its window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.runtime.step_curve import read_curve, thin_curve


@given(st.integers(1, 3000), st.integers(1, 600))
def test_the_curve_ends_at_the_last_step_and_keeps_the_mean(steps: int, limit: int) -> None:
    curve = thin_curve({"loss": [float(i) for i in range(steps)]}, limit)
    assert len(curve["step"]) == len(curve["loss"]) <= limit
    assert curve["step"] == sorted(set(curve["step"]))
    assert curve["step"][-1] == steps
    starts = [0, *curve["step"][:-1]]
    for start, end, loss in zip(starts, curve["step"], curve["loss"], strict=True):
        assert loss == pytest.approx((start + end - 1) / 2, rel=1e-5)


def test_short_curves_are_stored_as_they_are() -> None:
    curve = thin_curve({"loss": [0.5, 0.25], "kl": [0.0, 1e-9]})
    assert curve == {"step": [1, 2], "loss": [0.5, 0.25], "kl": [0.0, 1e-9]}


def test_no_step_has_no_curve() -> None:
    assert thin_curve({"loss": []}) == {}
    assert thin_curve({}) == {}
    assert read_curve({}) == {}
