"""The tables between stages: Parquet, one row a candidate (a completion)."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Manifest, Part, read_part
from selfemo_jobs.runtime.schemas import ADDED
from selfemo_jobs.store import Store, join


def encode_table(table: pa.Table) -> bytes:
    """Return Parquet bytes, the same for the same table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def put_table(context: StageContext, path: str, table: pa.Table) -> Part:
    """Write a table as a part."""
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
    """Return the table, checked against a schema; columns that came later are filled in.

    Raises
    ------
    BadInput
        If the bytes are no whole Parquet file, or a column is missing or of another type.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"{uri} is not a whole Parquet file ({error}): restore or remake it"
        ) from None
    for name in added_later(table.column_names, schema, uri):
        values = [ADDED[name]] * table.num_rows
        table = table.append_column(name, pa.array(values, schema.field(name).type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadInput(f"{uri}: a column has another type: {error}") from None


def added_later(names: Iterable[str], schema: pa.Schema, uri: str) -> list[str]:
    """Return the columns of a schema that a table lacks and :data:`ADDED` stands in for.

    Raises
    ------
    BadInput
        If it lacks another one.
    """
    found = set(names)
    missing = [name for name in schema.names if name not in found]
    for name in missing:
        if name not in ADDED:
            raise BadInput(f"{uri}: column `{name}` is missing")
    return missing


def read_tables(
    store: Store, manifest_uri: str, manifest: Manifest, schema: pa.Schema
) -> Iterable[pa.Table]:
    """Yield the tables that a manifest lists, each checked against its hash and the schema."""
    folder = manifest_uri.rsplit("/", 1)[0]
    for part in manifest.parts:
        if part.path.endswith(".parquet"):
            data = read_part(store, manifest_uri, part)
            yield decode_table(data, join(folder, part.path), schema)


def parent_table(context: StageContext, stage: Stage, schema: pa.Schema) -> pa.Table:
    """Return all rows of a parent stage as one table."""
    uri, manifest = context.parent(stage)
    tables = list(read_tables(context.store, uri, manifest, schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()
