"""JSON read strictly, with errors that name the line and the field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from selfemo_jobs.datasets.text_files import Place, one_line
from selfemo_jobs.errors import BadInput

_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "text"}


@dataclass(frozen=True)
class Node:
    """A JSON value with the way to it: ``turns[2].text``."""

    place: Place
    path: str
    value: Any

    def bad(self, message: str) -> BadInput:
        """Return the error for this value."""
        return self.place.bad(f"`{self.path}` {message}" if self.path else message)

    def get(self, key: str) -> Node:
        """Return the value under a key. Raises BadInput where it is missing."""
        if key not in self._as(dict):
            raise self._below(key, None).bad("is missing")
        return self._below(key, self.value[key])

    def find(self, key: str) -> Node | None:
        """Return the value under a key, or None where it is missing or null."""
        value = self._as(dict).get(key)
        return None if value is None else self._below(key, value)

    def items(self) -> list[Node]:
        """Return the items of a list. Raises BadInput."""
        values = self._as(list)
        return [Node(self.place, f"{self.path}[{i}]", v) for i, v in enumerate(values)]

    def text(self) -> str:
        """Return text as one line. Raises BadInput where it is empty or no text."""
        value = one_line(self._as(str))
        if not value:
            raise self.bad("is empty")
        return value

    def entries(self) -> list[tuple[str, Node]]:
        """Return an object's keys and values in file order. Raises BadInput."""
        return [(key, self._below(key, value)) for key, value in self._as(dict).items()]

    def _as(self, kind: type) -> Any:
        if not isinstance(self.value, kind):
            raise self.bad(f"must be {_NAMES[kind]}")
        return self.value

    def _below(self, key: str, value: Any) -> Node:
        return Node(self.place, f"{self.path}.{key}" if self.path else key, value)


def parse(text: str, place: Place) -> Node:
    """Return the JSON value in a text that begins at ``place``.

    Raises
    ------
    BadInput
        If it is not JSON, names a key twice, or has a half of a surrogate pair.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = max(place.line, 1) + error.lineno - 1
        raise Place(place.file, line).bad(f"not JSON: {error.msg}") from None
    except UnicodeEncodeError:
        raise place.bad("not JSON: half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise place.bad(f"not JSON: {error}") from None
    return Node(place, "", value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
