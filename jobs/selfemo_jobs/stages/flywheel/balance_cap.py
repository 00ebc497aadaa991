"""The balance cap: how many groups of each emotion may stay. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

#: Shares are written as decimals in YAML. Rounding to millionths removes their binary rounding.
_DENOMINATOR = 1_000_000


def exact_share(share: float) -> Fraction:
    """Return a share as the decimal that a user wrote.

    Parameters
    ----------
    share
        The share, from 0 to 1.

    Examples
    --------
    >>> exact_share(0.3)
    Fraction(3, 10)
    """
    return Fraction(round(share * _DENOMINATOR), _DENOMINATOR)


def balance_cap(counts: Mapping[str, int], max_share: float) -> int:
    """Return the largest number of groups that each emotion may keep.

    If ``min(n_e, cap)`` groups of every emotion e stay, no emotion has more than ``max_share`` of
    them: ``cap <= max_share * sum_e min(n_e, cap)``. The right side minus the left side is concave
    in the cap and 0 at 0. A bisection therefore finds the largest cap for which the condition is
    true.

    Parameters
    ----------
    counts
        Number of groups that have each emotion, before the cap.
    max_share
        Largest share of one emotion, above 0 and at most 1.

    Returns
    -------
    int
        The cap. It is 0 if fewer than ``1 / max_share`` emotions are present. No choice of groups
        then satisfies the condition, and training on the few emotions that are present would be
        the first step of a collapse.

    Notes
    -----
    Ours.

    Examples
    --------
    >>> balance_cap({"neutral": 10, "joy": 4, "anger": 3}, max_share=0.5)
    7
    >>> balance_cap({"neutral": 10}, max_share=0.5)
    0
    """
    share = exact_share(max_share)

    def is_allowed(cap: int) -> bool:
        return cap <= share * sum(min(count, cap) for count in counts.values())

    low, high = 0, max(counts.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_allowed(middle) else (low, middle - 1)
    return low
