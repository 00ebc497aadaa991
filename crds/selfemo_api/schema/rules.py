"""Runs the CEL rules of the CRD and of the types.

A rule runs twice. First it runs on the object as the user wrote it, as the API server does. Then it
runs on the resolved spec, which includes the values of the recipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.comparison import comparison_error, with_label_prior
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.cel import compile_all, evaluate
from selfemo_api.schema.conformance import conform, with_defaults
from selfemo_api.schema.crd import ROOT_RULES, build_crd, structural
from selfemo_api.schema.error_messages import written_field
from selfemo_api.schema.strict_yaml import Problem
from selfemo_api.spec import EvolutionSpec


@lru_cache(maxsize=1)
def crd_schema() -> dict[str, Any]:
    """Return the schema of the CRD, with the metadata that all objects have."""
    root: dict[str, Any] = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    text = {"type": "string"}
    root["properties"]["metadata"] = {
        "type": "object",
        "properties": {"name": text, "namespace": text, "uid": text},
        "x-kubernetes-preserve-unknown-fields": True,
    }
    # the status is not checked: users cannot set it
    root["properties"]["status"] = {"x-kubernetes-preserve-unknown-fields": True}
    return root


@lru_cache(maxsize=1)
def resolved_schema() -> dict[str, Any]:
    """Return the schema of the resolved spec, in which settings without a field are fields."""
    return structural(EvolutionSpec)


def prepare() -> None:
    """Do the work of the first check of a resolved spec that the others need as well.

    It takes half a second. In a process with many threads, the first checks would all wait for it.
    """
    resolved_schema()
    compile_all(rule.expression for model in _models(ApiModel) for rule in model.rules)


def _models(base: type[ApiModel]) -> Iterator[type[ApiModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def check_written(spec: dict[str, Any]) -> list[Problem]:
    """Return the problems of a spec by the rules of the CRD.

    Parameters
    ----------
    spec
        The JSON of ``spec`` as it was written. It fits the schema of the CRD.
    """
    schema = crd_schema()["properties"]["spec"]
    return _broken_by_schema(schema, with_defaults(spec, schema), None, "spec")


def check_resolved(spec: EvolutionSpec) -> list[Problem]:
    """Return the problems of a resolved spec. The API server cannot find all of them.

    Parameters
    ----------
    spec
        The resolved spec.
    """
    _, problems = conform(spec.overrides, resolved_schema(), "spec.overrides")
    return problems + _check_model(spec, None, "spec")


def check_edit(old: EmotionEvolution, new: EmotionEvolution) -> list[Problem]:
    """Return the problems for which the API server would reject an edit of an object.

    Parameters
    ----------
    old
        The object before the edit.
    new
        The object after the edit.
    """
    problems = check_resolved_edit(old.spec, new.spec)
    if error := _comparison_error(old, new.spec):
        problems.append(Problem("spec", error))
    if not old.written or not new.written:
        return problems
    schema = crd_schema()["properties"]["spec"]
    before, after = (with_defaults(e.written, schema) for e in (old, new))
    of_fields = _broken_by_schema(schema, after, before, "spec")
    of_object = [rule for rule in ROOT_RULES if rule.is_transition]
    root = {"spec": before, "status": old.status.to_json()}
    of_fields += broken_rules(of_object, {"spec": after}, root, "")
    return of_fields + [problem for problem in problems if problem not in of_fields]


def _comparison_error(old: EmotionEvolution, spec: EvolutionSpec) -> str:
    """Return why scores of an edited spec cannot be compared with the best one, or an empty text.

    The spec that is pinned counts, as in the operator. The object may have been edited since.
    """
    if old.status.best is None:
        return ""
    if old.status.current is None:
        return comparison_error(old.spec, spec)
    before = EvolutionSpec.model_validate(old.status.current.spec)
    return comparison_error(before, with_label_prior(spec, old.status.label_prior))


def check_resolved_edit(old: EvolutionSpec, new: EvolutionSpec) -> list[Problem]:
    """Return the problems of a resolved spec in view of an earlier one.

    The API server does not find those that an edit of ``recipe`` or ``overrides`` causes.

    Parameters
    ----------
    old
        The resolved spec before the edit.
    new
        The resolved spec after the edit.
    """
    return _check_model(new, old, "spec", transitions=True)


def _broken_by_schema(schema: dict[str, Any], value: Any, old: Any, path: str) -> list[Problem]:
    """Return the problems of a value by the rules in its schema, as the API server runs them.

    Parameters
    ----------
    schema
        The structural schema of the value, as in the CRD.
    value
        The value, with its defaults.
    old
        The value before an edit, with its defaults. If None, only the rules that do not compare
        with it are run. Otherwise, only those that do.
    path
        The dotted path of the value.
    """
    transitions = old is not None
    rules = [Rule(r["rule"], r["message"]) for r in schema.get("x-kubernetes-validations", [])]
    rules = [rule for rule in rules if rule.is_transition == transitions]
    problems = broken_rules(rules, value, old, path) if rules else []
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            earlier = old.get(name) if transitions else None
            if name in value and (earlier is not None or not transitions):
                problems += _broken_by_schema(below, value[name], earlier, f"{path}.{name}")
    if isinstance(value, list) and not transitions:  # a list is atomic: no item has an earlier one
        for index, item in enumerate(value):
            problems += _broken_by_schema(schema["items"], item, None, f"{path}[{index}]")
    return problems


def _check_model(
    model: ApiModel, old: ApiModel | None, path: str, *, transitions: bool = False
) -> list[Problem]:
    """Return the problems by the rules of a value and of the values inside it.

    Parameters
    ----------
    model
        The value.
    old
        The value before an edit, or None.
    path
        The dotted path of the value in the resolved spec.
    transitions
        Whether to run only the rules that compare with ``old``. If false, only the others are run.
    """
    rules = [r for r in model.rules if r.is_transition == transitions]
    problems = []
    if rules:
        value, earlier_value = model.to_json(), old.to_json() if old is not None else None
        results = [_holds(rule.expression, value, earlier_value) for rule in rules]
        problems = _problems(rules, results, written_field(path))
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        below = f"{path}.{field.alias or name}"
        if isinstance(value, ApiModel):
            earlier = getattr(old, name) if old is not None else None
            problems += _check_model(value, earlier, below, transitions=transitions)
        elif isinstance(value, list) and not transitions:
            for index, item in enumerate(value):
                if isinstance(item, ApiModel):
                    problems += _check_model(item, None, f"{below}[{index}]")
    return problems


def broken_rules(
    rules: tuple[Rule, ...] | list[Rule],
    value: dict[str, Any],
    old: dict[str, Any] | None,
    path: str,
) -> list[Problem]:
    """Return a problem for each rule that does not hold for a value."""
    values: dict[str, Any] = {"self": value}
    if old is not None:
        values["oldSelf"] = old
    results = evaluate([rule.expression for rule in rules], values)
    return _problems(rules, results, path)


def _problems(
    rules: tuple[Rule, ...] | list[Rule], results: Sequence[bool], path: str
) -> list[Problem]:
    return [
        Problem(path, rule.message) for rule, holds in zip(rules, results, strict=True) if not holds
    ]


def _holds(expression: str, value: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    """Return whether an expression is true for a value, and for the earlier one."""
    fields = fields_read(expression)
    new_json = to_json(_with_fields(value, fields))
    old_json = None if old is None else to_json(_with_fields(old, fields))
    is_small = len(new_json) + len(old_json or b"") <= _CACHED_BYTES
    return (_cached_result if is_small else _result)(expression, new_json, old_json)


@lru_cache(maxsize=256)
def fields_read(expression: str) -> frozenset[str] | None:
    """Return the fields of a value that an expression reads; None if it may read any.

    Examples
    --------
    >>> sorted(fields_read("!has(self.goal) || self.goal > self.least.value"))
    ['goal', 'least']
    >>> fields_read("self.all(item, item.startsWith('a'))") is None
    True
    """
    fields = set()
    for field in _VARIABLE.findall(expression):
        if not field or field.startswith("__"):  # CEL writes a field named `in` as `__in__`
            return None
        fields.add(field)
    return frozenset(fields)


def _with_fields(value: Mapping[str, Any], fields: frozenset[str] | None) -> Mapping[str, Any]:
    return value if fields is None else {k: v for k, v in value.items() if k in fields}


def _result(expression: str, value: bytes, old: bytes | None) -> bool:
    """Return whether an expression is true for the JSON of a value, and of the earlier one."""
    values = {"self": from_json(value)}
    if old is not None:
        values["oldSelf"] = from_json(old)
    return evaluate([expression], values)[0]


#: A variable of a rule, with the field that follows. A method of the variable is not a field.
_VARIABLE = re.compile(r"\b(?:self|oldSelf)\b(?:\.(\w+)\b(?!\())?")
#: Most of what rules read is the same in several specs: the evolutions of a sweep have the same
#: dataset. All rules of a spec take a hundredth of a second, of which this cache saves most.
_cached_result = lru_cache(maxsize=512)(_result)
#: The maximum size of a value whose result is cached, in bytes of JSON. A large spec has 20 KiB.
_CACHED_BYTES = 16 * 2**10
