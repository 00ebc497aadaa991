"""The values of a training's optimizer steps, as they are stored in the manifest's report.

Progress lines show the same values while the stage runs. They are only in its log. The stored ones
are what the report and the trackers read, on a cluster and on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: The key in the report of Train's manifest: a list for each column, all of one length.
STEP_CURVE = "steps"
#: The column with the number of the optimizer step, from 1.
STEP = "step"
#: The largest number of stored steps. A curve of more steps is thinned.
LIMIT = 500


def thin_curve(
    columns: Mapping[str, Sequence[float]], limit: int = LIMIT
) -> dict[str, list[float]]:
    """Return the curve with at most so many points.

    The steps are divided into windows of one size. Each window gives one point: the mean of each
    column, at the last step of the window.

    Parameters
    ----------
    columns
        The values of each column, one for each optimizer step, step 1 first.
    limit
        The largest number of points.

    Returns
    -------
    dict of str to list of float
        The columns, with six significant digits, and the column ``step``. It is empty if there are
        no steps.

    Examples
    --------
    >>> thin_curve({"loss": [4.0, 2.0, 1.0]}, limit=2)
    {'step': [2, 3], 'loss': [3.0, 1.0]}
    """
    steps = len(next(iter(columns.values()), ()))
    if steps == 0:
        return {}
    size = math.ceil(steps / limit)
    windows = [range(start, min(start + size, steps)) for start in range(0, steps, size)]

    def mean(values: Sequence[float], window: range) -> float:
        return float(f"{math.fsum(values[i] for i in window) / len(window):.6g}")

    means = {name: [mean(values, w) for w in windows] for name, values in columns.items()}
    return {STEP: [window[-1] + 1 for window in windows], **means}


def read_curve(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the curve in the report of Train's manifest; empty if there is none.

    Parameters
    ----------
    report
        The field ``report`` of the manifest.
    """
    curve: dict[str, list[float]] = report.get(STEP_CURVE, {})
    return curve
