"""Strict JSON, with errors that name the line and the field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from selfemo_jobs.datasets.text_files import Place, one_line
from selfemo_jobs.errors import BadInput

_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "text"}


@dataclass(frozen=True)
class Node:
    """A value of a JSON document."""

    place: Place
    """The place of the document."""
    path: str
    """The path to the value, as ``turns[2].text``. Empty for the document itself."""
    value: Any

    def error(self, message: str) -> BadInput:
        """Return an error that names the place and the path of the value."""
        return self.place.error(f"`{self.path}` {message}" if self.path else message)

    def get(self, key: str) -> Node:
        """Return the value of a key of an object. Raises BadInput if it is missing."""
        if key not in self._as(dict):
            raise self._below(key, None).error("is missing")
        return self._below(key, self.value[key])

    def find(self, key: str) -> Node | None:
        """Return the value of a key of an object, or None if it is missing or null."""
        value = self._as(dict).get(key)
        return None if value is None else self._below(key, value)

    def items(self) -> list[Node]:
        """Return the items of a list. Raises BadInput if the value is not a list."""
        values = self._as(list)
        return [Node(self.place, f"{self.path}[{i}]", v) for i, v in enumerate(values)]

    def text(self) -> str:
        """Return a text as one line. Raises BadInput if it is empty or not a text."""
        value = one_line(self._as(str))
        if not value:
            raise self.error("is empty")
        return value

    def entries(self) -> list[tuple[str, Node]]:
        """Return the keys and values of an object, in file order. Raises BadInput."""
        return [(key, self._below(key, value)) for key, value in self._as(dict).items()]

    def _as(self, kind: type) -> Any:
        if not isinstance(self.value, kind):
            raise self.error(f"must be {_NAMES[kind]}")
        return self.value

    def _below(self, key: str, value: Any) -> Node:
        return Node(self.place, f"{self.path}.{key}" if self.path else key, value)


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
        raise place.error("not JSON: half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise place.error(f"not JSON: {error}") from None
    return Node(place, "", value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
