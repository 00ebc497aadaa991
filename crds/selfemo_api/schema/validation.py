"""Checks a YAML file as the API server does, with the same messages, before anything runs.

The bounds are those of the types from which the CRD is generated. The rules are the CEL expressions
of the CRD, run by a CEL interpreter.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy.evaluation import CELEvalError
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from selfemo_api.api_model import ApiModel, Rule
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import resolve, written_path
from selfemo_api.schema.crd import ROOT_RULES, build_crd
from selfemo_api.schema.strict_yaml import Problem, conform, line_of, parse_yaml

__all__ = ["InvalidEvolution", "Problem", "check", "check_edit", "examine", "load_evolution"]


class InvalidEvolution(Exception):
    """A file that the API server would reject.

    Parameters
    ----------
    path
        The file.
    problems
        All problems of the file.
    """

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load_evolution(path: Path, changes: dict[str, Any] | None = None) -> EmotionEvolution:
    """Return the evolution that a YAML file describes, without its status.

    Parameters
    ----------
    path
        A file with one document.
    changes
        Values that replace those of the file, by dotted path below ``spec`` (``--set``).

    Raises
    ------
    InvalidEvolution
        If the file is not valid. The exception has all problems, each with its field and line.
    """
    document, node = _parse(path)
    changed = []
    for dotted, value in (changes or {}).items():
        changed.append(f"spec.{dotted}")
        problem = assign(document, changed[-1], value)
        if problem is not None:
            raise InvalidEvolution(path, [problem])
    document, problems = examine(document)
    if problems:
        raise InvalidEvolution(path, [_with_line(p, node, changed) for p in problems])
    return EmotionEvolution.model_validate(document)


def check(document: dict[str, Any]) -> list[Problem]:
    """Return the problems for which the API server would reject an object.

    Parameters
    ----------
    document
        The object. It is not changed.

    Examples
    --------
    >>> document = {"apiVersion": "selfemo.dev/v1alpha1", "kind": "EmotionEvolution", "spec": {}}
    >>> for problem in check(document | {"metadata": {"name": "demo"}}):
    ...     print(problem)
    spec.model: Required value
    spec.dataset: Required value
    spec.storage: Required value
    """
    return examine(document)[1]


def examine(document: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return an object as the API server would store it, and its problems.

    Parameters
    ----------
    document
        The object. It is not changed.
    """
    document, problems = conform(document, _schema())
    document = {key: value for key, value in document.items() if key != "status"}
    mistyped = {problem.field for problem in problems}
    for name in ("apiVersion", "kind"):
        if name not in document:
            problems.append(Problem(name, "Required value"))
    try:
        resolve(document["spec"] if isinstance(document.get("spec"), dict) else {})
    except ValueError as error:
        return document, [*problems, Problem("spec", str(error))]
    try:
        evolution = EmotionEvolution.model_validate(document)
    except ValidationError as error:
        bounds = [Problem(_written(_dotted(e["loc"])), _message_of(e)) for e in error.errors()]
        return document, problems + [p for p in bounds if p.field not in mistyped]
    root = {"metadata": {"name": evolution.metadata.name}}
    problems += _broken_rules(ROOT_RULES, root, None, "metadata.name")
    problems += _check_model(evolution.spec, None, "spec")
    return document, problems


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
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


def check_edit(old: EmotionEvolution, new: EmotionEvolution) -> list[Problem]:
    """Return the problems for which the API server would reject an edit of an object.

    Parameters
    ----------
    old
        The object before the edit.
    new
        The object after the edit.
    """
    return _check_model(new.spec, old.spec, "spec", transitions=True)


def _check_model(
    model: ApiModel, old: ApiModel | None, path: str, *, transitions: bool = False
) -> list[Problem]:
    """Return the problems by the rules of a value and of the values inside it.

    Parameters
    ----------
    model
        The value.
    old
        The value before an edit. None: there was none.
    path
        The dotted path of the value.
    transitions
        True: only the rules that compare with ``old`` are run. False: only the others.
    """
    rules = [r for r in model.rules if r.is_transition == transitions]
    old_json = old.to_json() if old is not None else None
    problems = _broken_rules(rules, model.to_json(), old_json, path)
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


def _broken_rules(
    rules: tuple[Rule, ...] | list[Rule],
    value: dict[str, Any],
    old: dict[str, Any] | None,
    path: str,
) -> list[Problem]:
    """Return a problem for each rule that does not hold for a value."""
    activation = {"self": celpy.json_to_cel(value)}
    if old is not None:
        activation["oldSelf"] = celpy.json_to_cel(old)
    problems = []
    for rule in rules:
        try:
            holds = bool(_program(rule.expression).evaluate(activation))
        except CELEvalError as error:
            raise AssertionError(f"the rule {rule.expression!r} fails: {error}") from error
        if not holds:
            problems.append(Problem(path, rule.message))
    return problems


