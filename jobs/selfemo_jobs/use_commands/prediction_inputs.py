"""What ``selfemo predict`` and ``selfemo respond`` read: files, standard input, or texts."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfemo_api.spec import DataFormat
from selfemo_api.text.control_characters import is_text
from selfemo_api.text.files import is_stream
from selfemo_jobs.data_commands.options import (
    environment_store,
    source_columns,
    source_uri,
)
from selfemo_jobs.datasets.arrow_files import ARROW, PARQUET
from selfemo_jobs.datasets.csv_files import is_heading
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.datasets.dialogue_stream import DialogueStream, table_groups
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.large_files import read_head, text_lines
from selfemo_jobs.datasets.plain_text import read_plain_text
from selfemo_jobs.datasets.reading import Notes, ReadOptions, SourceWarning
from selfemo_jobs.datasets.source_files import DATA_ENDINGS, SourceFiles, names_below
from selfemo_jobs.datasets.text_files import Place, SourceFile, shorten
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.local_files import translated_errors
from selfemo_jobs.use_commands.use_options import PLAIN_TEXT

#: The name of standard input, in messages and before the ids of its dialogues.
_STDIN = "stdin"
_HINT = "Enter one turn per line, as `Speaker: text` or plain text. Press Ctrl-D to finish.\n"
#: The size of the beginning of a file by which plain text is told from data.
_HEAD_BYTES = 4096
#: How JSON begins: with an object or a list, and what may follow in it.
_JSON = re.compile(r'\s*(?:\{\s*["}]|\[\s*[\[{"\]])')


@dataclass(frozen=True)
class InputDialogue:
    """A dialogue of the input."""

    id: str
    """The id of the dialogue. If there are several files, it begins with the name of the file."""
    turns: Iterable[Utterance]
    """The turns in order. They may be read from the file while they are iterated over, once."""


class _Source(Protocol):
    """One file, the parts of one table, or texts."""

    @property
    def uri(self) -> str: ...

    @property
    def paths(self) -> Sequence[Path]: ...

    @property
    def digest(self) -> str: ...

    def dialogues(self) -> Iterator[InputDialogue]: ...

    def warnings(self) -> Sequence[SourceWarning]: ...


class DialogueInput:
    """The dialogues of all inputs of a command, in order.

    Parameters
    ----------
    sources
        The sources of the dialogues.
    """

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._sources = sources
        self._prefixes = _prefixes([source.uri for source in sources])

    @property
    def digest(self) -> str:
        """A SHA-256 of the dialogues and their ids."""
        pairs = zip(self._prefixes, self._sources, strict=True)
        return sha256("\n".join(f"{prefix} {source.digest}" for prefix, source in pairs).encode())

    @property
    def paths(self) -> list[Path]:
        """The files that are read."""
        return [path for source in self._sources for path in source.paths]

    def dialogues(self) -> Iterator[InputDialogue]:
        """Yield the dialogues. The turns of one must be taken before the next one.

        Raises
        ------
        BadInput
            If a source cannot be read, or has no turn. The message names the file and the row.
        """
        for prefix, source in zip(self._prefixes, self._sources, strict=True):
            for dialogue in source.dialogues():
                yield InputDialogue(prefix + dialogue.id, dialogue.turns)

    def warnings(self) -> list[str]:
        """Return what is odd in the files. It is complete after the last dialogue."""
        return [f"{source.uri}: {w.message}" for source in self._sources for w in source.warnings()]


def open_input(arguments: argparse.Namespace, work: Path) -> DialogueInput:
    """Return the dialogues that the arguments name. Standard input is read to its end.

    Parameters
    ----------
    arguments
        The parsed arguments.
    work
        The scratch folder.

    Raises
    ------
    BadInput
        If an input does not exist, there are texts and files, or an option is malformed.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    if arguments.text and arguments.input:
        raise BadInput("specify either --text or INPUT, not both")
    if arguments.text:
        return DialogueInput([_Texts(arguments.text)])
    options = ReadOptions(None, False, source_columns(arguments.columns))
    return open_sources(arguments.input or ["-"], work, options, arguments.format)


