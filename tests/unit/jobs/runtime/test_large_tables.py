"""Tables whose columns are larger than the 2 GiB that 32-bit offsets can address."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfemo_jobs.runtime import tables
from selfemo_jobs.runtime.schemas import TURN
from selfemo_jobs.runtime.tables import decode_table, encode_table, take_rows

SCHEMA = pa.schema(
    [
        pa.field("key", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("ids", pa.list_(pa.int32())),
        pa.field("context", pa.list_(TURN)),
    ]
)


def make_table(rows: int, chunks: int) -> pa.Table:
    """Return a table in chunks of different lengths, with nulls and empty values."""
    records = [
        {
            "key": row,
            "text": None if row % 7 == 0 else "word " * (row % 5),
            "ids": list(range(row % 4)),
            "context": [{"speaker": "Ann", "text": f"turn {row}"}] * (row % 3),
        }
        for row in range(rows)
    ]
    cuts = [0, *sorted(np.random.default_rng(0).choice(rows, chunks - 1, replace=False)), rows]
    return pa.concat_tables(pa.Table.from_pylist(records[a:b], SCHEMA) for a, b in pairwise(cuts))


def test_rows_are_taken_from_columns_over_2_gib() -> None:
    size, rows = 1 << 30, 64
    zeros = pa.py_buffer(np.zeros(size, np.uint8))  # no page of it is in memory until it is read
    offsets = pa.py_buffer(np.linspace(0, size - 1, rows + 1).astype(np.int32))
    chunk = pa.Array.from_buffers(pa.string(), rows, [None, offsets, zeros])
    texts = pa.chunked_array([chunk] * 3)
    table = pa.table({"text": texts, "key": pa.array(range(3 * rows))})
    assert table.nbytes > 3 * size
    order = np.array([150, 0, 70])
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        table.take(pa.array(order))
    taken = take_rows(table, order)
    assert taken["key"].to_pylist() == order.tolist()
    assert [len(text.as_buffer()) for text in taken["text"]] == [
        len(texts[row].as_buffer()) for row in order
    ]


@pytest.mark.parametrize("piece", [1, 300, 1 << 30])
def test_rows_in_pieces_are_the_rows_in_one(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    table = make_table(200, 6)
    order = np.random.default_rng(1).permutation(200)
    expected = table.take(pa.array(order))
    monkeypatch.setattr(tables, "PIECE_BYTES", piece)
    taken = take_rows(table, order)
    assert taken.equals(expected)
    assert (taken["text"].num_chunks == 1) == (piece == 1 << 30)
    data = encode_table(taken)
    assert (pq.ParquetFile(io.BytesIO(data)).num_row_groups == 1) == (piece == 1 << 30)
    assert decode_table(data, "part", SCHEMA).equals(expected)


def test_the_bytes_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIECE_BYTES", 500)
    order = np.random.default_rng(1).permutation(200)
    several, one = make_table(200, 9), make_table(200, 1)
    assert several.nbytes != one.nbytes
    assert encode_table(take_rows(several, order)) == encode_table(take_rows(one, order))


def test_a_small_table_is_one_chunk_with_the_bytes_of_before() -> None:
    taken = take_rows(make_table(50, 5), np.arange(50))
    assert taken["text"].num_chunks == 1
    sink = io.BytesIO()
    pq.write_table(taken, sink, compression="zstd")
    assert encode_table(taken) == sink.getvalue()