@lru_cache(maxsize=256)
def _program(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))


def _parse(path: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the object of a file, and its node."""
    try:
        document, node = parse_yaml(_read(path))
    except yaml.YAMLError as error:
        raise InvalidEvolution(path, [_yaml_problem(error)]) from None
    except (ValueError, OverflowError) as error:
        raise InvalidEvolution(path, [Problem("", f"is not YAML: {error}")]) from None
    except RecursionError:
        raise InvalidEvolution(path, [Problem("", "is nested too deeply")]) from None
    if not isinstance(document, dict):
        raise InvalidEvolution(path, [Problem("", "must contain one EmotionEvolution object")])
    return document, node


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else None
    if isinstance(error, yaml.composer.ComposerError) and "another document" in problem:
        return Problem("", "contains several documents: put each into a file of its own", line)
    return Problem("", f"is not YAML: {problem}", line)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidEvolution(path, [Problem("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise InvalidEvolution(path, [Problem("", f"is not UTF-8 (byte {error.start})")]) from None


def assign(document: dict[str, Any], dotted: str, value: Any) -> Problem | None:
    """Set a value in a document, in place, and create the missing objects on its path.

    Parameters
    ----------
    document
        The document.
    dotted
        The dotted path of the value.
    value
        The value.

    Returns
    -------
    Problem or None
        The problem if a part of the path is not an object.

    Examples
    --------
    >>> document = {"spec": {"seed": 1}}
    >>> assign(document, "spec.training.epochs", 2)
    >>> document
    {'spec': {'seed': 1, 'training': {'epochs': 2}}}
    >>> print(assign(document, "spec.seed.x", 2))
    spec.seed: is not an object: `x` cannot be set
    """
    *parents, last = dotted.split(".")
    for index, name in enumerate(parents):
        below: Any = document.get(name)
        if below is not None and not isinstance(below, dict):
            return Problem(
                ".".join(parents[: index + 1]), f"is not an object: `{last}` cannot be set"
            )
        inner: dict[str, Any] = {} if below is None else below
        document[name] = inner
        document = inner
    document[last] = value
    return None


def _with_line(problem: Problem, node: yaml.Node | None, changed: list[str]) -> Problem:
    """Return a problem with its line, unless its value did not come from the file."""
    if any(f"{problem.field}.".startswith(f"{path}.") for path in changed):
        return problem
    return Problem(problem.field, problem.message, line_of(node, problem.field))


def _written(field: str) -> str:
    """Return the field in which a person writes a value of the resolved spec."""
    inner = field.removeprefix("spec.")
    return field if inner == field else f"spec.{written_path(inner)}"


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


#: The messages of the API server, by Pydantic's types of errors.
_MESSAGES = {
    "missing": "Required value",
    "greater_than_equal": "Invalid value: {input}: should be greater than or equal to {ge}",
    "greater_than": "Invalid value: {input}: should be greater than {gt}",
    "less_than_equal": "Invalid value: {input}: should be less than or equal to {le}",
    "less_than": "Invalid value: {input}: should be less than {lt}",
    "string_pattern_mismatch": "Invalid value: {input}: should match '{pattern}'",
    "string_too_short": "Invalid value: {input}: should be at least {min_length} chars long",
    "string_too_long": "Too long: may not be more than {max_length} bytes",
    "too_short": "Invalid value: {actual_length}: should have at least {min_length} items",
    "too_long": "Too many: {actual_length}: must have at most {max_length} items",
    "enum": "Unsupported value: {input}: supported values: {expected}",
    "literal_error": "Unsupported value: {input}: supported values: {expected}",
    "value_error": "{error}",
}


def _message_of(error: ErrorDetails) -> str:
    """Return the message of the API server for one of Pydantic's errors."""
    template = _MESSAGES.get(error["type"])
    value_text = _as_json(error["input"])
    if template is None:
        return f"Invalid value: {value_text}: {error['msg']}"
    context = {key: _as_json(value) for key, value in error.get("ctx", {}).items()}
    for key in ("pattern", "error"):
        context[key] = str(error.get("ctx", {}).get(key))
    expected = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    if error["type"] == "too_long":
        context["actual_length"] = str(len(error["input"]))  # missing in the error of a mapping
    context["expected"] = ", ".join(f'"{value}"' for value in expected)
    return template.format(**{**context, "input": value_text})


def _as_json(value: Any) -> str:
    """Return a value as JSON text, with whole numbers as integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)
