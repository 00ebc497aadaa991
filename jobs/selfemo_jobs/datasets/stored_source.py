"""Reads a source of any size into a scratch file, with equal results as of reading it whole.

Memory holds one dialogue at a time, or one small file. Published formats, JSON that is one
document, packed Parquet, and large tables with the rows of a dialogue apart are still read whole.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfemo_api.spec import DataFormat, DatasetSpec, Source
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.datasets.arrow_files import ARROW, PARQUET
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_store import DialogueWriter, StoredDialogues
from selfemo_jobs.datasets.dialogue_stream import DialogueStream, ScatteredRows, table_groups
from selfemo_jobs.datasets.documents import is_document
from selfemo_jobs.datasets.large_files import is_larger, is_packed, read_head
from selfemo_jobs.datasets.load import (
    format_of,
    log_warnings,
    read_source,
    select_dialogues,
    spec_options,
)
from selfemo_jobs.datasets.reading import Oddity, ReadOptions, SourceWarning
from selfemo_jobs.datasets.record_files import RECORD_FORMATS
from selfemo_jobs.datasets.source_files import SourceFiles, names_below
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredContent:
    """All dialogues of a source, and what was noticed in its files."""

    kind: DataFormat
    """The format."""
    dialogues: StoredDialogues
    """The dialogues in file order, at least one."""
    warnings: tuple[SourceWarning, ...]
    """What is odd in the files."""


def store_source(
    dataset: DatasetSpec,
    source: Source,
    files: SourceFiles | Path,
    folder: Path,
    *,
    read_labels: bool,
) -> StoredDialogues:
    """Return the dialogues of a source in a scratch file; see :func:`load.load_dialogues`.

    Parameters
    ----------
    dataset
        The label set, the columns and the map of labels.
    source
        The source, one of the dataset's.
    files
        The files on this machine. A path is one file.
    folder
        The scratch folder.
    read_labels
        Whether utterances have their labels.

    Raises
    ------
    BadInput
        As of :func:`load.load_source`, or if the scratch file cannot be written.
    """
    if isinstance(files, Path):
        files = SourceFiles(source.uri, (SourceFile(files, source.uri),))
    options = spec_options(dataset, read_labels=read_labels)
    content = store_content(files, source.format, options, folder)
    log_warnings(source.uri, content.warnings)
    return select_dialogues(source, content.dialogues)


def store_content(
    files: SourceFiles, kind: DataFormat | None, options: ReadOptions, folder: Path
) -> StoredContent:
    """Return all dialogues of a source in a scratch file; see :func:`load.read_source`.

    Parameters
    ----------
    files
        The files on this machine.
    kind
        The format. None: it is decided by the files' content and names.
    options
        What to read.
    folder
        The scratch folder.

    Raises
    ------
    BadInput
        As of :func:`load.read_source`, or if the scratch file cannot be written.
    """
    kind = format_of(files, kind, options, _detected_by)
    groups = _groups(files, kind)
    writer = DialogueWriter(folder)
    ids = array("Q") if len(groups) > 1 else None
    starts: list[int] = []
    warnings: list[SourceWarning] = []
    for group in groups:
        starts.append(len(writer))
        stream = DialogueStream(group, kind, options)
        try:
            _add(writer, ids, stream)
            warnings += stream.warnings
        except ScatteredRows as error:
            log.warning("%s; the whole table is now read at once, which takes memory", error)
            writer.truncate(starts[-1])
            if ids is not None:
                del ids[starts[-1] :]
            content = read_source(group, kind, options)
            _add(writer, ids, content.dialogues)
            warnings += content.warnings
    are_unique = ids is None or len(np.unique(np.asarray(ids))) == len(ids)
    prefixes = [] if are_unique else list(zip(starts, _prefixes(groups), strict=True))
    return StoredContent(kind, writer.finish(prefixes), _sum_warnings(warnings))


def _add(writer: DialogueWriter, ids: array[int] | None, dialogues: Iterable[Dialogue]) -> None:
    """Add dialogues to a file, and hashes of their ids to a list that is not None."""
    for dialogue in dialogues:
        writer.add(dialogue)
        if ids is not None:
            ids.append(int(sha256(dialogue.id.encode())[:16], 16))


def _prefixes(groups: Sequence[SourceFiles]) -> list[str]:
    """Return what stands before the ids of each file's dialogues if files have equal ids."""
    return [f"{name}:" for name in names_below([group.uri for group in groups])]


def _sum_warnings(warnings: Sequence[SourceWarning]) -> tuple[SourceWarning, ...]:
    """Return the warnings of several files as those of one source, in the order of the oddities."""
    return tuple(
        SourceWarning(kind, sum(warning.count for warning in same), same[0].place)
        for kind in Oddity
        if (same := [warning for warning in warnings if warning.kind is kind])
    )


def _groups(files: SourceFiles, kind: DataFormat) -> list[SourceFiles]:
    """Return the files that are read together: the parts of one table, otherwise each alone."""
    if kind in RECORD_FORMATS:
        return table_groups(files)
    if len(files.files) == 1:
        return [files]
    return [SourceFiles(file.uri, (file,), files.label_names) for file in files.files]


def _detected_by(file: SourceFile) -> SourceFile:
    """Return what the format of a file is detected by: its head if it is read in parts."""
    if not is_larger(file, dialogue_stream.WHOLE_BYTES):
        return file
    head = read_head(file, dialogue_stream.HEAD_BYTES)
    if head.data.startswith((PARQUET, *ARROW)):
        return file if is_packed(file) else head
    lines = [line for line in head.lines if line.strip()]
    return file if len(lines) < 2 or is_document(lines) else head
