"""Loads the dialogues of a source in any format."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol, TypeVar

from selfemo_api.spec import DataFormat, DatasetSpec, Source
from selfemo_jobs.datasets.detect import detect_format, explain_json
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_store import StoredDialogues
from selfemo_jobs.datasets.emorynlp import read_emorynlp
from selfemo_jobs.datasets.iemocap import read_iemocap
from selfemo_jobs.datasets.large_files import read_head
from selfemo_jobs.datasets.meld import read_meld
from selfemo_jobs.datasets.reading import Notes, Oddity, ReadOptions, SourceWarning
from selfemo_jobs.datasets.record_files import RECORD_FORMATS, read_record_files
from selfemo_jobs.datasets.source_files import SourceFiles, names_below
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput

log = logging.getLogger(__name__)

#: The end of the name of a part of a table that ``datasets`` and others write in several files.
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
#: What may stand before the first sign of a JSON file, and the bytes in which that sign is.
_BLANK = "\ufeff \t\r\n"
_START_BYTES = 4096

D = TypeVar("D", list[Dialogue], StoredDialogues)


class _Reader(Protocol):
    def __call__(self, file: SourceFile, options: ReadOptions, notes: Notes) -> list[Dialogue]: ...


_READERS: dict[DataFormat, _Reader] = {
    DataFormat.MELD: read_meld,
    DataFormat.EMORYNLP: read_emorynlp,
    DataFormat.IEMOCAP: read_iemocap,
}


@dataclass(frozen=True)
class SourceContent:
    """All dialogues of a source, and what was noticed in its files."""

    kind: DataFormat
    """The format."""
    dialogues: list[Dialogue]
    """The dialogues in file order, at least one."""
    warnings: tuple[SourceWarning, ...]
    """What is odd in the files."""


def load_dialogues(
    dataset: DatasetSpec, source: Source, files: SourceFiles | Path, *, read_labels: bool
) -> list[Dialogue]:
    """Return the dialogues of a source as ``spec.dataset`` describes them.

    Parameters
    ----------
    dataset
        The label set, the columns and the map of labels.
    source
        The source, one of the dataset's.
    files
        The files on this machine; see :func:`datasets.fetch.fetch_source`. A path is one file.
    read_labels
        Whether utterances have their labels.

    Raises
    ------
    BadInput
        As of :func:`load_source`.
    """
    return _load(source, files, spec_options(dataset, read_labels=read_labels))


def spec_options(dataset: DatasetSpec, *, read_labels: bool) -> ReadOptions:
    """Return what a reader is to read, as ``spec.dataset`` describes it.

    Parameters
    ----------
    dataset
        The label set, the columns and the map of labels.
    read_labels
        Whether the turns have their labels.
    """
    columns = {part.value: column for part, column in dataset.columns.items()}
    return ReadOptions(dataset.labels, read_labels, columns, dataset.label_map)


def load_source(
    source: Source,
    labels: Sequence[str],
    files: SourceFiles | Path,
    *,
    read_labels: bool,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> list[Dialogue]:
    """Return a source's dialogues in file order. What is odd in its files is logged.

    Parameters
    ----------
    source
        The source: its format, and which of its dialogues are used (``offset``, ``limit``).
    labels
        The label set, ``dataset.labels``. Labels that are read must be in it.
    files
        The files on this machine; see :func:`datasets.fetch.fetch_source`. A path is one file.
    read_labels
        Whether utterances have their labels. If not, the field of the labels is not read: it may be
        missing, empty or wrong.
    columns
        The column of each part of a turn, ``dataset.columns``.
    label_map
        The label of the set for each label in the files, ``dataset.labelMap``.

    Returns
    -------
    list of Dialogue
        At least one dialogue. Turns are in order; names and texts are on one line each.

    Raises
    ------
    BadInput
        If a file does not have the format, has no dialogue to use, or has an empty utterance, an
        id twice, a wrong encoding or an unknown emotion. The message names file, line and field.
    """
    return _load(source, files, ReadOptions(labels, read_labels, columns or {}, label_map or {}))


def _load(source: Source, files: SourceFiles | Path, options: ReadOptions) -> list[Dialogue]:
    """Return the dialogues of a source, and log what is odd in its files. Raises BadInput."""
    if isinstance(files, Path):
        files = SourceFiles(source.uri, (SourceFile(files, source.uri),))
    content = read_source(files, source.format, options)
    log_warnings(source.uri, content.warnings)
    return select_dialogues(source, content.dialogues)


def log_warnings(uri: str, warnings: Iterable[SourceWarning]) -> None:
    """Log what is odd in the files of a source.

    Parameters
    ----------
    uri
        The source's URI.
    warnings
        The warnings.
    """
    for warning in warnings:
        level = logging.INFO if warning.kind is Oddity.UNLABELED else logging.WARNING
        log.log(level, "%s: %s", uri, warning.message)


def read_source(files: SourceFiles, kind: DataFormat | None, options: ReadOptions) -> SourceContent:
    """Return all dialogues of a source.

    Parameters
    ----------
    files
        The files on this machine.
    kind
        The format. None: it is decided by the files' content and names.
    options
        What to read.

    Raises
    ------
    BadInput
        As of :func:`load_source`.
    """
    kind = format_of(files, kind, options)
    options = replace(options, label_names={**files.label_names, **options.label_names})
    notes = Notes()
    groups = [(file.uri, read) for file, read in _read_files(files.files, kind, options, notes)]
    dialogues = _with_unique_ids(groups)
    if not dialogues:
        raise BadInput(f"{files.uri} contains no dialogue")
    return SourceContent(kind, dialogues, notes.warnings())


def select_dialogues(source: Source, dialogues: D) -> D:
    """Return the dialogues that a source's ``offset`` and ``limit`` select. Raises BadInput."""
    stop = None if source.limit is None else source.offset + source.limit
    selected = dialogues[source.offset : stop]
    if not selected:
        raise BadInput(
            f"{source.uri} has {len(dialogues)} dialogues: `offset` of source `{source.name}` is "
            f"{source.offset}, past the last one"
        )
    return selected


