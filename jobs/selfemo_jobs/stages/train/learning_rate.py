"""The learning rate of each step of a training. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from selfemo_api.spec import OptimizerSpec, Schedule


def rate_factor(optimizer: OptimizerSpec, steps: int) -> Callable[[int], float]:
    """Return the function that gives the factor of the learning rate of a step, counted from 0.

    The first step has a part of the rate, not 0 as in Transformers: a training of one step would
    change nothing, and one of seven would waste its first groups.

    Parameters
    ----------
    optimizer
        The field ``spec.training.optimizer``.
    steps
        The number of all steps.

    Examples
    --------
    >>> falling = OptimizerSpec(warmup_ratio=0.4, schedule=Schedule.LINEAR)
    >>> [round(rate_factor(falling, 5)(step), 2) for step in range(5)]
    [0.5, 1.0, 0.75, 0.5, 0.25]
    >>> rate_factor(OptimizerSpec(), 1)(0)
    1.0
    """
    rise = math.ceil(optimizer.warmup_ratio * steps)
    falls = optimizer.schedule is Schedule.LINEAR

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / (steps - rise + 1 if rise else steps)) if falls else 1.0

    return factor
