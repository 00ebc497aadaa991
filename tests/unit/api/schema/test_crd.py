"""The CRD: it is structural, and has the fields, rules and defaults of the types."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from tests.unit.api.documents import VALID

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes.recipe import in_recipe, is_override_only, leaves
from selfemo_api.schema import crd
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import EvolutionStatus

#: The keywords of JSONSchemaProps that a structural schema may use.
KNOWN = {
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
}
VERSION = crd.build_crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]

Node = dict[str, Any]


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield each schema node with its path."""
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from nodes(value, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


ALL = dict(nodes(SCHEMA))


def test_the_status_is_atomic() -> None:
    """Tracking the owner of each field is a fifth of the cost of a status write."""
    atomic = {path for path, node in ALL.items() if node.get("x-kubernetes-map-type") == "atomic"}
    assert atomic == {".status"}


@pytest.mark.parametrize("path", ALL)
def test_node_is_structural(path: str) -> None:
    node = ALL[path]
    assert node.keys() <= KNOWN
    assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}
    assert ("items" in node) == (node["type"] == "array")
    assert not ("properties" in node and "additionalProperties" in node)
    for bound in ("minimum", "maximum"):
        assert isinstance(node.get(bound, 0), int | float)
        assert not isinstance(node.get(bound, 0), bool)
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        assert isinstance(node.get(bound, True), bool)
    if node["type"] == "object" and path not in ("", ".metadata"):
        keeps = node.get("x-kubernetes-preserve-unknown-fields")
        assert "properties" in node or "additionalProperties" in node or keeps


@pytest.mark.parametrize("path", [path for path in ALL if path.startswith(".spec")])
def test_every_list_text_and_map_of_the_spec_is_bounded(path: str) -> None:
    """The API server limits the cost of CEL rules, which follows from these bounds."""
    node = ALL[path]
    if node["type"] == "array":
        assert "maxItems" in node
    if node["type"] == "string" and "enum" not in node and "pattern" not in node:
        assert "maxLength" in node
    if isinstance(node.get("additionalProperties"), dict):
        assert "maxProperties" in node
    if node["type"] in ("integer", "number"):
        assert {"minimum", "maximum"} <= node.keys()


@pytest.mark.parametrize("path", [path for path in ALL if path.startswith((".spec", ".status"))])
def test_every_field_is_described_in_sentences(path: str) -> None:
    """`kubectl explain` shows the description alone."""
    if path.endswith(("[]", ".*")):
        return  # the field itself is described
    description = ALL[path]["description"]
    assert description[0].isupper()
    assert description.endswith(".")
    assert description.isascii()


def models(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[ApiModel]]]:
    """Yield each API type inside a type, by its path in the schema."""
    if issubclass(model, ApiModel):
        yield path, model
    for name, field in model.model_fields.items():
        for part, inner in _types(field.annotation, f"{path}.{field.alias or name}"):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from models(inner, part)


def _types(annotation: Any, path: str) -> Iterator[tuple[str, Any]]:
    if getattr(annotation, "__origin__", None) is list:
        path += "[]"
    inner = get_args(annotation)
    if not inner:
        yield path, annotation
    for each in inner:
        yield from _types(each, path)


MODELS = [*models(EvolutionSpec, ".spec"), *models(EvolutionStatus, ".status")]
#: The types that have a node in the CRD: settings without a field have none.
IN_CRD = [(path, model) for path, model in MODELS if path in ALL]


def _as_validations(rules: tuple[Rule, ...]) -> list[dict[str, str]]:
    return [{"rule": rule.expression, "message": rule.message} for rule in rules]


def marked(field: Any, mark: str) -> bool:
    return isinstance(field.json_schema_extra, dict) and mark in field.json_schema_extra


@pytest.mark.parametrize(("path", "model"), IN_CRD, ids=[path for path, _ in IN_CRD])
def test_type_is_in_the_schema_with_its_rules_and_fields(path: str, model: type[ApiModel]) -> None:
    node = ALL[path]
    rules = tuple(rule for rule in model.rules if not rule.resolved)
    assert node.get("x-kubernetes-validations", []) == _as_validations(rules)
    fields = model.model_fields.values()
    own = {f.alias for f in fields if not marked(f, "x-selfemo-expert")}
    assert node["properties"].keys() == own
    required = {f.alias for f in fields if f.is_required() and not marked(f, "x-selfemo-optional")}
    assert set(node.get("required", [])) == required


def test_only_settings_without_a_field_are_left_out() -> None:
    left_out = {path.removeprefix(".spec.") for path, _ in MODELS if path not in ALL}
    assert left_out
    assert all(is_override_only(path.replace("[]", "")) for path in left_out)


def own_fields(schema: Node) -> int:
    """Return the number of fields of a node, at any depth."""
    below = [*schema.get("properties", {}).values()]
    inner = [schema.get("items"), schema.get("additionalProperties")]
    nodes_below = [*below, *(node for node in inner if isinstance(node, dict))]
    return len(below) + sum(own_fields(node) for node in nodes_below)