def require_labels(
    dialogues: Iterable[Dialogue], uri: str, use: str = "an evaluation source"
) -> None:
    """Raise BadInput if no turn has a label, with the names under which labels are read.

    Parameters
    ----------
    dialogues
        The dialogues of a source.
    uri
        The source's URI, for messages.
    use
        What needs the labels, for messages.
    """
    if not any(turn.labels for dialogue in dialogues for turn in dialogue.turns):
        raise BadInput(
            f"{uri} has no labels: {use} needs them, in the `labels` key of each turn or in the "
            "column set in `dataset.columns.label`"
        )


def format_of(
    files: SourceFiles,
    kind: DataFormat | None,
    options: ReadOptions,
    detected_by: Callable[[SourceFile], SourceFile] = lambda file: file,
) -> DataFormat:
    """Return the format of all files.

    Parameters
    ----------
    files
        The files on this machine.
    kind
        The format. None, or ``HuggingFace``: it is decided by the files' content and names.
    options
        What to read.
    detected_by
        Returns what the format of a file is detected by: the file itself, or its head.

    Raises
    ------
    BadInput
        If the files have several formats, or the format cannot be decided.
    """
    if kind in {DataFormat.MELD, DataFormat.EMORYNLP, DataFormat.CSV}:
        for file in files.files:
            _refuse_json(file)
    if kind is not None and kind is not DataFormat.HUGGING_FACE:
        return kind
    kinds = Counter(detect_format(detected_by(file), options.columns) for file in files.files)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} {name.value}" for name, count in kinds.most_common())
        raise BadInput(
            f"{files.uri} contains files of several formats ({counts}): use a pattern to select "
            "the files of one format"
        )
    return next(iter(kinds))


def _refuse_json(file: SourceFile) -> None:
    """Raise BadInput with an explanation if a file is JSON."""
    if not _is_like_json(read_head(file, _START_BYTES).data):
        return
    text = file.read_bytes().decode("utf-8", "replace").lstrip(_BLANK)
    for part in (text.partition("\n")[0], text):
        try:
            json.loads(part)
        except (ValueError, RecursionError):
            continue
        raise BadInput(explain_json(text, file))


def _is_like_json(data: bytes) -> bool:
    return data.decode("utf-8", "replace").lstrip(_BLANK)[:1] in {"{", "["}


def _read_files(
    files: Sequence[SourceFile], kind: DataFormat, options: ReadOptions, notes: Notes
) -> Iterator[tuple[SourceFile, list[Dialogue]]]:
    """Yield the dialogues of each file; of a table in several files, those of all of them."""
    if kind not in RECORD_FORMATS:
        for file in files:
            yield file, _READERS[kind](file, options, notes)
        return
    for _, group in groupby(files, key=lambda file: SHARD.sub("", file.uri)):
        shards = list(group)
        yield shards[0], read_record_files(shards, kind, options, notes)


def _with_unique_ids(groups: Sequence[tuple[str, list[Dialogue]]]) -> list[Dialogue]:
    """Return the dialogues of all files. If files have equal ids, all ids begin with the file.

    Parameters
    ----------
    groups
        The URI of each file, and its dialogues.
    """
    counts = Counter(dialogue.id for _, dialogues in groups for dialogue in dialogues)
    if max(counts.values(), default=0) < 2:
        return [dialogue for _, dialogues in groups for dialogue in dialogues]
    names = names_below([uri for uri, _ in groups])
    return [
        replace(dialogue, id=f"{name}:{dialogue.id}")
        for name, (_, dialogues) in zip(names, groups, strict=True)
        for dialogue in dialogues
    ]
