"""Documents to validate: a valid one, variations of it, and random ones that fit the schema."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from selfemo_api.recipes import RECIPES
from selfemo_api.schema.crd import build_crd, structural
from selfemo_api.spec import EvolutionSpec

SOURCE = {"name": "demo", "use": "SelfPlay", "uri": "file:///demo.jsonl", "format": "JSONL"}
DEV = {**SOURCE, "name": "dev", "use": "Evaluation"}
VALID: dict[str, Any] = {
    "apiVersion": "selfemo.dev/v1alpha1",
    "kind": "EmotionEvolution",
    "metadata": {"name": "demo"},
    "spec": {
        "recipe": "paper-v1",
        "model": {"uri": "file:///model"},
        "dataset": {"labels": ["joy", "anger"], "sources": [SOURCE, DEV]},
        "storage": {"uri": "s3://bucket/runs"},
    },
}
#: A value for :func:`changed` that removes a key.
GONE = object()


def changed(**values: Any) -> dict[str, Any]:
    """Return the valid document with some values set; `__` separates the names of a path."""
    document = copy.deepcopy(VALID)
    for path, value in values.items():
        *parents, last = path.split("__")
        parent = document
        for name in parents:
            parent = parent.setdefault(name, {})
        if value is GONE:
            del parent[last]
        else:
            parent[last] = value
    return document


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a schema, mostly within its bounds."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    makers = {
        "object": _objects,
        "array": _lists,
        "boolean": lambda _: st.booleans(),
        "integer": _integers,
        "number": _numbers,
        "string": _strings,
    }
    make = makers.get(schema.get("type", ""))
    return make(schema) if make else ANYTHING


def _lists(schema: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", 3)
    return st.lists(fitting(schema["items"]), min_size=low, max_size=min(high, low + 2))


def _integers(schema: dict[str, Any]) -> st.SearchStrategy[int]:
    low, high = schema.get("minimum", 0), schema.get("maximum", 10)
    return st.integers(low, high) | st.sampled_from([low, high])


def _numbers(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    low, high = schema.get("minimum", 0.0), schema.get("maximum", 10.0)
    return st.floats(low, high) | st.sampled_from([low, high])


def _strings(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    high = schema.get("maxLength", 8)
    if "pattern" in schema:
        texts = st.from_regex(_for_python(schema["pattern"].removesuffix("$") + r"\Z"))
        return texts.filter(lambda text: len(text) <= high)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(high, 12))


def _for_python(pattern: str) -> str:
    """Return a pattern of RE2 for the module `re`, which has no Unicode properties."""
    pattern = pattern.replace(r"\p{Z}", r"\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000")
    return pattern.replace(r"\p{Cc}", r"\x00-\x1f\x7f-\x9f")


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = schema.get("properties", {})
    required = {name: fitting(properties[name]) for name in schema.get("required", [])}
    optional = {n: fitting(s) for n, s in properties.items() if n not in required}
    known = st.fixed_dictionaries(required, optional={})
    if optional:
        # a few at a time: all of them together rarely satisfy the rules
        names = st.sets(st.sampled_from(sorted(optional)), max_size=3)
        some = names.flatmap(lambda kept: st.fixed_dictionaries({n: optional[n] for n in kept}))
        known = st.builds(lambda a, b: {**a, **b}, known, some)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        return st.dictionaries(st.text(max_size=8), fitting(others), max_size=3)
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return known | st.dictionaries(st.text(max_size=8), ANYTHING, max_size=2)
    return known


def spec_schema() -> dict[str, Any]:
    """Return the schema of the spec as a person writes it."""
    version = build_crd()["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def overrides_schema() -> dict[str, Any]:
    """Return the schema of `overrides`: the settings without a field, in their groups."""
    return _expert_part(structural(EvolutionSpec)) or {}


def _expert_part(schema: dict[str, Any]) -> dict[str, Any] | None:
    if schema.get("x-selfemo-expert"):
        return schema
    inner = {name: _expert_part(below) for name, below in schema.get("properties", {}).items()}
    properties = {name: below for name, below in inner.items() if below is not None}
    return {"type": "object", "properties": properties} if properties else None


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a document whose spec fits the schema, except for a few values that may be anything."""
    document = copy.deepcopy(VALID)
    spec = draw(fitting(spec_schema()))
    if draw(st.integers(0, 3)):  # few random names are those of a recipe, or of a setting
        spec["recipe"] = draw(st.sampled_from(RECIPES))
        spec["overrides"] = draw(fitting(overrides_schema()))
    document["spec"] = {**document["spec"], **spec} if draw(st.booleans()) else spec
    for _ in range(draw(st.integers(0, 2))):
        _replace(draw, document)
    return document


def _replace(draw: st.DrawFn, document: Any) -> None:
    """Replace one random value of a document, at any depth, by anything."""
    place = document
    while isinstance(place, dict | list) and place:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key: Any = draw(st.sampled_from(list(keys)))
        below = place[key]
        if not isinstance(below, dict | list) or not below or draw(st.integers(0, 4)) == 0:
            place[key] = draw(ANYTHING)
            return
        place = below
