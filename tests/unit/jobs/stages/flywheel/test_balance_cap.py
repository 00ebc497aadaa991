"""The balance cap, compared with a search over all caps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.stages.flywheel.balance_cap import balance_cap

COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 60), max_size=7)


@given(COUNTS, st.integers(1, 100))
def test_the_cap_is_the_largest_that_is_allowed(counts: dict[str, int], percent: int) -> None:
    def is_allowed(cap: int) -> bool:
        return 100 * cap <= percent * sum(min(n, cap) for n in counts.values())

    largest = max(counts.values(), default=0)
    expected = max(cap for cap in range(largest + 1) if is_allowed(cap))
    assert balance_cap(counts, percent / 100) == expected


@pytest.mark.parametrize(
    ("counts", "share", "cap"),
    [
        ({"a": 10, "b": 4}, 0.5, 4),
        ({"a": 10, "b": 4, "c": 3}, 0.5, 7),
        ({"a": 2, "b": 2, "c": 2}, 0.5, 2),
        ({"a": 10}, 1.0, 10),
        ({"a": 10}, 0.5, 0),
        ({"a": 9, "b": 9}, 1 / 3, 0),
        ({"a": 7, "b": 7, "c": 7, "d": 7, "e": 7, "f": 7, "g": 7}, 0.142858, 7),
        ({}, 0.5, 0),
    ],
)
def test_known_caps(counts: dict[str, int], share: float, cap: int) -> None:
    assert balance_cap(counts, share) == cap
