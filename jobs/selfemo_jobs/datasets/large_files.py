"""Reads large files in parts: their first bytes, their lines, the rows of their tables."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from selfemo_jobs.datasets.arrow_files import ARROW, PARQUET
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import SourceFile, check_encoding, check_readable
from selfemo_jobs.errors import BadInput, error_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_GZIP = b"\x1f\x8b"
_BOM = "\ufeff"
#: The size of a usual row of a table with the turns of dialogues.
_ROW_BYTES = 100


@dataclass(frozen=True)
class FileHead(SourceFile):
    """The whole lines with which a text file begins; of other files, the first bytes."""

    data: bytes = b""
    """The bytes, unpacked."""

    def read_bytes(self) -> bytes:
        """Return the bytes."""
        return self.data

    @property
    def lines(self) -> list[str]:
        """The lines, whatever their encoding is."""
        return self.data.decode("utf-8", "replace").removeprefix(_BOM).split("\n")


@contextmanager
def open_unpacked(file: SourceFile) -> Iterator[BinaryIO]:
    """Open a file for reading; a gzip file is unpacked.

    Parameters
    ----------
    file
        The file.

    Raises
    ------
    BadInput
        If the file cannot be read or unpacked, also while it is read.
    """
    opener = gzip.open if is_packed(file) else Path.open
    try:
        with opener(file.path, "rb") as stream:
            yield cast(BinaryIO, stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{file.uri} is a damaged gzip file: {error}") from None
    except OSError as error:
        raise BadInput(f"{file.uri}: {error.strerror}") from None


def is_packed(file: SourceFile) -> bool:
    """Return whether a file is a gzip file. Raises BadInput if it cannot be read."""
    try:
        with file.path.open("rb") as stream:
            return stream.read(2) == _GZIP
    except OSError as error:
        raise BadInput(f"{file.uri}: {error.strerror}") from None


def is_larger(file: SourceFile, size: int) -> bool:
    """Return whether the content of a file has more bytes than a size.

    Parameters
    ----------
    file
        The file. A gzip file is unpacked, and Parquet counts without its own compression.
    size
        The size in bytes.
    """
    with open_unpacked(file) as stream:
        if not is_packed(file) and stream.read(len(PARQUET)) == PARQUET:
            return _parquet_size(file) > size
    with open_unpacked(file) as stream:
        while size >= 0:
            block = stream.read(min(size + 1, 1 << 20))
            if not block:
                return False
            size -= len(block)
    return True


def _parquet_size(file: SourceFile) -> int:
    """Return about how many bytes the rows of a Parquet file take. Raises BadInput."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file.path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    size: int = sum(group.total_byte_size for group in groups)
    rows: int = metadata.num_rows
    return max(size, rows * _ROW_BYTES)  # texts that are often repeated are stored once


def read_head(file: SourceFile, size: int) -> FileHead:
    """Return the beginning of a file, without the part of a line with which it would end.

    Parameters
    ----------
    file
        The file.
    size
        The largest number of bytes.

    Raises
    ------
    BadInput
        If the file cannot be read, or needs another program to be read.
    """
    with open_unpacked(file) as stream:
        data = stream.read(size)
    check_readable(data, file.uri)
    end = data.rfind(b"\n") + 1
    return FileHead(file.path, file.uri, data[:end] if len(data) == size and end else data)


def text_lines(
    file: SourceFile, notes: Notes, *, fix_typography: bool, newline: str
) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends.

    Parameters
    ----------
    file
        The file. It must be UTF-8, with or without a byte-order mark.
    notes
        Counts the single Windows-1252 bytes that were converted.
    fix_typography
        Whether such bytes are converted.
    newline
        The ends of lines as :func:`open` takes them: ``"\n"``, or the empty text for all kinds.

    Raises
    ------
    BadInput
        If a line has a byte that is not UTF-8.
    """
    number = 1
    with open_unpacked(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline)
        try:
            for line in text:
                part = line.removeprefix(_BOM) if number == 1 else line
                decoded = check_encoding(
                    part, file.uri, fix_typography=fix_typography, first_line=number
                )
                notes.add_decoded(decoded, file.uri)
                yield decoded.text
                number += line.count("\n")
        finally:
            text.detach()  # the file is closed above


def read_schema(file: SourceFile) -> pa.Schema:
    """Return the columns of a Parquet or Arrow file that is not packed.

    Parameters
    ----------
    file
        The file.

    Raises
    ------
    BadInput
        If the file is damaged.
    """
    import pyarrow.parquet as pq

    with _opened(file) as reader:
        if isinstance(reader, pq.ParquetFile):
            return reader.schema.to_arrow_schema()
        return reader.schema


def record_batches(file: SourceFile, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet or Arrow file in batches.

    Parameters
    ----------
    file
        The file. It is not packed.
    rows
        The largest number of rows of a batch of Parquet. Arrow files have their own batches.

    Raises
    ------
    BadInput
        If the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _opened(file) as reader:
        if isinstance(reader, pq.ParquetFile):
            yield from reader.iter_batches(batch_size=rows)
            return
        if isinstance(reader, pa.RecordBatchFileReader):
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = iter(reader)
        for batch in batches:
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)


@contextmanager
def _opened(
    file: SourceFile,
) -> Iterator[pq.ParquetFile | pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    """Open a Parquet or Arrow file. Raises BadInput if it is damaged, also while it is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.path.open("rb") as stream:
            start = stream.read(6)
        if start.startswith(PARQUET):
            with pq.ParquetFile(file.path) as parquet:
                yield parquet
            return
        with pa.memory_map(str(file.path)) as source:
            yield (pa.ipc.open_file if start == ARROW[0] else pa.ipc.open_stream)(source)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: SourceFile, error: Exception) -> BadInput:
    reason = error_line(error)
    return BadInput(f"{file.uri} is a damaged Parquet or Arrow file: {reason}")
