"""Source files as text: encodings, line numbers, and one-line errors that name the place."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfemo_jobs.errors import BadInput

log = logging.getLogger(__name__)

#: Copies of MELD in circulation have single Windows-1252 bytes for curly quotes, dashes and dots
#: in lines that are otherwise UTF-8. Only these typographic signs are understood: a letter in
#: another encoding is not guessed at.
_TYPOGRAPHY = {
    0xDC00 + byte: bytes([byte]).decode("cp1252")
    for byte in (0x82, 0x84, 0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97)
}


@dataclass(frozen=True)
class Place:
    """Where something stands in a source file."""

    file: str
    """What the person wrote: the source's URI."""
    line: int
    """From 1; for JSON without lines, 0."""

    def bad(self, message: str) -> BadInput:
        """Return the error for this place."""
        where = f"{self.file} line {self.line}" if self.line else self.file
        return BadInput(f"{where}: {message}")


@dataclass(frozen=True)
class Row:
    """One record of a CSV file."""

    place: Place
    """The line on which the record begins."""
    fields: Mapping[str, str]

    def text(self, column: str) -> str:
        """Return a column as one line of text. Raises BadInput where it is empty."""
        value = one_line(self.fields[column])
        if not value:
            raise self.place.bad(f"`{column}` is empty")
        return value

    def number(self, column: str) -> int:
        """Return a column as a whole number, 0 or more. Raises BadInput."""
        value = self.fields[column].strip()
        if not (value.isascii() and value.isdigit()):
            raise self.place.bad(f"`{column}` is `{shorten(value)}`: it must be a whole number")
        return int(value)


def read_text(path: Path, file: str, *, mend: bool) -> str:
    """Return a file as text.

    Parameters
    ----------
    path
        The file on this machine.
    file
        What the person wrote, for messages.
    mend
        Read single Windows-1252 typographic bytes as the signs they stand for (see
        ``_TYPOGRAPHY``); everything else must be UTF-8, with or without a byte-order mark.

    Raises
    ------
    BadInput
        If the file is empty, cannot be read, or has a byte that is not text.
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
        raise Place(file, line).bad("a zero byte: the file is damaged, or UTF-16; save it as UTF-8")
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii():
        return text
    mended = text.translate(_TYPOGRAPHY) if mend else text
    for number, line_text in enumerate(mended.split("\n"), start=1):
        for sign in line_text:
            if "\ud800" <= sign <= "\udfff":
                byte = ord(sign) - 0xDC00
                raise Place(file, number).bad(
                    f"byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"
                )
    if mended != text:
        count = sum(a != b for a, b in zip(text, mended, strict=True))
        log.warning("%s: %d Windows-1252 signs read as typography", file, count)
    return mended


def read_rows(path: Path, file: str, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file (RFC 4180), with at least the columns named.

    Raises
    ------
    BadInput
        If a column is missing, a row has too few or too many fields, or a quote is not closed.
    """
    reader = csv.reader(io.StringIO(read_text(path, file, mend=True), newline=""), strict=True)
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
            raise place.bad(f"{len(values)} fields, the heading has {len(names)}")
        rows.append(Row(place, dict(zip(names, values, strict=True))))
    if not rows:
        raise BadInput(f"{file} has a heading and no rows")
    return rows


def _records(reader: Iterator[list[str]], file: str) -> Iterator[tuple[Place, list[str]]]:
    """Yield non-blank records with the line on which each begins."""
    line = 1
    while True:
        place = Place(file, line)
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise place.bad(f"not CSV: {error}") from None
        line = reader.line_num + 1  # type: ignore[attr-defined]  # csv.reader's own
        if values:
            yield place, values


def one_line(text: str) -> str:
    """Return text with every run of white space made one blank: prompts are line by line."""
    return " ".join(text.split())


def shorten(text: str, most: int = 60) -> str:
    """Return text cut for a message."""
    return text if len(text) <= most else text[: most - 1] + "…"
