"""Source files as text: encodings, compression, and errors that name the file and the line."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

from selfemo_jobs.errors import BadInput

#: The Windows-1252 sign of each byte from 0x80 to 0x9F that has one.
WINDOWS_1252 = {
    byte: sign for byte in range(0x80, 0xA0) if (sign := bytes([byte]).decode("cp1252", "ignore"))
}
#: Some copies of MELD have Windows-1252 bytes for curly quotes, dashes and dots in lines that are
#: otherwise UTF-8. Only these typographic characters are converted: the encoding of a letter is not
#: guessed. The keys are what Python decodes such bytes to.
_TYPOGRAPHY = {
    0xDC00 + byte: WINDOWS_1252[byte]
    for byte in (0x82, 0x84, 0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97)
}
#: The most digits of a whole number, such as the number of a turn: those of 64 bits.
MOST_DIGITS = 18
#: The first bytes of files that are not read, and what to do with them.
_NOT_READ = (
    *(
        (
            bytes([0x80, version]),
            "is a pickle file, and unpickling can run code: convert it to JSON Lines",
        )
        for version in range(2, 6)
    ),
    (b"PK\x03\x04", "is a ZIP archive or an Excel file: unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an Excel file: save the sheet as CSV"),
    (b"BZh", "is compressed with bzip2: unpack it, or use gzip"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it, or use gzip"),
    (b"version https://git-lfs", "is a Git LFS pointer: fetch the file with `git lfs pull`"),
)


@dataclass(frozen=True)
class Place:
    """A place in a source file."""

    file: str
    """The file's URI."""
    line: int
    """The line's number, from 1. 0 for a JSON document of many lines."""
    unit: str = "line"
    """What the number counts: ``line``, or ``row`` in a file that is not text."""

    @property
    def within(self) -> str:
        """The place within its file, as ``line 3``; empty for the whole file."""
        return f"{self.unit} {self.line}" if self.line else ""

    def __str__(self) -> str:
        return f"{self.file} {self.within}".rstrip()

    def error(self, message: str) -> BadInput:
        """Return an error that names this place."""
        return BadInput(f"{self}: {message}")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, on this machine."""

    path: Path
    """The file on this machine."""
    uri: str
    """The file's URI, for messages."""

    @property
    def ending(self) -> str:
        """The ending of the name in lower case, without ``.gz``; empty if there is none."""
        name = self.path.name.lower().removesuffix(".gz")
        return Path(name).suffix

    def read_bytes(self) -> bytes:
        """Return the bytes of the file; a gzip file is unpacked.

        Raises
        ------
        BadInput
            If the file cannot be read or unpacked, or needs another program to be read.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BadInput(f"{self.uri}: {error.strerror}") from None
        if data.startswith(b"\x1f\x8b"):
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error) as error:
                raise BadInput(f"{self.uri} is a damaged gzip file: {error}") from None
        check_readable(data, self.uri)
        return data


def check_readable(data: bytes, file: str) -> None:
    """Check that a file is not one that needs another program to be read.

    Parameters
    ----------
    data
        The first bytes of the file.
    file
        The file's URI, for the message.

    Raises
    ------
    BadInput
        If it is such a file. The message says what to do with it.
    """
    for first, advice in _NOT_READ:
        if data.startswith(first):
            raise BadInput(f"{file} {advice}")


@dataclass(frozen=True)
class DecodedText:
    """The text of a file."""

    text: str
    """The text."""
    converted: int = 0
    """The number of single Windows-1252 bytes that were converted."""
    first_line: int = 0
    """The line of the first of them, from 1."""


def decode_text(data: bytes, file: str, *, fix_typography: bool) -> DecodedText:
    """Return bytes as text. They must be UTF-8, with or without a byte-order mark.

    Parameters
    ----------
    data
        The bytes of a whole file.
    file
        The file's URI, for messages.
    fix_typography
        Whether single Windows-1252 bytes of typographic characters (see ``_TYPOGRAPHY``) are
        converted.

    Raises
    ------
    BadInput
        If the file is empty, or has a byte that is not UTF-8.
    """
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if not text.strip():
        raise BadInput(f"{file} is empty")
    return check_encoding(text, file, fix_typography=fix_typography)


def check_encoding(
    text: str, file: str, *, fix_typography: bool, first_line: int = 1
) -> DecodedText:
    """Check a text that was decoded with Python's ``surrogateescape``, and fix its typography.

    Parameters
    ----------
    text
        The text: a whole file, or some of its lines.
    file
        The file's URI, for messages.
    fix_typography
        As for :func:`decode_text`.
    first_line
        The number of the text's first line in the file, for messages.

    Raises
    ------
    BadInput
        If the text has a zero byte, or a byte that is not UTF-8.
    """
    zero = text.find("\0")
    if zero >= 0:
        raise Place(file, first_line + text.count("\n", 0, zero)).error(
            "a zero byte: the file is damaged, or UTF-16; save it as UTF-8"
        )
    if text.isascii():
        return DecodedText(text)
    fixed = text.translate(_TYPOGRAPHY) if fix_typography else text
    for number, line_text in enumerate(fixed.split("\n"), start=first_line):
        for character in line_text:
            if "\ud800" <= character <= "\udfff":
                byte = ord(character) - 0xDC00
                raise Place(file, number).error(
                    f"byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"
                )
    if fixed == text:
        return DecodedText(text)
    positions = [i for i, (a, b) in enumerate(zip(text, fixed, strict=True)) if a != b]
    return DecodedText(fixed, len(positions), first_line + text.count("\n", 0, positions[0]))


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
