"""CSV and TSV files: rows by their heading, with errors that name the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from selfemo_jobs.datasets.columns import PARTS, TEXT, is_common_name, is_part
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import (
    MOST_DIGITS,
    Place,
    SourceFile,
    decode_text,
    shorten,
)
from selfemo_jobs.errors import BadInput

#: The separators that a file may have, with their names. A comma is the one of RFC 4180;
#: spreadsheets write semicolons where the comma separates decimals.
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
#: The endings of files whose separator is the tab.
_TAB_ENDINGS = frozenset({".tsv", ".tab"})
#: The lines of a file that decide its separator: in so many, the commas of texts differ in number.
HEAD_LINES = 100
#: The most characters of a field: far above any turn. A large file with a quote that is not closed
#: is not read into the memory as a whole.
MOST_FIELD = 16 * 1024**2
# the limit holds for the process; the module's own, 128 KiB, is less than a transcript in one turn
csv.field_size_limit(MOST_FIELD)


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
            raise self.place.error(f"`{column}` is `{shorten(value)}`: it must be an integer")
        return int(digits)


def heading_of(text: str, separator: str, file: str) -> list[str]:
    """Return the names of the columns of a CSV text. Raises BadInput if it is not CSV."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    for _, names in _records(reader, file):
        return [name.strip() for name in names]
    return []


def is_heading(line: str) -> bool:
    """Return whether a line looks like the heading of a table with the texts of turns.

    A column must have a common name of the text. Prose has a blank after each comma, so that a line
    with such blanks must name another part of a turn, too.

    Parameters
    ----------
    line
        The first line of a file.

    Examples
    --------
    >>> is_heading("Speaker; Utterance"), is_heading("id,text"), is_heading("Text, please!")
    (True, True, False)
    """
    return any(_is_heading(line, separator) for separator in _SEPARATORS)


def _is_heading(line: str, separator: str) -> bool:
    names = next(csv.reader([line], delimiter=separator), [])
    parts = {part for part in PARTS for name in names if is_common_name(part, name)}
    return len(names) > 1 and TEXT in parts and (len(parts) > 1 or f"{separator} " not in line)


def separator_of(
    lines: Iterable[str],
    ending: str = "",
    columns: Collection[str] = (),
    chosen: Collection[str] = (),
) -> str:
    r"""Return the separator of a CSV file.

    It is the one with which the heading has the columns that are needed, and with which the rows
    have as many fields as the heading. If several do, or none does, it is the one that is most
    frequent in the first line; but a tab hardly occurs in texts, and wins.

    Parameters
    ----------
    lines
        The lines of the file with their ends. :data:`HEAD_LINES` of them are read.
    ending
        The ending of the file's name. That of a TSV file decides.
    columns, chosen
        As for :func:`read_rows`.

    Examples
    --------
    >>> separator_of(["speaker;text;label"])
    ';'
    >>> separator_of(["Well, well\t27\n", "Oh, really, no\t3\n"])
    '\t'
    """
    if ending in _TAB_ENDINGS:
        return "\t"
    head = list(islice(lines, HEAD_LINES))
    first_line = next((line for line in head if line.strip("\r\n")), "")
    needed = {*columns, *chosen}

    def rank(separator: str) -> tuple[bool, bool, bool, int]:
        rows = _head_rows(head, separator)
        names, _ = _names(rows[0], chosen) if rows else ([], False)
        is_even = len(names) > 1 and all(len(row) == len(names) for row in rows)
        is_tab = is_even and separator == "\t"
        return needed <= set(names), is_even, is_tab, first_line.count(separator)

    return max(_SEPARATORS, key=rank)


def _head_rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the fields of the first rows. An empty row stands for one that is not CSV."""
    reader = csv.reader(lines, strict=True, delimiter=separator)
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in reader if row)  # those before an error stay
    except csv.Error:
        if reader.line_num < len(lines):  # otherwise the last line ends within quotes
            rows.append([])
    return rows


def _names(first: Sequence[str], chosen: Collection[str]) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the first row of the file is a heading."""
    names = [name.strip() for name in first]
    if not chosen or not all(name.isdigit() for name in chosen):
        return names, True
    # Numbers name columns of a heading of numbers, as pandas writes one, with a blank name for its
    # index. Otherwise they count the columns: a row may have such a number as a label.
    if set(chosen) & set(names) and all(name.isdigit() or not name for name in names):
        return names, True
    return [str(number) for number in range(1, len(names) + 1)], False


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
        The columns that ``dataset.columns`` names. If they are all numbers, the file has no
        heading, and its columns are numbered from 1: unless its first row has one of them, and
        numbers and blanks alone.

    Raises
    ------
    BadInput
        If a column is missing, a column that is read appears twice, a row has too few or too many
        fields, or a quote is not closed.
    """
    decoded = decode_text(file.read_bytes(), file.uri, fix_typography=True)
    notes.add_decoded(decoded, file.uri)
    lines = io.StringIO(decoded.text, newline="")
    separator = separator_of(lines, file.ending, columns, chosen)
    lines.seek(0)
    return list(rows_of_lines(lines, separator, file.uri, columns, notes, chosen))


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
    names, has_heading = _names(first[1], chosen)
    if not has_heading:
        records = chain((first,), records)
    for column in columns:
        if names.count(column) != 1:
            what = "is missing" if column not in names else "appears twice"
            raise BadInput(
                f"{file}: column `{column}` {what} (columns in the file: "
                f"{shorten(', '.join(names), 200)})"
            )
    twice = next((n for n in names if names.count(n) > 1 and (n in chosen or is_part(n))), None)
    if twice is not None:
        raise BadInput(f"{file}: column `{twice}` appears twice: rename one of them")
    is_empty = True
    for place, values in records:
        is_empty = False
        if len(values) != len(names):
            raise place.error(
                f"{len(values)} fields, {'the header row' if has_heading else 'the first row'} "
                f"has {len(names)} (separated by {_SEPARATORS[separator]})"
            )
        yield Row(place, dict(zip(names, values, strict=True)), notes)
    if is_empty:
        raise BadInput(f"{file} has a header row but no other rows")


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
            raise place.error(f"not CSV: {_problem(error)}") from None
        line = reader.line_num + 1  # type: ignore[attr-defined]  # csv.reader's own
        if values:
            yield place, values


def _problem(error: csv.Error) -> str:
    """Return what is wrong with a row, which may have several lines."""
    text = str(error)
    if text == "unexpected end of data":
        return "a quote in the row that begins here is not closed before the end of the file"
    if text.startswith("field larger than"):
        return (
            f"a field of the row that begins here has more than {MOST_FIELD} characters: close "
            "its quote, or split the text"
        )
    return text
