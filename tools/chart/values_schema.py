"""``values.schema.json``: types and limits of the values, by their defaults and comments.

The type of a key is that of its default; a comment line ``@schema {…}`` adds to it.
"""

from __future__ import annotations

import json
from typing import Any

from tools.chart.common import NOTE
from tools.chart.values import Value

from selfemo_api.api_model import ApiModel
from selfemo_api.schema.crd import structural
from selfemo_api.spec import PodTemplateEntry

#: The `condition:` of a parent chart adds this key to the values.
_CONDITION = {
    "enabled": {
        "type": "boolean",
        "description": "For the `condition` of a parent chart. This chart does not read it.",
    }
}
#: Values with a type of the API, from which their schema is made: the type of an entry, by path.
_ENTRIES: dict[tuple[str, ...], type[ApiModel]] = {("jobs", "podTemplate"): PodTemplateEntry}
_TYPES: dict[type, str] = {bool: "boolean", int: "integer", str: "string", list: "array"}


def schema_text(values: list[Value]) -> str:
    """Return the content of ``values.schema.json``.

    Parameters
    ----------
    values
        The keys of values.yaml.
    """
    return json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n"


def schema(values: list[Value], top: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of a section; it has types and allows no unknown keys.

    Parameters
    ----------
    values
        The keys of the section.
    top
        Whether the section is the whole file.
    """
    properties = {value.name: property_schema(value) for value in values}
    if not top:
        return {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": NOTE,
        "type": "object",
        "additionalProperties": False,
        "properties": _CONDITION | properties,
    }


def property_schema(value: Value) -> dict[str, Any]:
    """Return the JSON Schema of a key.

    Parameters
    ----------
    value
        The key.
    """
    if value.children:
        section = schema(value.children, top=False)
        if value.path == ("global",):  # a parent chart adds its own keys here
            section["additionalProperties"] = True
        return section
    kind = _TYPES.get(type(value.default), "object")
    bound: dict[str, Any] = (
        {"minimum": 0} if kind == "integer" and "type" not in value.schema else {}
    )
    if entry := _ENTRIES.get(value.path):
        bound = {"items": _json_schema(structural(entry))}
    return {"description": value.text, "type": kind, **bound, **value.schema}


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of the CRD as JSON Schema, in which fields that it lacks are refused."""
    plain = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key != "format"
    }
    if "properties" in plain:
        below = {name: _json_schema(value) for name, value in plain["properties"].items()}
        plain |= {"properties": below, "additionalProperties": False}
    for key in ("items", "additionalProperties"):
        if isinstance(plain.get(key), dict):
            plain[key] = _json_schema(plain[key])
    return plain
