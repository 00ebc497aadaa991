"""The tables between stages: Parquet files in which each row is a candidate (a completion)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Manifest, Part, read_part, wrong_rows
from selfemo_jobs.runtime.schemas import ADDED
from selfemo_jobs.store import Store, join

#: The most bytes of rows in one piece: a chunk of a table in memory, and a row group of a file. The
#: offsets of Arrow's strings and lists have 32 bits, so no column of a piece may have 2 GiB. The
#: length of rows varies, and some pieces are longer than the mean.
PIECE_BYTES = 256 * 1024**2


def encode_table(table: pa.Table) -> bytes:
    """Return a table as Parquet. Equal tables have equal bytes."""
    sink = io.BytesIO()
    size = _piece_rows(table)
    # pyarrow's own size of row groups otherwise
    pq.write_table(table, sink, compression="zstd", row_group_size=size)
    return sink.getvalue()


def take_rows(table: pa.Table, order: npt.NDArray[np.int64]) -> pa.Table:
    """Return rows of a table in an order, in one chunk, or in several if they are large.

    Parameters
    ----------
    table
        The table, in any number of chunks, whose columns may have any size.
    order
        The row numbers.
    """
    size = _piece_rows(table)
    if size is None:
        return table.take(pa.array(order)).combine_chunks()
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches])
    starts = ends - [batch.num_rows for batch in batches]
    pieces = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        owners = np.searchsorted(ends, rows, side="right")
        # of each batch its own rows: `take` over all of them would join the whole columns
        taken = [
            batches[owner].take(pa.array(rows[owners == owner] - starts[owner]))
            for owner in np.unique(owners)
        ]
        places = np.argsort(np.argsort(owners, kind="stable"), kind="stable")
        joined = pa.Table.from_batches(taken, table.schema).combine_chunks()
        pieces.append(joined.take(pa.array(places)))
    return pa.concat_tables(pieces) if pieces else table.slice(0, 0)


def _piece_rows(table: pa.Table) -> int | None:
    """Return the number of rows of a piece, or None if the whole table is one."""
    size = sum(_data_bytes(chunk) for column in table.columns for chunk in column.chunks)
    return None if size <= PIECE_BYTES else max(1, table.num_rows * PIECE_BYTES // size)


def _data_bytes(array: pa.Array) -> int:
    """Return the number of bytes of an array's values. It does not depend on the chunks."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return int(pc.sum(pc.binary_length(array)).as_py() or 0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _data_bytes(array.flatten())
    if pa.types.is_struct(kind):
        return sum(map(_data_bytes, array.flatten()))
    return len(array) * int(kind.bit_width) // 8


def put_table(context: StageContext, path: str, table: pa.Table) -> Part:
    """Write a table as a part of the stage's result."""
    return context.put_part(path, encode_table(table), rows=table.num_rows)


def load_table(context: StageContext, path: str, schema: pa.Schema) -> tuple[Part, pa.Table] | None:
    """Return a table that an earlier attempt wrote with the same settings, or None.

    Parameters
    ----------
    context
        The stage's context.
    path
        The part's path below the stage's folder.
    schema
        The columns that the table must have.

    See Also
    --------
    StageContext.load_part : What happens with a part that is missing or damaged.
    """
    uri = join(context.config.output, path)
    return context.load_part(path, lambda data: decode_table(data, uri, schema))


def decode_table(data: bytes, uri: str, schema: pa.Schema) -> pa.Table:
    """Return a table, checked against a schema. Columns of a later version are filled in.

    Parameters
    ----------
    data
        The bytes of a Parquet file.
    uri
        The file's URI, for messages.
    schema
        The columns that the table must have. Other columns are left out.

    Raises
    ------
    WrongRows
        If the bytes are not a whole Parquet file, or a column is missing or has another type.
    """
    try:
        table = _read_row_groups(pq.ParquetFile(io.BytesIO(data)))
    except (pa.ArrowInvalid, OSError) as error:
        raise wrong_rows(f"{uri} is not a whole Parquet file ({error})", uri) from None
    for name in columns_to_fill(table.column_names, schema, uri):
        values = [ADDED[name]] * table.num_rows
        table = table.append_column(name, pa.array(values, schema.field(name).type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise wrong_rows(f"{uri}: a column has another type: {error}", uri) from None


def _read_row_groups(file: Any) -> pa.Table:
    """Return the table in a Parquet file. Each row group is read alone, and so stays a piece."""
    if file.num_row_groups < 2:
        return file.read()
    return pa.concat_tables(file.read_row_group(i) for i in range(file.num_row_groups))


def columns_to_fill(names: Iterable[str], schema: pa.Schema, uri: str) -> list[str]:
    """Return the columns that a table of an earlier version lacks; :data:`ADDED` has their values.

    Parameters
    ----------
    names
        The names of the table's columns.
    schema
        The columns that it must have.
    uri
        The table's URI, for messages.

    Raises
    ------
    WrongRows
        If it lacks a column that every version has.
    """
    present = set(names)
    missing = [name for name in schema.names if name not in present]
    for name in missing:
        if name not in ADDED:
            raise wrong_rows(f"{uri}: column `{name}` is missing", uri)
    return missing


def read_tables(
    store: Store, manifest_uri: str, manifest: Manifest, schema: pa.Schema
) -> Iterable[pa.Table]:
    """Yield the tables that a manifest lists, each checked against its hash and the schema.

    Parameters
    ----------
    store
        A store that reaches the manifest.
    manifest_uri
        The manifest's URI.
    manifest
        The manifest. Parts that are not Parquet files are skipped.
    schema
        The columns that each table must have.

    Raises
    ------
    DamagedFiles
        If a part is missing or damaged, or does not fit the schema.
    """
    folder = manifest_uri.rsplit("/", 1)[0]
    for part in manifest.parts:
        if part.path.endswith(".parquet"):
            data = read_part(store, manifest_uri, part)
            yield decode_table(data, join(folder, part.path), schema)