def test_the_spec_has_at_most_90_fields_of_its_own() -> None:
    """The fields of a pod in `podTemplate` are Kubernetes' own."""
    spec = {**ALL[".spec"], "properties": {**ALL[".spec"]["properties"]}}
    spec["properties"]["podTemplate"] = {"type": "array"}
    assert own_fields(spec) <= 90
    assert own_fields({"properties": {"a": {"items": {"properties": {"b": {}}}}, "c": {}}}) == 3


def test_no_rule_is_lost() -> None:
    of_schema = [r for n in ALL.values() for r in n.get("x-kubernetes-validations", [])]
    of_types = [rule for _, model in IN_CRD for rule in model.rules if not rule.resolved]
    assert len(of_types) > 20
    assert len(of_schema) == len(of_types) + len(crd.ROOT_RULES)
    assert SCHEMA["x-kubernetes-validations"] == _as_validations(crd.ROOT_RULES)


def defaulted(value: Any, schema: Node) -> Any:
    """Return a value with the defaults that the API server sets."""
    if isinstance(value, dict) and "properties" in schema:
        value = dict(value)
        for name, below in schema["properties"].items():
            if name not in value and "default" in below:
                value[name] = below["default"]
            if name in value:
                value[name] = defaulted(value[name], below)
    if isinstance(value, list):
        return [defaulted(item, schema["items"]) for item in value]
    return value


def test_defaults_are_those_of_pydantic() -> None:
    """What the API server stores has the same meaning as what was written."""
    written = EmotionEvolution.model_validate(VALID)
    stored = {**VALID, "spec": defaulted(VALID["spec"], ALL[".spec"])}
    assert EmotionEvolution.model_validate(stored).spec == written.spec
    paths = leaves(stored["spec"]).keys() - leaves(VALID["spec"]).keys()
    spec = leaves(written.spec.to_json())
    for path in paths - {"dataset.sources"}:
        assert leaves(stored["spec"])[path] == spec[path]


def test_what_a_recipe_gives_has_no_default() -> None:
    stored = defaulted(VALID["spec"], ALL[".spec"])
    assert [path for path in leaves(stored) if in_recipe(path)] == []
    with_defaults = {p.removeprefix(".spec.") for p, n in ALL.items() if "default" in n}
    assert [path for path in with_defaults if in_recipe(path)] == []
    assert "seed" in with_defaults


def test_no_further_field_of_the_status_has_a_default() -> None:
    """The API server adds it for an operator that is older than the CRD, and cannot read it."""
    status = ALL[".status"]["properties"]
    assert {name for name, schema in status.items() if "default" in schema} == {
        *("attempt", "conditions", "disruptions", "failures", "generation", "history"),
        *("observedGeneration", "phase", "recoveries", "replacedPods", "stages"),
        *("suspendedSeconds", "withoutImprovement"),
    }


@pytest.mark.parametrize("path", [p for p, n in ALL.items() if isinstance(n.get("default"), dict)])
def test_default_of_an_object_is_complete(path: str) -> None:
    """The API server runs the rules on a default as written, before it adds other defaults."""
    default = ALL[path]["default"]
    assert defaulted(default, ALL[path]) == default


def test_names_and_subresource() -> None:
    names = crd.build_crd()["spec"]["names"]
    assert names["shortNames"] == ["emo", "evo"]
    assert "all" in names["categories"]
    assert VERSION["subresources"] == {"status": {}}
    assert crd.build_crd()["metadata"]["name"] == "emotionevolutions.selfemo.dev"


def test_printer_columns_point_at_fields() -> None:
    columns = {c["name"]: c for c in VERSION["additionalPrinterColumns"]}
    by_default = [name for name, column in columns.items() if not column.get("priority")]
    assert by_default == ["Phase", "Generation", "Stage", "Reward", "F1", "Best", "Age"]
    for column in columns.values():
        path = column["jsonPath"]
        if path.startswith(".metadata"):
            continue
        plain = path.replace('[?(@.type=="Succeeded")]', "[]")
        assert ALL[plain]["type"] == column["type"]


def test_conditions_merge_by_type() -> None:
    conditions = ALL[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_file_is_current_and_has_no_aliases() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "selfemo_api.schema.crd", "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")
    text = crd.PATH.read_text()
    assert yaml.safe_load(text) == crd.build_crd()
    assert "&id" not in text


def test_a_stale_file_is_an_error(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(crd.render().replace("EmotionEvolution", "Emotion", 1))
    monkeypatch.setattr(crd, "PATH", path)
    monkeypatch.setattr(sys, "argv", ["crd", "--check"])
    assert crd.main() == 1
    assert "is stale: run `make generate`" in capsys.readouterr().err
