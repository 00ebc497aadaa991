"""Rows of scored tables that training needs besides the rollouts, in a file beside them.

A training may have a hundred million rows. Memory holds one table, and the ids of the groups.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_jobs.store.local_files import translated_errors


class CollectedRows(ABC):
    """Collects some rows of scored tables while something else reads these tables.

    Parameters
    ----------
    scratch
        The folder where the rows are while the tables are read.
    """

    file: ClassVar[str]
    """The name of the file that is written."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch / f"{self.file}.collected"

    @abstractmethod
    def choose(self, table: pa.Table) -> pa.Table:
        """Return the rows of one table to collect, with the column ``group_id``.

        Parameters
        ----------
        table
            A table with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.
        """

    def keep(self) -> npt.NDArray[np.bool_] | None:
        """Return which of all collected rows are written; None for all. Shape (collected,)."""
        return None

    def collected(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables, and collect their rows.

        Parameters
        ----------
        tables
            Tables with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.

        Raises
        ------
        BadInput
            If the scratch folder cannot be written.
        """
        with translated_errors(self._scratch):
            self._scratch.parent.mkdir(parents=True, exist_ok=True)
            self._scratch.unlink(missing_ok=True)
        writer = None
        for table in tables:
            chosen = self.choose(table)
            with translated_errors(self._scratch):
                writer = writer or pa.ipc.new_file(str(self._scratch), chosen.schema)
                writer.write_table(chosen)
            yield table
        if writer is not None:
            with translated_errors(self._scratch):
                writer.close()

    def write(self, folder: Path) -> None:
        """Write the collected rows. Call it after all tables were read.

        Parameters
        ----------
        folder
            The folder of the rows to train on.

        Raises
        ------
        BadInput
            If the folder cannot be written.
        """
        keep = self.keep()
        with translated_errors(folder):
            if keep is None:
                shutil.move(self._scratch, folder / self.file)
                return
            with (
                pa.memory_map(str(self._scratch)) as source,
                pa.ipc.open_file(source) as reader,
                pa.ipc.new_file(str(folder / self.file), reader.schema) as writer,
            ):
                first = 0
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    mask = keep[first : first + len(batch)]
                    writer.write_batch(batch.filter(pa.array(mask)))
                    first += len(batch)
            self._scratch.unlink()


def read_collected(folder: Path, file: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of :class:`CollectedRows` by group id; none if there is no file.

    Parameters
    ----------
    folder
        The folder of :meth:`CollectedRows.write`.
    file
        The name of the file.
    """
    if not (folder / file).is_file():
        return
    with pa.memory_map(str(folder / file)) as source:
        table = pa.ipc.open_file(source).read_all()  # mapped: the system may drop what was read
        batches = table.to_batches()
        starts = np.cumsum([0, *map(len, batches)])
        for row in pc.sort_indices(table["group_id"]).to_numpy():
            number = int(np.searchsorted(starts, row, side="right")) - 1
            yield from batches[number].slice(int(row - starts[number]), 1).to_pylist()
