"""What the output of a command has for characters that its encoding lacks."""

from __future__ import annotations

import codecs
import io
import json
import sys

#: The name under which Python knows the escapes.
_ESCAPES = "selfemo-escapes"


def escape_missing_characters() -> None:
    """Make standard output and standard error write escapes for characters that they cannot encode.

    Otherwise such a character ends a command with an error: where the locale or
    ``PYTHONIOENCODING`` is not UTF-8. JSON escapes are used, so that JSON stays valid.
    UTF-8 has all characters, and stays as it is.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return the escapes of the characters of an error, and where the text continues."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
