"""Values for the fields of the CRD: valid ones, values beyond the bounds, and other types."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

from tests.integration.operator.spec_strategies import Place, places, spec_schema

Json = dict[str, Any]
#: Values of every JSON type, and typical mistakes in YAML.
_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**33, 0.1, -0.5, "", " ", "a b", "UPPER", "-x", "é", "\u202e", "x" * 2000,
    "../..", "$(A)", "1e3", [], [1], {}, {"name": "x"}, {"hostPath": {"path": "/"}},
)  # fmt: skip
#: Parts of pods, for fields that take any content.
_OPEN: tuple[Any, ...] = (
    {"name": "v", "emptyDir": {}},
    {"name": "v", "hostPath": {"path": "/"}},
    {"name": "v", "mountPath": "/v"},
    {"name": "V V", "value": "x"},
    {"name": "A", "value": 1},
    {"limits": {"cpu": "one"}},
    {"limits": {"cpu": "1"}},
    {"privileged": True},
    {"runAsUser": 0},
    {"runAsUser": 1000, "runAsNonRoot": None},
    {"key": "gpu", "operator": "Exists"},
    {"name": "i", "image": "busybox"},
    {"name": "i", "image": "busybox", "securityContext": {"privileged": True}},
)
_TEXTS = ("a", "demo", "file:///x", "s3://bucket/x")
_SIMPLE: dict[str, tuple[Any, ...]] = {
    "boolean": (True, False),
    "integer": (0, 1, 2, 1000),
    "number": (0.0, 0.5, 1.0, 100.0),
    "object": ({}, {"x": "y"}, {"neutral": 1.0}),
}
_PAIR_SHARE = 0.3
_LONGEST = 4096


@functools.cache
def fields() -> tuple[tuple[Place, str], ...]:
    """Return each field of `spec` with its schema as text, in a fixed order."""
    known = sorted(places(spec_schema()), key=lambda item: str(item[0]))
    return tuple((place, json.dumps(schema, sort_keys=True)) for place, schema in known)


def drawn_edits(rng: random.Random, number: int, index: int) -> str:
    """Return one or two changes of fields, as the JSON of pairs of a place and a value.

    The first field goes round through all, so that each is changed soon; the second is drawn.

    Parameters
    ----------
    rng
        The source of randomness.
    number
        The number of the scenario.
    index
        The number of the evolution in it.
    """
    known = fields()
    first = known[(number * 37 + index) % len(known)]
    chosen = [first]
    if rng.random() < _PAIR_SHARE:
        chosen.append(rng.choice(known))
    edits = [[list(place), value_for(rng, json.loads(schema))] for place, schema in chosen]
    return json.dumps(edits)


def value_for(rng: random.Random, schema: Json, depth: int = 0) -> Any:
    """Return a value for a schema; half of the values are valid."""
    if rng.random() < 0.25 or depth > 3:
        return rng.choice(_ODD)
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return rng.choice((*_OPEN, *_ODD))
    near: list[Any] = list(schema.get("enum", []))
    step: float = 1 if schema.get("type") == "integer" else 0.5
    for bound in ("minimum", "maximum"):
        if bound in schema:
            near += [schema[bound] - step, schema[bound], schema[bound] + step]
    if near:
        return rng.choice(near)
    return _typed(rng, schema, depth)


def _typed(rng: random.Random, schema: Json, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "string":
        longest = min(schema.get("maxLength", 64), _LONGEST)
        return rng.choice([*_TEXTS, "a" * longest, "a" * (longest + 1)])
    if kind == "array":
        return [value_for(rng, schema["items"], depth + 1) for _ in range(rng.randrange(3))]
    if kind == "object" and "properties" in schema:
        names = rng.sample(sorted(schema["properties"]), k=min(2, len(schema["properties"])))
        return {n: value_for(rng, schema["properties"][n], depth + 1) for n in names}
    return rng.choice(_SIMPLE.get(str(kind), _ODD))
