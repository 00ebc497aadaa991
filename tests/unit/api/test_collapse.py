"""How far two label distributions are apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.collapse import divergence

pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any)] * 2,
        st.permutations(range(n)),
    )
)


def test_divergence_by_hand() -> None:
    assert divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)
    # middle (3/4, 1/4): (log2(4/3) + 1/2 log2(2/3) + 1/2 log2(2)) / 2
    assert divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(0.3112781244591328)


@given(pairs)
def test_divergence_is_bounded_symmetric_and_blind_to_order(
    drawn: tuple[list[int], list[int], list[int]],
) -> None:
    p, q = ([count / sum(counts) for count in counts] for counts in drawn[:2])
    order = drawn[2]
    value = divergence(p, q)
    assert 0.0 <= value <= 1.0
    assert divergence(p, p) == 0.0
    assert value == pytest.approx(divergence(q, p), abs=1e-12)
    moved = divergence([p[i] for i in order], [q[i] for i in order])
    assert value == pytest.approx(moved, abs=1e-12)
