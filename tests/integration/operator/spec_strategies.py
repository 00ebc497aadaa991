"""Hypothesis strategies for specs from the CRD's schema. Most of the specs are invalid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Json = dict[str, Any]
Place = tuple[str | int, ...]

CRD = Path(__file__).resolve().parents[3] / "crds" / "selfemo.dev_emotionevolutions.yaml"
#: Values of every JSON type, and typical mistakes in YAML.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**33), 2**33),
    st.sampled_from([0.1, -0.5, 1e300]),
    st.text(max_size=12),
    st.sampled_from(["", " ", "a b", "UPPER", "-x", "é", "\u202e", "x" * 2000, "../..", "$(A)"]),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.sampled_from(["name", "x", "hostPath"]), st.text(max_size=4), max_size=2),
)
#: Values for fields without a schema: parts of pods, some of which the API server rejects.
OPEN = st.one_of(
    ODD,
    st.fixed_dictionaries({"name": st.text(max_size=8), "value": ODD}),
    st.fixed_dictionaries({"name": st.just("v"), "emptyDir": st.just({})}),
    st.fixed_dictionaries({"name": st.just("v"), "mountPath": st.text(max_size=6)}),
    st.fixed_dictionaries({"limits": st.dictionaries(st.just("cpu"), ODD, max_size=1)}),
    st.fixed_dictionaries({"privileged": st.booleans(), "runAsUser": st.integers(-1, 3)}),
    st.fixed_dictionaries({"key": st.text(max_size=4), "operator": st.text(max_size=6)}),
    st.fixed_dictionaries({"name": st.just("i"), "image": ODD, "securityContext": ODD}),
)


def spec_schema() -> Json:
    """Return the schema of `spec` in the CRD of the checkout."""
    crd = yaml.safe_load(CRD.read_text())
    version = crd["spec"]["versions"][0]
    schema: Json = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def places(schema: Json, place: Place = ()) -> Iterator[tuple[Place, Json]]:
    """Yield the path and the schema of each field; a list has only its first item."""
    if place:
        yield place, schema
    for name, below in schema.get("properties", {}).items():
        yield from places(below, (*place, name))
    if "items" in schema:
        yield from places(schema["items"], (*place, 0))


def values(schema: Json) -> st.SearchStrategy[Any]:
    """Return a strategy for a field: valid values, values at and beyond its bounds, other types."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return OPEN
    near: list[Any] = list(schema.get("enum", []))
    step = 1 if schema.get("type") == "integer" else 0.5
    for bound in ("minimum", "maximum"):
        if bound in schema:
            near += [schema[bound] - step, schema[bound], schema[bound] + step]
    typed = [st.sampled_from(near)] if near else []
    match schema.get("type"):
        case "string":
            longest = min(schema.get("maxLength", 64), 4096)
            lengths = ["", "a", "a" * longest, "a" * (longest + 1)]
            typed += [st.text(max_size=longest), st.sampled_from(lengths)]
        case "boolean":
            typed += [st.booleans()]
        case "array":
            typed += [st.lists(values(schema["items"]), max_size=3)]
        case "object" if "additionalProperties" in schema:
            typed += [st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2)]
    return st.one_of(*typed, ODD)


def edits() -> st.SearchStrategy[list[tuple[Place, Any]]]:
    """Return a strategy for lists of one or two changes of a spec."""
    known = sorted(places(spec_schema()), key=lambda item: str(item[0]))
    # most fields of podTemplate have no schema: they are changed more often
    weighted = known + [p for p in known if p[0][0] == "podTemplate"] * 2
    one = st.sampled_from(weighted).flatmap(
        lambda item: st.tuples(st.just(item[0]), values(item[1]))
    )
    return st.lists(one, min_size=1, max_size=2)


def changed(spec: Json, place: Place, value: Any) -> Json:
    """Return a spec with one field set; missing parents are added."""
    here, *below = place
    inside: Any = value
    if below:
        before = spec.get(here)  # type: ignore[arg-type]
        if below[0] == 0:
            first = before[0] if isinstance(before, list) and before else {}
            rest = before[1:] if isinstance(before, list) else []
            parent = first if isinstance(first, dict) else {}
            inner = changed(parent, tuple(below[1:]), value) if below[1:] else value
            inside = [inner, *rest]
        else:
            inside = changed(before if isinstance(before, dict) else {}, tuple(below), value)
    return {**spec, here: inside}
