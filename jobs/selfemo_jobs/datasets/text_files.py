"""Source files as text: encodings, CSV rows, and errors that name the file and the line."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfemo_jobs.errors import BadInput

log = logging.getLogger(__name__)

#: Some copies of MELD have Windows-1252 bytes for curly quotes, dashes and dots in lines that are
#: otherwise UTF-8. Only these typographic characters are converted: the encoding of a letter is not
#: guessed.
_TYPOGRAPHY = {
    0xDC00 + byte: bytes([byte]).decode("cp1252")
    for byte in (0x82, 0x84, 0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97)
}


@dataclass(frozen=True)
class Place:
    """A place in a source file."""

    file: str
    """The source's URI, as in the spec."""
    line: int
    """The line's number, from 1. 0 for a JSON document of many lines."""

    def error(self, message: str) -> BadInput:
        """Return an error that names this place."""
        where = f"{self.file} line {self.line}" if self.line else self.file
        return BadInput(f"{where}: {message}")


@dataclass(frozen=True)
class Row:
    """A record of a CSV file."""

    place: Place
    """The place where the record begins."""
    fields: Mapping[str, str]
    """The value of each column."""

    def text(self, column: str) -> str:
        """Return the text of a column on one line. Raises BadInput if it is empty."""
        value = one_line(self.fields[column])
        if not value:
            raise self.place.error(f"`{column}` is empty")
        return value

    def number(self, column: str) -> int:
        """Return the whole number in a column, 0 or more. Raises BadInput if it is not one."""
        value = self.fields[column].strip()
        if not (value.isascii() and value.isdigit()):
            raise self.place.error(f"`{column}` is `{shorten(value)}`: it must be a whole number")
        return int(value)


def read_text(path: Path, file: str, *, fix_typography: bool) -> str:
    """Return the text of a file. It must be UTF-8, with or without a byte-order mark.

    Parameters
    ----------
    path
        The file on this machine.
    file
        The source's URI, for messages.
    fix_typography
        Whether single Windows-1252 bytes of typographic characters (see ``_TYPOGRAPHY``) are
        converted. The number of them is logged.

    Raises
    ------
    BadInput
        If the file is empty, cannot be read, or has a byte that is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise BadInput(f"{file} is empty")
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise Place(file, line).error(
            "a zero byte: the file is damaged, or UTF-16; save it as UTF-8"
        )
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii():
        return text
    fixed = text.translate(_TYPOGRAPHY) if fix_typography else text
    for number, line_text in enumerate(fixed.split("\n"), start=1):
        for character in line_text:
            if "\ud800" <= character <= "\udfff":
                byte = ord(character) - 0xDC00
                raise Place(file, number).error(
                    f"byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"
                )
    if fixed != text:
        count = sum(a != b for a, b in zip(text, fixed, strict=True))
        log.warning("%s: %d Windows-1252 signs read as typography", file, count)
    return fixed


def read_rows(path: Path, file: str, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file (RFC 4180).

    Parameters
    ----------
    path
        The file on this machine.
    file
        The source's URI, for messages.
    columns
        The columns that the file must have.

    Raises
    ------
    BadInput
        If a column is missing, a row has too few or too many fields, or a quote is not closed.
    """
    text = read_text(path, file, fix_typography=True)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records = _records(reader, file)
    _, head = next(records)
    names = [name.strip() for name in head]
    for column in columns:
        if names.count(column) != 1:
            what = "is missing" if column not in names else "is there twice"
            raise BadInput(
                f"{file}: column `{column}` {what} (the file has: {shorten(', '.join(names), 200)})"
            )
    rows = []
    for place, values in records:
        if len(values) != len(names):
            raise place.error(f"{len(values)} fields, the heading has {len(names)}")
        rows.append(Row(place, dict(zip(names, values, strict=True))))
    if not rows:
        raise BadInput(f"{file} has a heading and no rows")
    return rows


def _records(reader: Iterator[list[str]], file: str) -> Iterator[tuple[Place, list[str]]]:
    """Yield each record that is not blank, with the place where it begins."""
    line = 1
    while True:
        place = Place(file, line)
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise place.error(f"not CSV: {error}") from None
        line = reader.line_num + 1  # type: ignore[attr-defined]  # csv.reader's own
        if values:
            yield place, values


def one_line(text: str) -> str:
    """Return a text with each run of white space replaced by a space: prompts are line by line.

    Examples
    --------
    >>> one_line(" Oh,   well.")
    'Oh, well.'
    """
    return " ".join(text.split())


def shorten(text: str, most: int = 60) -> str:
    """Return a text for a message, cut to at most so many characters.

    Examples
    --------
    >>> shorten("surprised", most=6)
    'surpr…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"
