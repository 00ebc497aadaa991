"""Generates the CustomResourceDefinition from the types: ``python -m selfemo_api.schema.crd``.

Pydantic writes JSON Schema 2020-12, but Kubernetes reads structural OpenAPI 3.0. This module
converts it: it inlines references, drops ``anyOf … null``, writes exclusive bounds as booleans and
adds the rules as ``x-kubernetes-validations``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from selfemo_api.api_model import GROUP, KIND, VERSION, ApiModel, Rule
from selfemo_api.evolution import NAME_MAX, EmotionEvolution
from selfemo_api.recipes.recipe import in_recipe
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: The plural name of the resource, as in its URL.
PLURAL = "emotionevolutions"
#: Keywords that schemas in Kubernetes do not have: titles, and bounds of property names.
_DROPPED = ("title", "propertyNames")
#: Marks of settings in the types, see :mod:`selfemo_api.spec.fields`.
_EXPERT, _OPTIONAL = "x-selfemo-expert", "x-selfemo-optional"
#: The file of the CRD.
PATH = Path(__file__).resolve().parents[2] / f"{GROUP}_{PLURAL}.yaml"

#: The CEL condition under which scores are compared: a model has been evaluated. The operator
#: checks the edit of an evolution that has ended as `BadInput`. It compares with the spec that the
#: model was evaluated with. The object may contain another spec, which can be reverted this way.
_IS_MEASURED = (
    "has(oldSelf.status) && has(oldSelf.status.best) && !(has(oldSelf.status.conditions) && "
    "oldSelf.status.conditions.exists(c, c.type == 'Succeeded' && c.reason == 'BadInput'))"
)
#: The end of a message about a setting that affects scores.
_COMPARED = (
    "scores must remain comparable. Start another evolution; to continue from a model of this one, "
    "set `model.resumeFrom`"
)
#: The index of the first evaluation source, as CEL finds it. See
#: :mod:`selfemo_api.spec.evolution_spec` for why it filters indexes.
_FIRST_EVALUATION = (
    f"{list(range(32))}.filter(i, i < size({{0}}.spec.dataset.sources) && "
    "{0}.spec.dataset.sources[i].use == 'Evaluation')[0]"
)


def _unchanged(path: str, before: str = "oldSelf.spec", after: str = "self.spec") -> str:
    """Return the expression that an optional field is equal before and after an edit."""
    return (
        f"has({after}.{path}) == has({before}.{path}) && "
        f"(!has({after}.{path}) || {after}.{path} == {before}.{path})"
    )


def _once_measured(names: str, *unchanged: str) -> Rule:
    """Return the rule that fields are not edited once a model has been evaluated with them.

    The resolved spec is compared again when a generation begins: recipes also set such values.
    """
    expression = f"!({_IS_MEASURED}) || ({' && '.join(unchanged)})"
    return Rule(expression, f"{names} cannot be edited once the baseline is measured: {_COMPARED}")


#: Rules of the object as a whole.
ROOT_RULES = (
    Rule(
        f"size(self.metadata.name) <= {NAME_MAX}",
        f"`metadata.name` must be at most {NAME_MAX} characters: names of Jobs and pods contain it",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "`metadata.name` must contain only lowercase letters, digits and '-', start with a letter "
        "and not end with '-'",
    ),
    _once_measured(
        "`dataset.context`, `columns`, `labelMap` and `uri`",
        *(_unchanged(f"dataset.{name}") for name in ("context", "columns", "labelMap", "uri")),
    ),
    _once_measured(
        "`uri`, `format`, `offset` and `limit` of the selection dataset",
        "(!has(self.spec.dataset.sources) || "
        f"[{_FIRST_EVALUATION.format('self')}].all(a, "
        f"[{_FIRST_EVALUATION.format('oldSelf')}].all(b, "
        + " && ".join(
            _unchanged(name, "oldSelf.spec.dataset.sources[b]", "self.spec.dataset.sources[a]")
            for name in ("uri", "format", "offset", "limit")
        )
        + ")))",
    ),
    _once_measured(
        "`model.prompts` and `promptTemplates`",
        *(_unchanged(f"model.{name}") for name in ("prompts", "promptTemplates")),
    ),
    _once_measured(
        "`evaluation.multiLabel`",
        "(has(self.spec.evaluation) && has(self.spec.evaluation.multiLabel) ? "
        "self.spec.evaluation.multiLabel : '') == (has(oldSelf.spec.evaluation) && "
        "has(oldSelf.spec.evaluation.multiLabel) ? oldSelf.spec.evaluation.multiLabel : '')",
    ),
)

#: The columns of ``kubectl get``. A condition is selected by its type, because the order of the
#: list has no meaning (kubeflow/trainer#3666).
COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Generation", "type": "integer", "jsonPath": ".status.generation"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Reward", "type": "number", "jsonPath": ".status.reward"},
    {"name": "F1", "type": "number", "jsonPath": ".status.f1"},
    {"name": "Best", "type": "number", "jsonPath": ".status.best.f1"},
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Succeeded")].reason',
        "priority": 1,
    },
    {"name": "Model", "type": "string", "jsonPath": ".spec.model.uri", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def build_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition as a dictionary."""
    schema = {
        "type": "object",
        "description": (EmotionEvolution.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _without_recipe_values(structural(EvolutionSpec)),
            # one program writes the status, always as a whole: with "atomic" the API server does
            # not track which writer owns which field
            "status": {**structural(EvolutionStatus), "x-kubernetes-map-type": "atomic"},
        },
        "x-kubernetes-validations": [_validation(rule) for rule in ROOT_RULES],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["emo", "evo"],
                "categories": ["all", "selfemo"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(c) for c in COLUMNS],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def structural(model: type[ApiModel]) -> dict[str, Any]:
    """Return the structural schema of a type, with its rules.

    Parameters
    ----------
    model
        The type.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    definitions = schema.pop("$defs", {})
    inlined = _convert(schema, definitions)
    _add_rules(inlined, model)
    return inlined


def _without_recipe_values(schema: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return the schema of the spec as users write it.

    Settings without a field are left out. Fields that a recipe or a preset provides have no default
    and are not required, so that a stored object contains what the user wrote.

    Parameters
    ----------
    schema
        The schema of a part of the resolved spec. It is not changed.
    path
        The dotted path of the part below ``spec``.
    """
    result = dict(schema)
    optional = set()
    properties: dict[str, Any] = {}
    for name, value in schema.get("properties", {}).items():
        if value.get(_EXPERT):
            continue
        below = f"{path}.{name}".lstrip(".")
        inner = _without_recipe_values(value, below)
        if inner.pop(_OPTIONAL, False):
            optional.add(name)
        if in_recipe(below) and "default" in inner:
            del inner["default"]
            if "If unset" not in inner["description"]:
                inner["description"] += " Defaults to the recipe's value."
        elif isinstance(inner.get("default"), dict):
            inner["default"] = _defaults(inner)
        if inner.get("default", 0) in ([], {}):
            del inner["default"]  # nothing would be shown as a value
        properties[name] = inner
    if properties:
        result["properties"] = properties
    if "items" in schema:
        result["items"] = _without_recipe_values(schema["items"], path)
    if "required" in schema:
        result["required"] = [name for name in schema["required"] if name not in optional]
        if not result["required"]:
            del result["required"]
    return result


def _convert(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return one node of a schema in the dialect of Kubernetes.

    Parameters
    ----------
    schema
        The node, in the dialect of Pydantic. It is not changed.
    definitions
        The definitions that references refer to, by name.
    """
    schema = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "$ref" in schema:
        name = schema.pop("$ref").rsplit("/", 1)[1]
        target = _convert(definitions[name], definitions)
        _add_rules(target, _MODELS.get(name))
        schema = {**target, **schema}
    elif "anyOf" in schema:
        (branch,) = [b for b in schema.pop("anyOf") if b.get("type") != "null"]
        schema = {**_convert(branch, definitions), **schema}
    else:
        _to_openapi(schema)
        _convert_children(schema, definitions)
    if schema.get("default", 0) is None:
        del schema["default"]
    if isinstance(schema.get("default"), dict):
        schema["default"] = _defaults(schema)
    return schema


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the full default of an object: the API server runs the rules on it as written."""
    properties = schema.get("properties", {})
    return {name: value["default"] for name, value in properties.items() if "default" in value}


def _to_openapi(schema: dict[str, Any]) -> None:
    """Change constants, exclusive bounds and integers to the form of OpenAPI 3.0, in place."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema:
            schema[plain] = schema[bound]
            schema[bound] = True
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]  # structural schemas reject or prune unknown fields
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", 2**31) < 2**31 else "int64"


def _convert_children(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    if "properties" in schema:
        schema["properties"] = {
            name: _convert(value, definitions) for name, value in schema["properties"].items()
        }
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _convert(schema["additionalProperties"], definitions)
    if "items" in schema:
        schema["items"] = _convert(schema["items"], definitions)
        _add_list_type(schema)


def _add_list_type(schema: dict[str, Any]) -> None:
    """Set how server-side apply merges a list: conditions by type, all others as a whole."""
    properties = schema["items"].get("properties", {})
    if {"type", "lastTransitionTime"} <= properties.keys():
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = ["type"]
    else:
        schema["x-kubernetes-list-type"] = "atomic"


def _add_rules(schema: dict[str, Any], model: type[ApiModel] | None) -> None:
    rules = [rule for rule in model.rules if not rule.resolved] if model is not None else []
    if rules:
        schema["x-kubernetes-validations"] = [_validation(rule) for rule in rules]


def _validation(rule: Rule) -> dict[str, str]:
    return {"rule": rule.expression, "message": rule.message}


def _types(base: type[ApiModel]) -> dict[str, type[ApiModel]]:
    """Return all subclasses of a type by name."""
    types: dict[str, type[ApiModel]] = {}
    for subclass in base.__subclasses__():
        types |= {subclass.__name__: subclass} | _types(subclass)
    return types


#: All types of the API, by name. The imports above have defined them.
_MODELS = _types(ApiModel)


class _Plain(yaml.SafeDumper):
    """Writes YAML without aliases, which not every reader of CRDs supports."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return True: no value becomes an alias."""
        return True


def render() -> str:
    """Return the CRD as YAML, with a comment that it is generated."""
    body = yaml.dump(build_crd(), Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
    return "# Generated by `make generate` from crds/selfemo_api: do not edit.\n" + body


def main() -> int:
    """Write the CRD. With ``--check``, return 1 if the file is stale, and write nothing."""
    parser = argparse.ArgumentParser(prog="python -m selfemo_api.schema.crd")
    parser.add_argument("--check", action="store_true", help="fail if the file is stale")
    text = render()
    if not parser.parse_args().check:
        PATH.write_text(text)
    elif not PATH.is_file() or PATH.read_text() != text:
        sys.stderr.write(f"{PATH.name} is stale: run `make generate` and commit it\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
