"""Checks a YAML file as the API server would, with its words, before anything runs.

The bounds come from the same types that the CRD is generated from; the rules are the CRD's CEL
expressions, run by a CEL interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy.evaluation import CELEvalError
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from selfemo_api.base import ApiModel, Rule
from selfemo_api.crd import ROOT_RULES
from selfemo_api.evolution import EmotionEvolution


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    field: str
    """Dotted path, e.g. ``spec.selfPlay.groupSize``; empty for the file as a whole."""
    message: str
    line: int | None = None

    def __str__(self) -> str:
        """Return the one line a person reads."""
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" (line {self.line})" if self.line else "")


class InvalidEvolution(Exception):
    """A file that the API server would refuse."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load_evolution(path: Path, changes: dict[str, Any] | None = None) -> EmotionEvolution:
    """Return the evolution that a YAML file describes.

    Parameters
    ----------
    path
        A file with one document.
    changes
        Values by dotted path below ``spec`` that replace the file's (``--set``).

    Raises
    ------
    InvalidEvolution
        With every problem found, each naming its field and line.
    """
    text = _read(path)
    try:
        document = yaml.safe_load(text)
        node = yaml.compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = Problem(
            "", f"is not YAML: {getattr(error, 'problem', error)}", mark and mark.line + 1
        )
        raise InvalidEvolution(path, [problem]) from None
    if not isinstance(document, dict):
        raise InvalidEvolution(path, [Problem("", "must hold one EmotionEvolution object")])
    for dotted, value in (changes or {}).items():
        _assign(document, f"spec.{dotted}", value)
    problems = check(document)
    if problems:
        lined = [Problem(p.field, p.message, _line(node, p.field)) for p in problems]
        raise InvalidEvolution(path, lined)
    return EmotionEvolution.model_validate(document)


def check(document: dict[str, Any]) -> list[Problem]:
    """Return what the API server would refuse in an object; empty where it would take it."""
    try:
        evolution = EmotionEvolution.model_validate(document)
    except ValidationError as error:
        return [Problem(_dotted(e["loc"]), _words(e)) for e in error.errors()]
    named = {"metadata": {"name": evolution.metadata.name}}
    problems = _broken(ROOT_RULES, named, None, "")
    problems += _check_model(evolution.spec, None, "spec")
    return problems


def check_edit(old: EmotionEvolution, new: EmotionEvolution) -> list[Problem]:
    """Return what the API server would refuse in an edit of an existing object."""
    return _check_model(new.spec, old.spec, "spec", transitions=True)


def _check_model(
    model: ApiModel, old: ApiModel | None, path: str, *, transitions: bool = False
) -> list[Problem]:
    """Run a type's rules, and those of the types inside it."""
    rules = [r for r in model.rules if r.is_transition == transitions]
    old_json = old.to_json() if old is not None else None
    problems = _broken(rules, model.to_json(), old_json, path)
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


def _broken(
    rules: tuple[Rule, ...] | list[Rule],
    value: dict[str, Any],
    old: dict[str, Any] | None,
    path: str,
) -> list[Problem]:
    activation = {"self": celpy.json_to_cel(value)}
    if old is not None:
        activation["oldSelf"] = celpy.json_to_cel(old)
    problems = []
    for rule in rules:
        try:
            holds = bool(_program(rule.expression).evaluate(activation))
        except CELEvalError as error:
            raise AssertionError(f"the rule {rule.expression!r} does not run: {error}") from error
        if not holds:
            problems.append(Problem(path, rule.message))
    return problems


@lru_cache(maxsize=256)
def _program(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidEvolution(path, [Problem("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise InvalidEvolution(path, [Problem("", f"is not UTF-8 (byte {error.start})")]) from None


def _assign(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for name in parents:
        document = document.setdefault(name, {})
    document[last] = value


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


#: The API server's words for pydantic's error types.
_WORDS = {
    "missing": "Required value",
    "extra_forbidden": "unknown field",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "greater_than": "should be greater than {gt}",
    "less_than_equal": "should be less than or equal to {le}",
    "less_than": "should be less than {lt}",
    "string_pattern_mismatch": "should match '{pattern}'",
    "string_too_short": "should be at least {min_length} chars long",
    "string_too_long": "may not be longer than {max_length}",
    "too_short": "should have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "enum": "Unsupported value: supported values: {expected}",
    "literal_error": "Unsupported value: supported values: {expected}",
}


def _words(error: ErrorDetails) -> str:
    """Return the API server's words for one of pydantic's errors."""
    template = _WORDS.get(error["type"])
    if template is None:
        return f"Invalid value: {error['input']!r}: {error['msg']}"
    text = template.format(**error.get("ctx", {}))
    if error["type"] in ("missing", "extra_forbidden"):
        return text
    shown = error["input"]
    return f"Invalid value: {shown!r}: {text}" if not isinstance(shown, BaseModel | dict) else text


def _line(node: yaml.Node | None, field: str) -> int | None:
    """Return the line of a field, or of the nearest parent that the file has."""
    line = None
    for part in field.replace("[", ".[").split("."):
        if isinstance(node, yaml.MappingNode):
            match = next((kv for kv in node.value if kv[0].value == part), None)
            if match is None:
                return line
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and part.startswith("["):
            index = int(part[1:-1])
            if index >= len(node.value):
                return line
            node = node.value[index]
            line = node.start_mark.line + 1
    return line
