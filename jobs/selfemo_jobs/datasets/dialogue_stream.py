"""Dialogues one by one, from files that need not fit into memory.

JSON Lines, and tables in CSV, Parquet and Arrow, are read in parts if they are large. In a large
table, the rows of a dialogue must be together. Published files, and JSON that is one document, are
read as a whole. So are small files: their rows may be in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby, islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets import emorynlp
from selfemo_jobs.datasets.arrow_files import ARROW, PARQUET, label_names, table_records
from selfemo_jobs.datasets.columns import DIALOGUE, TURN
from selfemo_jobs.datasets.csv_files import HEAD_LINES, rows_of_lines, separator_of
from selfemo_jobs.datasets.detect import detect_format
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_grouping import group_dialogues
from selfemo_jobs.datasets.documents import Node, is_document, parse
from selfemo_jobs.datasets.large_files import (
    is_larger,
    is_packed,
    read_head,
    read_schema,
    record_batches,
    text_lines,
)
from selfemo_jobs.datasets.load import SHARD, read_source
from selfemo_jobs.datasets.reading import Notes, Oddity, ReadOptions, SourceWarning
from selfemo_jobs.datasets.record_files import RECORD_FORMATS
from selfemo_jobs.datasets.records import RecordReader, layout_of
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.text_files import Place, SourceFile
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.hashing import sha256

#: Files of at most this size, unpacked, are read as a whole.
WHOLE_BYTES = 8 << 20
#: The size of the part of a large file by which its format is detected.
HEAD_BYTES = 1 << 20
#: The number of records that decide which columns a large file has, and that are read at once.
HEAD_RECORDS = 1000


class ScatteredRows(BadInput):
    """A large table cannot be read in parts: rows of a dialogue are apart, or a column is new."""


class DialogueStream:
    """The dialogues of the files of a source, in file order. It can be iterated over once.

    Parameters
    ----------
    files
        The files on this machine. They are one file, or the parts of one table.
    kind
        The format. None: it is decided by the files' content and names.
    options
        What to read.

    Raises
    ------
    ScatteredRows
        While it is iterated over: if a large table cannot be read in parts.
    BadInput
        While it is iterated over: if a file does not have the format, has no dialogue, an utterance
        is empty, or a label is unknown. The message names file, line and field.
    """

    def __init__(self, files: SourceFiles, kind: DataFormat | None, options: ReadOptions) -> None:
        self._files = files
        self._kind = kind
        self._options = options
        self._notes = Notes()
        self._warnings: tuple[SourceWarning, ...] = ()

    def __iter__(self) -> Iterator[Dialogue]:
        kind = self._stream_format()
        if kind is None:
            content = read_source(self._files, self._kind, self._options)
            self._warnings = content.warnings
            yield from content.dialogues
            return
        is_empty = True
        for dialogue in self._stream(kind):
            is_empty = False
            yield dialogue
        if is_empty:
            raise BadInput(f"{self._files.uri} contains no dialogue")
        self._warnings = self._notes.warnings()

    @property
    def warnings(self) -> tuple[SourceWarning, ...]:
        """What is odd in the files. It is complete after the last dialogue."""
        return self._warnings

    def _stream_format(self) -> DataFormat | None:
        """Return the format of files that are read in parts; None if they are read whole."""
        if not any(is_larger(file, WHOLE_BYTES) for file in self._files.files):
            return None
        first = self._files.files[0]
        head = read_head(first, HEAD_BYTES)
        is_binary = head.data.startswith((PARQUET, *ARROW))
        lines = [] if is_binary else [line for line in head.lines if line.strip()]
        if is_packed(first) if is_binary else len(lines) < 2:
            return None
        kind = self._kind
        if kind is None or kind is DataFormat.HUGGING_FACE:
            kind = detect_format(head, self._options.columns)
        if kind not in RECORD_FORMATS or (kind is DataFormat.JSONL and is_document(lines)):
            return None
        return kind

    def _stream(self, kind: DataFormat) -> Iterator[Dialogue]:
        """Yield the dialogues of files that are read in parts."""
        files, options = self._files.files, self._named_options(kind)
        records = chain.from_iterable(_records(f, kind, options, self._notes) for f in files)
        first = list(islice(records, HEAD_RECORDS))
        if not first:
            return
        reader = RecordReader(files[0].uri, options, self._notes, unique_ids=False)
        layout = layout_of(first[0], options, is_table=kind is not DataFormat.JSONL)
        ids = IdSet()
        if layout is None:
            yield from self._rows(reader, first, records, ids)
            reader.check()
            return
        for number, record in enumerate(chain(first, records), start=1):
            dialogue = reader.dialogue(record, layout, number)
            if not ids.add(dialogue.id):
                raise record.place.error(f"the id {dialogue.id} appears twice")
            yield dialogue
        reader.check()

    def _named_options(self, kind: DataFormat) -> ReadOptions:
        """Return the options with the names of the numbers in columns of labels."""
        names = {**self._files.label_names, **self._options.label_names}
        if self._options.read_labels and kind in {DataFormat.PARQUET, DataFormat.HUGGING_FACE}:
            for file in self._files.files:
                names.update(label_names(read_schema(file)))
        return replace(self._options, label_names=names)

    def _rows(
        self, reader: RecordReader, first: Sequence[Node], rest: Iterator[Node], ids: IdSet
    ) -> Iterator[Dialogue]:
        """Yield the dialogues of records of which each is a turn."""
        keys = dict.fromkeys(key for record in first for key, _ in record.entries())
        columns = reader.columns(keys)
        if DIALOGUE not in columns:
            self._notes.add(Oddity.NO_DIALOGUE, None, len(first))
        records = chain(first, self._with_known_keys(reader, rest, columns, keys))
        rows = (reader.row(node, columns, number) for number, node in enumerate(records, start=1))
        for name, group in groupby(rows, key=lambda row: row.dialogue):
            turns = list(group)
            if not ids.add(name):
                raise ScatteredRows(
                    f"{turns[0].place}: rows of dialogue {name} also appear earlier: in a file "
                    f"of more than {WHOLE_BYTES >> 20} MiB, the rows of a dialogue must be "
                    "consecutive"
                )
            yield reader.with_speakers(group_dialogues(turns, columns.get(TURN, TURN))[0])

    def _with_known_keys(
        self,
        reader: RecordReader,
        records: Iterable[Node],
        columns: dict[str, str],
        keys: dict[str, None],
    ) -> Iterator[Node]:
        """Yield records. Raises BadInput if a new key has a part that was not there before."""
        for record in records:
            new = record.value.keys() - keys.keys()
            if new:
                keys.update(dict.fromkeys(key for key, _ in record.entries()))
                if reader.columns(keys) != columns:
                    raise ScatteredRows(
                        f"{record.place}: `{min(new)}` is not in the first {HEAD_RECORDS} rows: "
                        "add it to the first row too, or specify the columns"
                    )
            if DIALOGUE not in columns:
                self._notes.add(Oddity.NO_DIALOGUE, None)
            yield record


class IdSet:
    """A set of texts that takes about eight bytes for each: their hashes, most of them sorted."""

    _RECENT = 1 << 16

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: NDArray[np.uint64] = np.empty(0, np.uint64)

    def add(self, text: str) -> bool:
        """Add a text, and return whether it is new.

        Examples
        --------
        >>> ids = IdSet()
        >>> ids.add("d1"), ids.add("d2"), ids.add("d1")
        (True, True, False)
        """
        value = int(sha256(text.encode())[:16], 16)
        place = int(np.searchsorted(self._sorted, np.uint64(value)))
        if value in self._recent or value in self._sorted[place : place + 1]:
            return False
        self._recent.add(value)
        if len(self._recent) >= self._RECENT:
            new = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate((self._sorted, new)))
            self._recent.clear()
        return True


def table_groups(files: SourceFiles) -> list[SourceFiles]:
    """Return the files of a source one by one; the parts of one table stay together.

    Parameters
    ----------
    files
        The files of the source.
    """
    groups = groupby(files.files, key=lambda file: SHARD.sub("", file.uri))
    parts = [tuple(group) for _, group in groups]
    if len(parts) == 1:
        return [files]
    return [SourceFiles(part[0].uri, part, files.label_names) for part in parts]


def _records(
    file: SourceFile, kind: DataFormat, options: ReadOptions, notes: Notes
) -> Iterator[Node]:
    """Yield the records of a file."""
    if kind is DataFormat.JSONL:
        yield from _json_lines(file, notes)
    elif kind is DataFormat.CSV:
        lines = text_lines(file, notes, fix_typography=True, newline="")
        first = list(islice(lines, HEAD_LINES))
        chosen = options.columns.values()
        separator = separator_of(first, file.ending, chosen=chosen)
        for row in rows_of_lines(chain(first, lines), separator, file.uri, (), notes, chosen):
            yield Node(row.place, "", dict(row.fields))
    else:
        first_row = 1
        for batch in record_batches(file, HEAD_RECORDS):
            yield from table_records(pa.Table.from_batches([batch]), file.uri, first_row)
            first_row += batch.num_rows


def _json_lines(file: SourceFile, notes: Notes) -> Iterator[Node]:
    """Yield the objects of a JSON Lines file."""
    is_first = True
    lines = text_lines(file, notes, fix_typography=False, newline="\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = parse(line.removesuffix("\n"), Place(file.uri, number))
        if is_first and emorynlp.is_own_json(record.value):
            raise BadInput(f"{file.uri} {emorynlp.OWN_JSON}")
        is_first = False
        yield record
