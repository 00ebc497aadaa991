"""What a row takes from the results of other rows, and whether they were run again since. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.store.hashing import sha256
from selfemo_study.row_result import RowResult
from selfemo_study.study_config import Kind, Row, Study, uses_steps_row

Taken = Mapping[str, Any]
"""What a row takes from each of the rows that it requires, by their names."""


def taken_from_rows(
    study: Study, row: Row, result_of: Callable[[Row], RowResult | None]
) -> Taken | None:
    """Return what a row takes from the results of other rows; None where one is missing.

    Parameters
    ----------
    study
        The study.
    row
        The row.
    result_of
        Returns the result of a row with the same seed, or None where it is not finished.
    """
    taken: dict[str, Any] = {}
    if uses_steps_row(row):
        steps_row = study.row(study.steps_row(row))
        result = result_of(steps_row)
        if result is None:
            return None
        steps = {"steps": result.steps} if row.steps is None else {}
        votes = {"generations": len(result.generations)} if row.kind is Kind.MAJORITY else {}
        taken[steps_row.name] = {**steps, **votes}
    if row.after is not None:
        result = result_of(study.row(row.after))
        if result is None:
            return None
        before = taken.get(row.after, {})
        taken[row.after] = {**before, "result": sha256(canonical_json(result.to_json()))}
    return taken


def is_stale(
    study: Study, row: Row, result: RowResult, then: Taken | None, now: Taken | None
) -> bool:
    """Return whether a finished row took something else from other rows than they have now.

    Parameters
    ----------
    study
        The study.
    row
        The row.
    result
        The row's result.
    then
        What it took when it ran. None: that was not noted, and its number of steps is compared.
    now
        What it would take now. None: a row that it requires is not finished.
    """
    if now is None:
        return True
    if then is not None:
        return then != now
    steps = now.get(study.steps_row(row), {}).get("steps")
    return steps is not None and steps != result.steps
