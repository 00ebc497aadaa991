"""The flywheel's output: whole kept groups, sorted by role, group and member, in bounded parts.

Daft filters the wide rows in a stream; they are dealt into one scratch file a part, and each part
is sorted by itself. Memory holds one part, whatever the size of the table, and the bytes depend
neither on the order in which rows arrive nor on the runner.
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

from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.tables import put_table

#: Rows of one part; with token lists some tens of megabytes, which training reads one at a time.
PART_ROWS = 65_536
#: Scratch files open at once; beyond, parts grow instead (processes may open 1,024 files).
MAX_PARTS = 512
_PART = "part"
_ORDER = ("role", "group_id", "member")


def assign_parts(groups: pa.Table, part_rows: int = PART_ROWS) -> pa.Table:
    """Return the groups in the output's order, with the number of their part.

    Parameters
    ----------
    groups
        Columns ``role``, ``group_id``, ``rows`` and others; one row a kept group.
    part_rows
        A part is closed with the group that reaches this number of rows.
    """
    groups = groups.sort_by([("role", "ascending"), ("group_id", "ascending")])
    rows = groups["rows"].to_numpy().astype(np.int64)
    before = np.cumsum(rows) - rows
    limit = max(part_rows, -(-int(rows.sum()) // MAX_PARTS))
    return groups.append_column(_PART, pa.array((before // limit).astype(np.int32)))


def write_parts(
    context: StageContext, sources: Iterable[tuple[daft.DataFrame, pa.Table]]
) -> list[Part]:
    """Write the rows of the kept groups and return the parts; one empty part where none is kept.

    Parameters
    ----------
    context
        Of the stage.
    sources
        Pairs of a frame of full rows and the ``group_id, part`` of the groups to take from it.

    Raises
    ------
    BadInput
        If a member of a group is there twice.
    """
    scratch = context.work / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed attempt left
    scratch.mkdir(parents=True)
    numbers = _deal(scratch, sources)
    parts = []
    for number in numbers:
        table = _sorted(_read(scratch / str(number)))
        parts.append(put_table(context, f"part-{number:05d}.parquet", table))
        (scratch / str(number)).unlink()
        context.progress(number + 1, len(numbers))
    shutil.rmtree(scratch)
    return parts or [put_table(context, "part-00000.parquet", SCORED.empty_table())]


def _deal(scratch: Path, sources: Iterable[tuple[daft.DataFrame, pa.Table]]) -> list[int]:
    """Stream the kept rows into one Arrow file a part; return the parts' numbers."""
    writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
    with ExitStack() as files:
        for rows, wanted in sources:
            for batch in _kept(rows, wanted):
                for number, piece in _split(batch):
                    if number not in writers:
                        path = str(scratch / str(number))
                        writers[number] = files.enter_context(pa.ipc.new_file(path, SCORED))
                    writers[number].write_table(piece)
    return sorted(writers)


def _kept(rows: daft.DataFrame, wanted: pa.Table) -> Iterator[pa.Table]:
    kept = rows.join(daft.from_arrow(wanted.select(["group_id", _PART])), on="group_id")
    for batch in kept.select(*SCORED.names, _PART).to_arrow_iter(results_buffer_size=1):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _split(batch: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield each part's rows of a batch."""
    numbers = batch[_PART].to_numpy()
    order = np.argsort(numbers, kind="stable")
    rows = batch.select(SCORED.names).cast(SCORED).take(pa.array(order))
    found, starts = np.unique(numbers[order], return_index=True)
    ends = [*starts[1:], len(order)]
    for number, start, end in zip(found, starts, ends, strict=True):
        yield int(number), rows.slice(start, end - start)


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def _sorted(table: pa.Table) -> pa.Table:
    """Return a part in the output's order, in one piece, so that its bytes are always the same."""
    keys = table.select(_ORDER)
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in _ORDER])
    table = table.take(order).combine_chunks()
    groups, members = table["group_id"], table["member"].to_numpy()
    same = pc.equal(groups[1:], groups[:-1]).to_numpy(zero_copy_only=False)
    twice = np.flatnonzero(same & (members[1:] == members[:-1]))
    if len(twice):
        index = int(twice[0])
        raise BadInput(
            f"group {groups[index]} has member {members[index]} twice: two parts of the Score "
            "stage hold the same rows; delete that stage's folder to run it again"
        )
    return table