def open_sources(
    sources: Sequence[str], work: Path, options: ReadOptions, kind: str | None = None
) -> DialogueInput:
    """Return the dialogues of some sources.

    Parameters
    ----------
    sources
        Files, folders, patterns or URIs. ``-``: standard input, which is read to its end.
    work
        The scratch folder.
    options
        What to read. Labels are never read.
    kind
        The format: ``Text`` for plain text, or a value of ``DataFormat``. None: it follows from the
        names and the content of the files.

    Raises
    ------
    BadInput
        If a source does not exist.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    inputs = list(dict.fromkeys(sources))
    groups = [group for text in inputs for group in table_groups(_fetch(text, work))]
    return DialogueInput([s for group in _unique(groups) for s in _sources(group, kind, options)])


def _unique(groups: Iterable[SourceFiles]) -> list[SourceFiles]:
    """Return inputs without those whose files an earlier one has, in another spelling.

    A link to a file is a file of its own, with its own name. So are equal files of the hub, whose
    cache has links to one copy.
    """
    by_path: dict[tuple[Path, ...], SourceFiles] = {}
    for group in groups:
        paths = tuple(file.path.parent.resolve() / file.path.name for file in group.files)
        by_path.setdefault(paths, group)
    return list(by_path.values())


def _fetch(text: str, work: Path) -> SourceFiles:
    """Return the files of an argument."""
    if text == "-":
        path = _spooled_stdin(work)
        return SourceFiles(_STDIN, (SourceFile(path, _STDIN),))
    path = Path(text).expanduser()
    if path.is_file():
        return SourceFiles(text, (SourceFile(path, text),))
    if is_stream(path):  # a pipe, such as that of `<(zcat turns.gz)`
        return SourceFiles(text, (SourceFile(_spooled(path, work), text),))
    return fetch_source(source_uri(text), environment_store(work), work)


def _spooled_stdin(work: Path) -> Path:
    """Return a file with the content of standard input: it may be larger than the memory."""
    path, stream = work / _STDIN, sys.stdin.buffer
    with path.open("wb") as file:
        if sys.stdin.isatty():
            sys.stderr.write(_HINT)
            file.writelines(iter(stream.readline, b""))  # a block would take a second Ctrl-D
        else:
            shutil.copyfileobj(stream, file)
    return path


def _spooled(path: Path, work: Path) -> Path:
    """Return a file with the content of a pipe or a device, which can be read only once."""
    folder = Path(tempfile.mkdtemp(dir=work))
    with (
        translated_errors(path),
        path.open("rb") as stream,
        (folder / path.name).open("wb") as file,
    ):
        shutil.copyfileobj(stream, file)
    return folder / path.name


def _sources(files: SourceFiles, kind: str | None, options: ReadOptions) -> list[_Source]:
    """Return the sources of a file, or of the parts of one table. Plain text has no parts."""
    kind = kind or _default_kind(files.files[0], options)
    if kind == PLAIN_TEXT:
        return [_TextFile(file) for file in files.files]
    return [_DataFiles(files, DataFormat(kind) if kind else None, options)]


def _default_kind(file: SourceFile, options: ReadOptions) -> str | None:
    """Return the format of a file that no option names; None if it follows from the content.

    A file is plain text if its name and its beginning are not those of data, and no columns are
    named. Raises BadInput if it looks like a table then: its commas would be read as words.
    """
    if file.ending in DATA_ENDINGS:
        return None
    head = read_head(file, _HEAD_BYTES).data
    text = head.decode("utf-8", "replace").removeprefix("\ufeff")
    if head.startswith((PARQUET, *ARROW)) or _JSON.match(text):
        return None
    if options.columns:
        return DataFormat.CSV
    first_line = next(iter(text.lstrip().splitlines()), "")
    if is_heading(first_line):
        raise BadInput(
            f"{file.uri} looks like a table: its first line is `{shorten(first_line)}`. Use a "
            "file extension such as .csv, or specify the format with `--format CSV` or the "
            f"columns with `--columns`; `--format {PLAIN_TEXT}` reads it as plain text"
        )
    return PLAIN_TEXT


class _TextFile:
    """A file of plain text: a dialogue, or several with blank lines between them."""

    def __init__(self, file: SourceFile) -> None:
        self.uri = file.uri
        self.paths = [file.path]
        self._file = file
        self._notes = Notes()

    @property
    def digest(self) -> str:
        return f"{PLAIN_TEXT} {SourceFiles(self.uri, (self._file,)).sha256}"

    def dialogues(self) -> Iterator[InputDialogue]:
        lines = text_lines(self._file, self._notes, fix_typography=True, newline="")
        places = ((Place(self.uri, number), line) for number, line in enumerate(lines, start=1))
        number = 0
        for number, turns in enumerate(read_plain_text(places, self._notes), start=1):
            yield InputDialogue(str(number), turns)
        if not number:
            raise BadInput(f"{self.uri} is empty: it must contain one turn per line")

    def warnings(self) -> Sequence[SourceWarning]:
        return self._notes.warnings()


class _Texts:
    """The texts of the command line: one dialogue."""

    uri = "--text"
    paths: Sequence[Path] = ()

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._notes = Notes()

    @property
    def digest(self) -> str:
        return sha256("\n".join(map(ascii, self._texts)).encode())

    def dialogues(self) -> Iterator[InputDialogue]:
        for number, text in enumerate(self._texts, start=1):
            place = Place(self.uri, number, "number")
            if not text.strip():
                raise place.error("is empty")
            if not is_text(text):
                raise place.error("contains bytes that are not UTF-8")
        places = ((Place(self.uri, n, "number"), text) for n, text in enumerate(self._texts, 1))
        for turns in read_plain_text(places, self._notes):
            yield InputDialogue("1", turns)

    def warnings(self) -> Sequence[SourceWarning]:
        return self._notes.warnings()


class _DataFiles:
    """A file of dialogues, or the parts of one table."""

    def __init__(self, files: SourceFiles, kind: DataFormat | None, options: ReadOptions) -> None:
        self.uri = files.uri
        self.paths = [file.path for file in files.files]
        self._files = files
        self._kind = kind
        self._options = options
        self._stream = DialogueStream(files, kind, options)

    @property
    def digest(self) -> str:
        columns = sorted(self._options.columns.items())
        return f"{self._kind} {columns} {self._files.sha256}"

    def dialogues(self) -> Iterator[InputDialogue]:
        return (InputDialogue(dialogue.id, dialogue.turns) for dialogue in self._stream)

    def warnings(self) -> Sequence[SourceWarning]:
        return self._stream.warnings


def _prefixes(uris: Sequence[str]) -> list[str]:
    """Return what stands before the ids of each source: nothing, or the name of the file.

    Examples
    --------
    >>> _prefixes(["talks/a.csv"]), _prefixes(["talks/a.csv", "talks/old/b.csv"])
    ([''], ['a.csv:', 'old/b.csv:'])
    """
    if len(uris) == 1:
        return [""]
    absolute = [
        uri if "://" in uri or uri == _STDIN else Path(uri).absolute().as_uri() for uri in uris
    ]
    return [f"{name}:" for name in names_below(absolute)]
