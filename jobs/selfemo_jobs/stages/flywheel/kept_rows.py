"""Writes the flywheel's result: the candidates of the kept groups, in parts of limited size.

Daft filters the wide rows in a stream. Each row is written to a scratch file of its part, and each
part is then sorted by role, group and member. Memory holds one part, whatever the size of the
table. The bytes depend neither on the order in which rows arrive nor on the runner.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import daft
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_jobs.errors import BadRows
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.tables import put_table, take_rows

#: Number of rows of one part. With its token lists a part has some tens of megabytes, and training
#: reads one part at a time.
PART_ROWS = 65_536
#: Largest number of parts, since each has an open scratch file and a process may open 1,024. More
#: rows make the parts larger.
MAX_PARTS = 512
_PART = "part"
_ORDER = ("role", "group_id", "member")


def assign_parts(groups: pa.Table, part_rows: int = PART_ROWS) -> pa.Table:
    """Return the groups in the order of the result, with the number of their part.

    Parameters
    ----------
    groups
        One row for each kept group, with the columns ``role``, ``group_id`` and ``rows``. Other
        columns are kept.
    part_rows
        Number of rows at which a part is complete. The group that reaches it is still in the part.

    Returns
    -------
    pyarrow.Table
        The groups, sorted, with the additional column ``part`` (int32, from 0).
    """
    groups = groups.sort_by([("role", "ascending"), ("group_id", "ascending")])
    rows = groups["rows"].to_numpy().astype(np.int64)
    rows_before = np.cumsum(rows) - rows
    limit = max(part_rows, -(-int(rows.sum()) // MAX_PARTS))
    return groups.append_column(_PART, pa.array((rows_before // limit).astype(np.int32)))


def write_parts(
    context: StageContext, sources: Iterable[tuple[daft.DataFrame, pa.Table]]
) -> list[Part]:
    """Write the candidates of the kept groups, and return the parts.

    Parameters
    ----------
    context
        The context of the stage.
    sources
        Pairs of a data frame of candidates and the groups to take from it. The groups have the
        columns ``group_id`` and ``part``.

    Returns
    -------
    list of Part
        The parts. If no group is kept, this is one empty part.

    Raises
    ------
    BadRows
        If a member of a group occurs twice.
    """
    scratch = context.work / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # files of a killed attempt
    scratch.mkdir(parents=True)
    numbers = _write_scratch_files(scratch, sources)
    parts = []
    for number in numbers:
        table = _sort_rows(_read(scratch / str(number)))
        parts.append(put_table(context, f"part-{number:05d}.parquet", table))
        (scratch / str(number)).unlink()
        context.progress(number + 1, len(numbers))
    shutil.rmtree(scratch)
    return parts or [put_table(context, "part-00000.parquet", SCORED.empty_table())]


def _write_scratch_files(
    scratch: Path, sources: Iterable[tuple[daft.DataFrame, pa.Table]]
) -> list[int]:
    """Stream the kept rows into one Arrow file for each part; return the numbers of the parts."""
    writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
    with ExitStack() as files:
        for rows, groups in sources:
            for batch in _rows_of_groups(rows, groups):
                for number, piece in _split_by_part(batch):
                    if number not in writers:
                        path = str(scratch / str(number))
                        writers[number] = files.enter_context(pa.ipc.new_file(path, SCORED))
                    writers[number].write_table(piece)
    return sorted(writers)


def _rows_of_groups(rows: daft.DataFrame, groups: pa.Table) -> Iterator[pa.Table]:
    """Yield the candidates of some groups, with the number of their part, in batches."""
    kept = rows.join(daft.from_arrow(groups.select(["group_id", _PART])), on="group_id")
    for batch in kept.select(*SCORED.names, _PART).to_arrow_iter(results_buffer_size=1):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _split_by_part(batch: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number and the rows of each part in a batch."""
    numbers = batch[_PART].to_numpy()
    order = np.argsort(numbers, kind="stable")
    rows = batch.select(SCORED.names).cast(SCORED).take(pa.array(order))
    parts, starts = np.unique(numbers[order], return_index=True)
    ends = [*starts[1:], len(order)]
    for number, start, end in zip(parts, starts, ends, strict=True):
        yield int(number), rows.slice(start, end - start)


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def _sort_rows(table: pa.Table) -> pa.Table:
    """Return a part in the order of the result, in chunks that follow from its rows alone.

    Its bytes are then always equal.
    """
    keys = table.select(_ORDER).combine_chunks()
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in _ORDER])
    table = take_rows(table, order.to_numpy().astype(np.int64))
    groups, members = table["group_id"], table["member"].to_numpy()
    same_group = pc.equal(groups[1:], groups[:-1]).to_numpy(zero_copy_only=False)
    repeated = np.flatnonzero(same_group & (members[1:] == members[:-1]))
    if len(repeated):
        index = int(repeated[0])
        raise BadRows(
            f"group {groups[index]} has member {members[index]} twice: two parts of the Score "
            "stage hold the same rows"
        )
    return table
