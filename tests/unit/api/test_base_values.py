"""The base values of the spec's types never change.

A pinned spec has no field with its base value (`ApiModel.to_brief_json`). Another version of
selfemo that reads it takes the base values of its own types.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from pydantic.fields import FieldInfo
from tests.unit.api.documents import documents

from selfemo_api.api_model import ApiModel
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.validation import examine
from selfemo_api.spec import EvolutionSpec

FROZEN = Path(__file__).with_name("base_values.json")


def types_of(kind: type[ApiModel]) -> Iterator[type[ApiModel]]:
    """Yield a type, and the types of its fields."""

    def models(annotation: Any) -> Iterator[type[ApiModel]]:
        if isinstance(annotation, type) and issubclass(annotation, ApiModel):
            yield annotation
        for argument in getattr(annotation, "__args__", ()):
            yield from models(argument)

    yield kind
    for field in kind.model_fields.values():
        for model in models(field.annotation):
            yield from types_of(model)


def to_json(value: Any) -> Any:
    if isinstance(value, ApiModel):
        return value.to_brief_json()
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def base_values() -> dict[str, Any]:
    def base_value(field: FieldInfo) -> Any:
        return to_json(field.get_default(call_default_factory=True))

    fields = {
        f"{kind.__name__}.{field.alias}": field
        for kind in types_of(EvolutionSpec)
        for field in kind.model_fields.values()
    }
    del fields["EvolutionSpec.recipe"]  # always pinned: its base value is the default recipe
    return {path: base_value(f) for path, f in sorted(fields.items()) if not f.is_required()}


def test_base_values_never_change() -> None:
    frozen = json.loads(FROZEN.read_text())
    found = json.loads(json.dumps(base_values()))
    changed = {path for path in frozen if path not in found or found[path] != frozen[path]}
    assert not changed, "generations that run would change: put better values into a new recipe"
    assert found == frozen, f"add the new fields to {FROZEN.name}"


@given(documents())
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_spec_without_its_base_values_is_the_same_spec(document: dict[str, Any]) -> None:
    stored, problems = examine(document)
    if problems:
        return
    spec = EmotionEvolution.model_validate(stored).spec
    assert EvolutionSpec.model_validate(spec.to_brief_json()) == spec


def test_a_pinned_spec_says_nothing_of_settings_that_are_not_used() -> None:
    """A field that an older version does not know must not keep it from reading the spec."""
    source = {"name": "train", "use": "SelfPlay", "uri": "file:///train.jsonl"}
    spec: dict[str, Any] = {
        "model": {"uri": "file:///model"},
        "dataset": {"labels": ["joy", "anger"], "sources": [source]},
        "storage": {"uri": "file:///store"},
        "selfPlay": {"roles": ["Recognizer"], "responderShare": 1.0},
    }
    brief = EvolutionSpec.model_validate(spec).to_brief_json()
    assert brief == {**spec, "selfPlay": {"roles": ["Recognizer"]}}
