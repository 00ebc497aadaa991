"""The row kind `on-policy`: not there yet."""

from __future__ import annotations

from tools.study.config import StudyError
from tools.study.record import RowResult
from tools.study.work import Work


def run_on_policy(work: Work) -> RowResult:
    """Refuse."""
    raise StudyError(f"row {work.row.name}: the kind on-policy is not there yet")
