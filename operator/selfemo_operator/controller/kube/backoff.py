"""The pauses between attempts, which grow. They differ between processes, so that these spread."""

from __future__ import annotations

import random


def backoff_seconds(failures: int, first: float, longest: float) -> float:
    """Return the pause in seconds before the next attempt.

    Parameters
    ----------
    failures
        The number of failures in a row, from 1.
    first
        The longest pause after the first failure, in seconds. It doubles with each failure.
    longest
        The bound of all pauses, in seconds. A pause is at least half as long as it may be.
    """
    return min(first * 2.0 ** min(failures - 1, 16), longest) * random.uniform(0.5, 1.0)
