"""Notes what a row follows from when it begins, and refuses a row of which that has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfemo_study.row_requirements import Taken, is_stale, taken_from_rows
from selfemo_study.row_result import RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.source_contents import source_hashes
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import RowRecord


def begin_row(task: RowTask, result: RowResult | None) -> None:
    """Note what a row follows from, or check that it is unchanged since the row began.

    A row that was restored from a file, or that finished before this was noted, has no hashes of
    its sources to compare.

    Parameters
    ----------
    task
        The row.
    result
        Its result. None: it is not finished.

    Raises
    ------
    StudyError
        If the row follows from something else now.
    BadInput
        If a source cannot be read.
    """
    rows = taken_from_rows(
        task.study, task.row, lambda row: task.folders.row(row, task.seed).read()
    )
    record = task.folder.read_record()
    if record is None and result is None:
        if rows is not None:  # otherwise the row itself says which one it requires
            task.folder.write_record(RowRecord(rows=dict(rows), sources=_sources(task)))
        return
    changed: list[str] = []
    if result is not None:
        then = record.rows if record else None
        if is_stale(task.study, task.row, result, then, rows):
            changed += _changed_rows(task, then, rows)
    elif record is not None and record.rows != rows:
        changed += _changed_rows(task, record.rows, rows)
    if record is not None and record.sources is not None:
        changed += _differing(record.sources, source_hashes(record.sources, task.volumes))
    if changed:
        raise StudyError(
            f"{task.folder.path} follows from what was changed or run again since "
            f"({', '.join(changed)}): delete the folder to run the row from scratch"
        )


def _sources(task: RowTask) -> dict[str, str]:
    """Return the hash of the content of all sources that a row may read, by URI."""
    study = task.study
    specs = (task.spec, task.steps_row_spec)
    uris = [source.uri for spec in specs for source in spec.dataset.sources]
    uris += [source.uri for source in (study.warm_start.source, *study.test)]
    return source_hashes(uris, task.volumes)


def _changed_rows(task: RowTask, then: Taken | None, now: Taken | None) -> list[str]:
    """Return the rows of which a row took something else than they have now."""
    steps_row, after = task.study.steps_row(task.row), task.row.after
    required = [name for name in (after, steps_row) if name not in (None, task.row.name)]
    names = _differing(then, now) if then is not None and now is not None else required
    return [f"row {name}" for name in names]


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
