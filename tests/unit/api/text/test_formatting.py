"""Durations and shares as text for people."""

from __future__ import annotations

import pytest

from selfemo_api.text.formatting import duration, share


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.23, "1.2 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"),
     (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations_have_the_largest_useful_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_share_of_nothing_is_0() -> None:
    assert share(1, 4) == 25.0
    assert share(0, 0) == 0.0
