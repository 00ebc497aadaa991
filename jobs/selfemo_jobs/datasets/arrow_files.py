"""Parquet files, and Arrow files as the ``datasets`` library saves them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfemo_jobs.datasets.documents import Node
from selfemo_jobs.datasets.text_files import Place, SourceFile
from selfemo_jobs.errors import BadInput, error_line

if TYPE_CHECKING:
    import pyarrow as pa

#: The first bytes of a Parquet file.
PARQUET = b"PAR1"
#: The first bytes of an Arrow file, and of an Arrow stream.
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")


def read_table(file: SourceFile) -> pa.Table:
    """Return the table of a Parquet or Arrow file.

    Raises
    ------
    BadInput
        If the file is damaged, or is of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = file.read_bytes()
    try:
        if data.startswith(PARQUET):
            return pq.read_table(pa.BufferReader(data))
        if data.startswith(ARROW[0]):
            return pa.ipc.open_file(data).read_all()
        if data.startswith(ARROW[1]):
            return pa.ipc.open_stream(data).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = error_line(error)
        raise BadInput(f"{file.uri} is a damaged Parquet or Arrow file: {reason}") from None
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise BadInput(f"{file.uri} is empty")
    raise BadInput(
        f"{file.uri} is not a Parquet file: omit `format`, or set it to the file's format"
    )


def table_records(table: pa.Table, file: str, first_row: int = 1) -> list[Node]:
    """Return the rows of a table as records.

    Parameters
    ----------
    table
        The table. Its columns may be nested.
    file
        The file's URI, for messages.
    first_row
        The number of the first row, for messages.

    Raises
    ------
    BadInput
        If text in the table is not UTF-8.
    """
    try:
        rows = table.to_pylist()
    except (UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"{file}: the table cannot be read: {error}") from None
    return [
        Node(Place(file, number, "row"), "", _without_nan(row))
        for number, row in enumerate(rows, start=first_row)
    ]


def label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the numbers in columns that ``datasets`` calls class labels.

    Parameters
    ----------
    schema
        The schema of a table. ``datasets`` writes the names to its metadata.

    Returns
    -------
    dict
        The names in the order of their numbers, by the name of the column. A column within another
        one has its own name.
    """
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    try:
        features = Features.from_arrow_schema(schema)
    except (KeyError, TypeError, ValueError):  # written by a version that has other types
        return {}
    return feature_names(features)


def feature_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the numbers in the class labels of ``datasets.Features``.

    Examples
    --------
    >>> from datasets import ClassLabel, Features, Value
    >>> feature_names(Features(text=Value("string"), label=ClassLabel(names=["sad", "glad"])))
    {'label': ['sad', 'glad']}
    """
    return {key: names for key, feature in features.items() for key, names in _names(key, feature)}


def _names(key: str, feature: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the class labels of a feature and of those within it."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        yield key, list(feature.names)
    elif isinstance(feature, Mapping):
        for inner, value in feature.items():
            yield from _names(inner, value)
    elif isinstance(feature, Sequence) and not isinstance(feature, str):
        for value in feature:
            yield from _names(key, value)
    elif hasattr(feature, "feature"):
        yield from _names(key, feature.feature)


def _without_nan(value: Any) -> Any:
    """Return a row with None for each number that is not one: pandas writes them for no value."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value
