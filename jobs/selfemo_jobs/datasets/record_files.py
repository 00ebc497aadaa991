"""The records of a file: JSON Lines and other JSON, CSV and TSV, Parquet and Arrow.

This project's own format is JSON Lines with a dialogue in each line::

    {"id": "d1", "turns": [{"speaker": "Ann", "text": "We won!", "labels": ["joy"]}, …]}

``id`` is unique in the file. ``turns`` has at least one turn. ``labels`` is optional. Other keys
are ignored. The file is UTF-8. :mod:`selfemo_jobs.datasets.records` has the other layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets import emorynlp
from selfemo_jobs.datasets.arrow_files import label_names, read_table, table_records
from selfemo_jobs.datasets.csv_files import read_rows
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.documents import Node, read_documents
from selfemo_jobs.datasets.reading import Notes, ReadOptions
from selfemo_jobs.datasets.records import read_records
from selfemo_jobs.datasets.text_files import SourceFile, decode_text
from selfemo_jobs.errors import BadInput

#: The formats whose files are records.
RECORD_FORMATS = frozenset(
    {DataFormat.JSONL, DataFormat.CSV, DataFormat.PARQUET, DataFormat.HUGGING_FACE}
)


@dataclass(frozen=True)
class _FileRecords:
    records: Sequence[Node]
    label_names: Mapping[str, Sequence[str]]


def read_record_files(
    files: Sequence[SourceFile], kind: DataFormat, options: ReadOptions, notes: Notes
) -> list[Dialogue]:
    """Return the dialogues of one file, or of the files over which one table is spread.

    Parameters
    ----------
    files
        The files, in order.
    kind
        Their format, one of :data:`RECORD_FORMATS`.
    options
        What to read.
    notes
        Counts what is odd in the files.

    Raises
    ------
    BadInput
        If a file does not have the format, or its records are not dialogues.
    """
    parts = [_read_file(file, kind, options, notes) for file in files]
    records = [record for part in parts for record in part.records]
    names = {key: value for part in parts for key, value in part.label_names.items()}
    named = replace(options, label_names={**options.label_names, **names})
    is_table = kind is not DataFormat.JSONL
    return read_records(records, files[0].uri, named, notes, is_table=is_table)


def _read_file(
    file: SourceFile, kind: DataFormat, options: ReadOptions, notes: Notes
) -> _FileRecords:
    if kind is DataFormat.CSV:
        rows = read_rows(file, (), notes, options.columns.values())
        return _FileRecords([Node(row.place, "", dict(row.fields)) for row in rows], {})
    if kind is DataFormat.JSONL:
        text = decode_text(file.read_bytes(), file.uri, fix_typography=False).text
        records = read_documents(text, file.uri)
        if records and emorynlp.is_own_json(records[0].value):
            raise BadInput(f"{file.uri} {emorynlp.OWN_JSON}")
        return _FileRecords(records, {})
    table = read_table(file)
    return _FileRecords(table_records(table, file.uri), label_names(table.schema))
