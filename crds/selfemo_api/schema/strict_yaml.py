"""Reads a YAML document as the API server would: JSON types, nothing unknown, nothing twice.

Pydantic is lenient with types ("8" is 8 for it) and PyYAML follows YAML 1.1 (1e-6 is text, a date
is no text); a file must not run here and be refused there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

#: Deeper than any Kubernetes object; a document that contains itself comes here.
MAX_DEPTH = 64


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    field: str
    """Dotted path, e.g. ``spec.selfPlay.groupSize``; empty for the file as a whole."""
    message: str
    line: int | None = None

    def __str__(self) -> str:
        """Return the one line a person reads."""
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" (line {self.line})" if self.line else "")


class _Loader(yaml.SafeLoader):
    """Scalars as kubectl resolves them, and no key twice."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Return what a YAML text holds, and its node (which knows the lines).

    Raises
    ------
    yaml.YAMLError
        If it is not YAML, holds several documents, or a key twice.
    ValueError
        If a scalar is not what its tag says.
    RecursionError
        If it is nested too deep.
    """
    node = yaml.compose(text, Loader=_Loader)
    _refuse_twice(node, 0)
    return yaml.load(text, Loader=_Loader), node  # noqa: S506 - a SafeLoader


def _refuse_twice(node: yaml.Node | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twice(item, depth + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            _refuse_twice(value, depth + 1)


def conform(value: Any, schema: dict[str, Any], path: str = "") -> tuple[Any, list[Problem]]:
    """Return a value with the nulls and unknown fields that the API server drops left out.

    Parameters
    ----------
    schema
        Structural schema, as in the CRD.
    path
        Where the value stands, for the problems.

    Returns
    -------
    value, problems
        A copy with JSON types only, and each wrong type and unknown field. No bounds are checked.
    """
    problems: list[Problem] = []
    return _conform(value, schema, path, problems, 0), problems


def _conform(
    value: Any, schema: dict[str, Any], path: str, problems: list[Problem], depth: int
) -> Any:
    wanted, found = schema.get("type"), _type_name(value)
    if depth > MAX_DEPTH or found is None:
        wrong = f"is no JSON value: {value!r:.60}" if found is None else "is nested too deep"
        problems.append(Problem(path, wrong))
        return None
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if wanted not in (None, found, "number" if found == "integer" else found):
        problems.append(_wrong_type(path, wanted, found))
        return value
    if isinstance(value, dict):
        return _conform_object(value, schema, path, problems, depth + 1)
    if isinstance(value, list):
        items = schema.get("items", {})
        return [
            _conform(item, items, f"{path}[{index}]", problems, depth + 1)
            for index, item in enumerate(value)
        ]
    return value


def _conform_object(
    value: dict[Any, Any], schema: dict[str, Any], path: str, problems: list[Problem], depth: int
) -> dict[str, Any]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields", "type" not in schema)
    out: dict[str, Any] = {}
    for key, item in value.items():
        name = str(key).lower() if isinstance(key, bool) else str(key)
        below = f"{path}.{name}" if path else name
        if name in properties:
            inner = properties[name]
        elif isinstance(others, dict):
            inner = others
        elif keeps:
            inner = {}
        else:
            problems.append(Problem(below, "unknown field"))
            continue
        if item is None and inner:
            continue  # a null is as if it were not there
        out[name] = _conform(item, inner, below, problems, depth)
    return out


def _wrong_type(path: str, wanted: str, found: str) -> Problem:
    """Return the API server's words for a value of a wrong type."""
    return Problem(path, f'Invalid value: "{found}": must be of type {wanted}: "{found}"')


def _type_name(value: Any) -> str | None:
    """Return JSON's name of a value's type; None where JSON cannot hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    return names.get(type(value))


def line_of(node: yaml.Node | None, field: str) -> int | None:
    """Return the line of a field, or of the nearest parent that the file has."""
    line = None
    for part in field.replace("[", ".[").split("."):
        if isinstance(node, yaml.MappingNode):
            match = next((kv for kv in node.value if kv[0].value == part), None)
            if match is None:
                return line
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and part[1:-1].isdecimal():
            index = int(part[1:-1])
            if index >= len(node.value):
                return line
            node = node.value[index]
            line = node.start_mark.line + 1
    return line
