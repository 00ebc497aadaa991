"""How many groups of each emotion the balance cap leaves: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

#: Shares come from YAML as decimals; what is below this is the decimal's binary rounding.
_DENOMINATOR = 1_000_000


def balance_cap(counts: Mapping[str, int], max_share: float) -> int:
    """Return the largest number of groups that each emotion may keep (ours).

    Keeping ``min(n_e, cap)`` of every emotion e, no emotion is more than ``max_share`` of what is
    kept: ``cap <= max_share * sum_e min(n_e, cap)``. The right side minus the left is concave in
    the cap and 0 at 0, so that a bisection finds the largest cap that holds.

    Parameters
    ----------
    counts
        Groups by emotion before the cap.
    max_share
        Largest share of one emotion, over 0 and at most 1.

    Returns
    -------
    int
        0 where fewer than ``1 / max_share`` emotions are present: then no choice of groups holds
        the cap, and training on what there is would be the first step of collapse.
    """
    share = Fraction(round(max_share * _DENOMINATOR), _DENOMINATOR)

    def holds(cap: int) -> bool:
        return cap <= share * sum(min(count, cap) for count in counts.values())

    low, high = 0, max(counts.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
