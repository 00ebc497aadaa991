"""Values of JSON documents and of tables, with errors that name the place and the field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import MOST_DIGITS, Place, one_line, shorten
from selfemo_jobs.errors import BadInput

_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "text"}


@dataclass(frozen=True)
class Node:
    """A value of a JSON document or of a row."""

    place: Place
    """The place of the document or of the row."""
    path: str
    """The path to the value, as ``turns[2].text``. Empty for the document itself."""
    value: Any
    key: str = ""
    """The last key of the path. The items of a list have the key of the list."""

    def error(self, message: str) -> BadInput:
        """Return an error that names the place and the path of the value."""
        return self.place.error(f"`{self.path}` {message}" if self.path else message)

    def get(self, key: str) -> Node:
        """Return the value of a key of an object. Raises BadInput if it is missing."""
        if key not in self._as(dict):
            raise self.missing(key)
        return self._below(key, self.value[key])

    def missing(self, key: str, advice: str = "") -> BadInput:
        """Return an error for a key that an object lacks."""
        return self._below(key, None).error(f"is missing{advice and ': '}{advice}")

    def find(self, key: str) -> Node | None:
        """Return the value of a key of an object, or None if it is missing or null."""
        value = self._as(dict).get(key)
        return None if value is None else self._below(key, value)

    def items(self) -> list[Node]:
        """Return the items of a list. Raises BadInput if the value is not a list."""
        values = self._as(list)
        return [
            Node(self.place, f"{self.path}[{i}]", item, self.key) for i, item in enumerate(values)
        ]

    def text(self, notes: Notes | None = None) -> str:
        """Return a text as one line. Raises BadInput if it is empty or not a text.

        Parameters
        ----------
        notes
            Counts what is odd in the text, and fixes its typography. None: neither is done.
        """
        value = "" if self.value is None else self._as(str)
        line = one_line(value) if notes is None else notes.clean(value, self.place)
        if not line:
            raise self.error("is empty")
        return line

    def name(self, notes: Notes | None = None) -> str:
        """Return a name: a text as one line, or a whole number. Raises BadInput."""
        if type(self.value) is float and self.value.is_integer():
            return str(int(self.value))
        return str(self.value) if type(self.value) is int else self.text(notes)

    def number(self) -> int:
        """Return a whole number, 0 or more, also if it is written as text. Raises BadInput."""
        value = self.value
        if isinstance(value, str):
            digits = value.strip().removesuffix(".0")
            whole = digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS
            value = int(digits) if whole else None
        elif type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value < 10**MOST_DIGITS:
            raise self.error(f"is `{shorten(str(self.value))}`: it must be an integer")
        return value

    def entries(self) -> list[tuple[str, Node]]:
        """Return the keys and values of an object, in file order. Raises BadInput."""
        return [(key, self._below(key, value)) for key, value in self._as(dict).items()]

    def _as(self, kind: type) -> Any:
        if not isinstance(self.value, kind):
            raise self.error(f"must be {_NAMES[kind]}")
        return self.value

    def _below(self, key: str, value: Any) -> Node:
        return Node(self.place, f"{self.path}.{key}" if self.path else key, value, key)


def parse(text: str, place: Place) -> Node:
    """Return the value of a JSON document.

    Parameters
    ----------
    text
        The document.
    place
        The place where it begins. It is the place of errors.

    Raises
    ------
    BadInput
        If the text is not JSON, has a key twice, or has half of a surrogate pair.

    Examples
    --------
    >>> document = parse('{"id": "d1", "turns": []}', Place("train.jsonl", 1))
    >>> document.get("id").text()
    'd1'
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = max(place.line, 1) + error.lineno - 1
        raise Place(place.file, line).error(f"not JSON: {error.msg}") from None
    except UnicodeEncodeError:
        raise place.error("not JSON: unpaired surrogate") from None
    except (ValueError, RecursionError) as error:
        raise place.error(f"not JSON: {error}") from None
    return Node(place, "", value)


def read_documents(text: str, file: str) -> list[Node]:
    """Return the objects of a JSON Lines text; of a JSON list, its items.

    Parameters
    ----------
    text
        The text: an object in each line, one object over several lines, or a list of objects.
    file
        The file's URI, for messages.

    Raises
    ------
    BadInput
        If a line, or the whole text, is not JSON.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if is_document([line for _, line in lines]):
        root = parse(text, Place(file, 0))
    elif len(lines) == 1:
        root = parse(lines[0][1], Place(file, lines[0][0]))
    else:
        return [parse(line, Place(file, number)) for number, line in lines]
    return root.items() if isinstance(root.value, list) else [root]


def is_document(lines: Sequence[str]) -> bool:
    """Return whether lines are one JSON document over several lines, not JSON Lines.

    Parameters
    ----------
    lines
        The lines that are not blank, at least the first two of them.
    """
    if len(lines) < 2 or _decodes(lines[0]):
        return False
    first = lines[0].strip()
    return first in {"{", "["} or (first[:1] in {"{", "["} and not _decodes(lines[1]))


def _decodes(line: str) -> bool:
    """Return whether a line is JSON alone."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` appears twice")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
