"""Compares a value with a schema as the API server does: JSON types, and no unknown field."""

from __future__ import annotations

import math
from typing import Any

from selfemo_api.schema.strict_yaml import MAX_DEPTH, UNKNOWN_FIELD, Problem


def conform(value: Any, schema: dict[str, Any], path: str = "") -> tuple[Any, list[Problem]]:
    """Return a value without the nulls and unknown fields that the API server drops.

    Parameters
    ----------
    value
        The value of a YAML document. It is not changed.
    schema
        The structural schema of the value, as in the CRD.
    path
        The dotted path of the value, for the problems.

    Returns
    -------
    value, problems
        A copy with only JSON types, and a problem for each wrong type and unknown field. Bounds are
        not checked.

    Examples
    --------
    >>> conform({"seed": 3.0}, {"type": "object", "properties": {"seed": {"type": "integer"}}})
    ({'seed': 3}, [])
    """
    problems: list[Problem] = []
    return _conform(value, schema, path, problems, 0), problems


def _conform(
    value: Any, schema: dict[str, Any], path: str, problems: list[Problem], depth: int
) -> Any:
    expected, actual = schema.get("type"), _type_name(value)
    if actual is None or depth > MAX_DEPTH:
        too_deep = actual is not None
        message = "is nested too deeply" if too_deep else f"is not a JSON value: {value!r:.60}"
        problems.append(Problem(path, message))
        return None
    if expected == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if expected not in (None, actual, "number" if actual == "integer" else actual):
        problems.append(_wrong_type(path, expected, actual))
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
    keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields", "type" not in schema)
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = str(key).lower() if isinstance(key, bool) else str(key)
        below = f"{path}.{name}" if path else name
        if name in properties:
            inner = properties[name]
        elif isinstance(others, dict):
            inner = others
        elif keeps_unknown:
            inner = {}
        else:
            problems.append(Problem(below, UNKNOWN_FIELD))
            continue
        if item is None and inner:
            continue  # a null has the same meaning as a missing field
        result[name] = _conform(item, inner, below, problems, depth)
    return result


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Return a value with the defaults that the API server sets, and numbers as CEL reads them.

    Parameters
    ----------
    value
        The value, which fits the schema. It is not changed.
    schema
        The structural schema of the value, as in the CRD. A ``number`` becomes a float.

    Examples
    --------
    >>> with_defaults({}, {"properties": {"seed": {"type": "integer", "default": 0}}})
    {'seed': 0}
    """
    if isinstance(value, dict) and "properties" in schema:
        value = dict(value)
        for name, below in schema["properties"].items():
            if name not in value and "default" in below:
                value[name] = below["default"]
            if name in value:
                value[name] = with_defaults(value[name], below)
    others = schema.get("additionalProperties")
    if isinstance(value, dict) and isinstance(others, dict):
        return {name: with_defaults(item, others) for name, item in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(item, schema["items"]) for item in value]
    return float(value) if schema.get("type") == "number" else value


def _wrong_type(path: str, expected: str, actual: str) -> Problem:
    """Return the problem of a wrong type, in the words of the API server."""
    return Problem(path, f'Invalid value: "{actual}": must be of type {expected}: "{actual}"')


def _type_name(value: Any) -> str | None:
    """Return the JSON name of the type of a value, or None if JSON has no such value."""
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
