"""The JSON Schema of an evolution's YAML file, for editors: ``selfemo schema``.

The CRD's schema is OpenAPI 3.0 and lets an API server prune unknown fields. Editors read JSON
Schema. There, an unknown field is an error, and ``overrides`` offers the settings without a field.
"""

from __future__ import annotations

from typing import Any

from selfemo_api.api_model import API_VERSION, GROUP, KIND
from selfemo_api.evolution import NAME_MAX
from selfemo_api.recipes.recipe import RECIPES, override_only_paths
from selfemo_api.schema.rules import crd_schema, resolved_schema

#: Keywords of Kubernetes and of this project, which JSON Schema does not have.
_FOREIGN = "x-"
_FREE = "x-kubernetes-preserve-unknown-fields"


def editor_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of the YAML file of an evolution."""
    spec = _converted(crd_schema()["properties"]["spec"])
    properties = spec["properties"]
    properties["recipe"]["enum"] = list(RECIPES)
    description = properties["overrides"].get("description", "")
    overrides = _without_required(_converted(_experts(resolved_schema(), "")))
    properties["overrides"] = {**overrides, "description": description}
    name = {
        "type": "string",
        "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
        "maxLength": NAME_MAX,
        "description": "The name of the evolution.",
    }
    namespace = {"type": "string", "description": "The namespace. Defaults to `default`."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": KIND,
        "description": f"The {KIND} resource of {GROUP}.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": name, "namespace": namespace},
            },
            "spec": spec,
            "status": {"type": "object"},
        },
        "additionalProperties": False,
    }


def _converted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return one node of a structural schema of Kubernetes in JSON Schema."""
    result = {
        key: value
        for key, value in schema.items()
        if not key.startswith(_FOREIGN) and key not in ("format", "nullable")
    }
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if result.get(bound) is True:
            result[bound] = result.pop(plain)
    if isinstance(result.get("description"), str):
        result["description"] = " ".join(result["description"].split())
    if "\\p{" in str(result.get("pattern", "")):
        del result["pattern"]  # not every reader of JSON Schema has Unicode's classes
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in result:
        properties = result["properties"].items()
        result["properties"] = {name: _converted(below) for name, below in properties}
        if not schema.get(_FREE):
            result.setdefault("additionalProperties", False)
    if "items" in result:
        result["items"] = _converted(result["items"])
    if isinstance(result.get("additionalProperties"), dict):
        result["additionalProperties"] = _converted(result["additionalProperties"])
    return result


def _experts(schema: dict[str, Any], parent: str) -> dict[str, Any]:
    """Return the part of the resolved spec's schema that contains settings without a field."""
    properties: dict[str, Any] = {}
    for name, below in schema.get("properties", {}).items():
        path = f"{parent}{name}"
        if path in override_only_paths():
            properties[name] = below
        elif any(expert.startswith(f"{path}.") for expert in override_only_paths()):
            properties[name] = _experts(below, f"{path}.")
    return {"type": "object", "properties": properties}


def _without_required(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which each field may be omitted: the recipe provides a value."""
    result = {key: value for key, value in schema.items() if key not in ("required", "default")}
    if "properties" in result:
        properties = result["properties"].items()
        result["properties"] = {name: _without_required(below) for name, below in properties}
    return result
