"""The schema for editors accepts what the validation accepts, and marks what it marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.api.documents import VALID

from selfemo_api.recipes import RECIPES
from selfemo_api.recipes.recipe import leaves, override_only_paths
from selfemo_api.schema.editor_schema import editor_schema

ROOT = Path(__file__).resolve().parents[4]
SCHEMA = editor_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def problems(document: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


def changed(**spec: Any) -> dict[str, Any]:
    return {**VALID, "spec": {**VALID["spec"], **spec}}


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert "x-" not in {key[:2] for key in json.dumps(SCHEMA).split('"')}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert problems(document) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_values_of_a_recipe_are_valid_as_overrides(recipe: str) -> None:
    assert problems(changed(recipe=recipe)) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"selfPlya": {}}, "'selfPlya' was unexpected"),
        ({"selfPlay": {"engien": "VLLM"}}, "'engien' was unexpected"),
        ({"selfPlay": {"engine": "vllm"}}, "'vllm' is not one of ['VLLM', 'Transformers']"),
        ({"recipe": "smal-v1"}, "'smal-v1' is not one of ['small-v2'"),
        ({"seed": -1}, "-1 is less than the minimum of 0"),
        ({"overrides": {"training": {"epoch": 1}}}, "'epoch' was unexpected"),
        ({"overrides": {"training": {"imitation": 1.0}}}, "'imitation' was unexpected"),
        ({"overrides": {"training": {"epochs": "two"}}}, "'two' is not of type 'integer'"),
        (
            {"training": {"optimizer": {"learningRate": 0}}},
            "0 is less than or equal to the m",
        ),
        ({"dataset": {**VALID["spec"]["dataset"], "sources": [{"nmae": 1}]}}, "'nmae' was"),
    ],
)
def test_mistakes_are_marked(spec: dict[str, Any], message: str) -> None:
    assert any(message in problem for problem in problems(changed(**spec)))


def test_what_is_free_stays_free() -> None:
    document = changed(
        selfPlay={"engineArgs": {"any": [1]}},
        overrides={"training": {"epochs": 2, "clip": {"low": 0.1}}},
        podTemplate=[{"template": {"volumes": [{"name": "x", "emptyDir": {"a": 1}}]}}],
    )
    assert problems(document) == []
    assert problems({**VALID, "metadata": {**VALID["metadata"], "labels": {"a": "b"}}}) == []


def test_each_setting_without_a_field_is_offered_below_overrides() -> None:
    offered = set(_paths(SCHEMA["properties"]["spec"]["properties"]["overrides"], ""))
    assert override_only_paths() <= offered


def test_descriptions_are_one_line() -> None:
    texts = [v for k, v in leaves(SCHEMA).items() if k.endswith(".description")]
    assert len(texts) > 80
    assert all("\n" not in text for text in texts if isinstance(text, str))


def _paths(schema: dict[str, Any], parent: str) -> list[str]:
    paths: list[str] = []
    for name, below in schema.get("properties", {}).items():
        paths += [f"{parent}{name}", *_paths(below, f"{parent}{name}.")]
    return paths
