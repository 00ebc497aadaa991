"""CSV and TSV files: rows by their heading, with errors that name the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from selfemo_jobs.datasets.columns import is_part
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import (
    MOST_DIGITS,
    Place,
    SourceFile,
    decode_text,
    shorten,
)
from selfemo_jobs.errors import BadInput

#: The separators that a heading may have. A comma is the one of RFC 4180; spreadsheets write
#: semicolons where the comma separates decimals.
_SEPARATORS = ",\t;|"


@dataclass(frozen=True)
class Row:
    """A record of a CSV file."""

    place: Place
    """The place where the record begins."""
    fields: Mapping[str, str]
    """The value of each column."""
    notes: Notes
    """Counts what is odd in the texts."""

    def text(self, column: str) -> str:
        """Return the text of a column on one line. Raises BadInput if it is empty."""
        value = self.notes.clean(self.fields[column], self.place)
        if not value:
            raise self.place.error(f"`{column}` is empty")
        return value

    def number(self, column: str) -> int:
        """Return the whole number in a column, 0 or more. Raises BadInput if it is not one.

        A number such as 3.0 is whole: pandas writes it so in a column that has empty cells.
        """
        value = self.fields[column].strip()
        digits = value.removesuffix(".0")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
            raise self.place.error(f"`{column}` is `{shorten(value)}`: it must be a whole number")
        return int(digits)


def heading_of(text: str, file: str) -> list[str]:
    """Return the names of the columns of a CSV text. Raises BadInput if it is not CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator_of(text))
    for _, names in _records(reader, file):
        return [name.strip() for name in names]
    return []


def separator_of(text: str) -> str:
    """Return the separator of a CSV text: the one that is most frequent in its first line.

    Examples
    --------
    >>> separator_of("speaker;text;label")
    ';'
    """
    line = text.lstrip("\r\n").replace("\r", "\n").partition("\n")[0]
    return max(_SEPARATORS, key=line.count)


def read_rows(
    file: SourceFile, columns: Sequence[str], notes: Notes, chosen: Collection[str] = ()
) -> list[Row]:
    """Return the rows of a CSV file (RFC 4180). It may have another separator.

    Parameters
    ----------
    file
        The file.
    columns
        The columns that the file must have.
    notes
        Counts what is odd in the file.
    chosen
        The columns that ``dataset.columns`` names. If they are all numbers, and none of them is in
        the heading, the file has no heading: its columns are numbered from 1.

    Raises
    ------
    BadInput
        If a column is missing, a column that is read is there twice, a row has too few or too many
        fields, or a quote is not closed.
    """
    decoded = decode_text(file.read_bytes(), file.uri, fix_typography=True)
    notes.add_decoded(decoded, file.uri)
    lines = io.StringIO(decoded.text, newline="")
    return list(rows_of_lines(lines, separator_of(decoded.text), file.uri, columns, notes, chosen))


def rows_of_lines(
    lines: Iterable[str],
    separator: str,
    file: str,
    columns: Sequence[str],
    notes: Notes,
    chosen: Collection[str] = (),
) -> Iterator[Row]:
    """Yield the rows of the lines of a CSV file.

    Parameters
    ----------
    lines
        All lines of the file with their ends, of any kind.
    separator
        The separator of the fields.
    file
        The file's URI, for messages.
    columns, notes, chosen
        As for :func:`read_rows`.

    Raises
    ------
    BadInput
        As of :func:`read_rows`.
    """
    records = _records(csv.reader(lines, strict=True, delimiter=separator), file)
    first = next(records)
    names = [name.strip() for name in first[1]]
    if chosen and all(name.isdigit() for name in chosen) and not set(chosen) & set(names):
        names = [str(number) for number in range(1, len(names) + 1)]
        records = chain((first,), records)
    for column in columns:
        if names.count(column) != 1:
            what = "is missing" if column not in names else "is there twice"
            raise BadInput(
                f"{file}: column `{column}` {what} (the file has: {shorten(', '.join(names), 200)})"
            )
    twice = next((n for n in names if names.count(n) > 1 and (n in chosen or is_part(n))), None)
    if twice is not None:
        raise BadInput(f"{file}: column `{twice}` is there twice: rename one of them")
    is_empty = True
    for place, values in records:
        is_empty = False
        if len(values) != len(names):
            raise place.error(f"{len(values)} fields, the heading has {len(names)}")
        yield Row(place, dict(zip(names, values, strict=True)), notes)
    if is_empty:
        raise BadInput(f"{file} has a heading and no rows")


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
