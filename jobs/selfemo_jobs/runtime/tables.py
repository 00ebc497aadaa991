"""The tables between stages: Parquet files in which each row is a candidate (a completion)."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Manifest, Part, read_part, wrong_rows
from selfemo_jobs.runtime.schemas import ADDED
from selfemo_jobs.store import Store, join


def encode_table(table: pa.Table) -> bytes:
    """Return a table as Parquet. Equal tables have equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


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
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise wrong_rows(f"{uri} is not a whole Parquet file ({error})", uri) from None
    for name in columns_to_fill(table.column_names, schema, uri):
        values = [ADDED[name]] * table.num_rows
        table = table.append_column(name, pa.array(values, schema.field(name).type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise wrong_rows(f"{uri}: a column has another type: {error}", uri) from None


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
