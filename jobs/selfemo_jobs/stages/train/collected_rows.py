"""Rows of scored tables that training needs besides the rollouts, in a file beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_jobs.store.local_files import translated_errors


class CollectedRows:
    """Collects some rows of scored tables while something else reads these tables.

    Parameters
    ----------
    file
        The name of the file that is written.
    choose
        Returns the rows of one table to collect.
    finish
        Returns the rows to write, of all that were collected.
    """

    def __init__(
        self,
        file: str,
        choose: Callable[[pa.Table], pa.Table],
        finish: Callable[[pa.Table], pa.Table],
    ) -> None:
        self._file, self._choose, self._finish = file, choose, finish
        self._parts: list[pa.Table] = []

    def collected(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables, and collect their rows.

        Parameters
        ----------
        tables
            Tables with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.
        """
        for table in tables:
            self._parts.append(self._choose(table))
            yield table

    def write(self, folder: Path) -> None:
        """Write the collected rows.

        Parameters
        ----------
        folder
            The folder of the rows to train on.
        """
        path, table = folder / self._file, self._finish(pa.concat_tables(self._parts))
        with translated_errors(folder), pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table.combine_chunks())


def read_collected(folder: Path, file: str) -> list[dict[str, Any]]:
    """Return the rows of a file of :class:`CollectedRows`; none if they were not collected.

    Parameters
    ----------
    folder
        The folder of :meth:`CollectedRows.write`.
    file
        The name of the file.
    """
    if not (folder / file).is_file():
        return []
    with pa.memory_map(str(folder / file)) as source:
        rows: list[dict[str, Any]] = pa.ipc.open_file(source).read_all().to_pylist()
    return rows
