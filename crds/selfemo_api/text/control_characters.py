"""External text, before a user or a terminal reads it.

A label, a speaker, a file name or an error may contain control characters. Printed as they are,
they could move the cursor, change colors, start a command of the terminal, or hide what a line
contains. All commands print such text through one of these functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

#: Controls beyond ASCII: C1, signs that change the direction of text, line and paragraph
#: separators, halves of surrogate pairs, and invisible tags.
_BEYOND_ASCII = (
    "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[\x00-\x1f{_BEYOND_ASCII}]")
_CONTROL_BUT_TAB = re.compile(f"[\x00-\x08\x0a-\x1f{_BEYOND_ASCII}]")
_IN_JSON = re.compile(f"[{_BEYOND_ASCII}]")


def printable(line: str) -> str:
    r"""Return a line of text with a replacement character for each control character but tabs.

    Parameters
    ----------
    line
        The line. A line break in it is replaced, too.

    Examples
    --------
    >>> printable("a\x1b[31mb\tc")
    'a\ufffd[31mb\tc'
    """
    return _CONTROL_BUT_TAB.sub("\N{REPLACEMENT CHARACTER}", line)


def printable_lines(text: str) -> str:
    r"""Return a text with a replacement character for each control character.

    Parameters
    ----------
    text
        The text. Its line breaks and tabs stay.

    Examples
    --------
    >>> printable_lines("a\x9bb\nc")
    'a\ufffdb\nc'
    """
    return "\n".join(map(printable, text.split("\n")))


def visible(text: str) -> str:
    r"""Return a text in which control characters are written as escapes.

    Parameters
    ----------
    text
        Any text, for example one of a file.

    Examples
    --------
    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def json_text(
    value: Any, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    r"""Return a value as JSON without control characters, also where JSON allows them.

    Parameters
    ----------
    value
        The value.
    indent
        The number of spaces per level. If None, the result is one line.
    default
        Returns a JSON value for a value that is not JSON. If None, such a value is an error.

    Examples
    --------
    >>> json_text({"text": "Zoë \x9b31m"})
    '{"text": "Zoë \\u009b31m"}'
    """
    return escaped_json(json.dumps(value, ensure_ascii=False, indent=indent, default=default))


def escaped_json(text: str) -> str:
    r"""Return JSON in which the control characters of its strings are escapes. Its value stays.

    Parameters
    ----------
    text
        A JSON text.

    Examples
    --------
    >>> escaped_json('["Zoë \x9b31m"]')
    '["Zoë \\u009b31m"]'
    """
    return _IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], text)


#: A human-readable text in the API: a stage, a pod or an event may have written it. Its control
#: characters are replaced when it is read.
PlainText = Annotated[str, AfterValidator(printable_lines)]


def is_text(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it contains no half of a surrogate pair.

    Python inserts one for each byte of the command line that is not UTF-8.

    Examples
    --------
    >>> is_text("joy"), is_text("hi " + chr(0xDCE9))
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
