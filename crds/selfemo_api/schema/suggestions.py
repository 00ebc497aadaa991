"""Adds the probably intended name to the problem of a mistyped field or value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from selfemo_api.recipes import RECIPES, written_path
from selfemo_api.recipes.recipe import is_override_only
from selfemo_api.schema.rules import crd_schema, resolved_schema
from selfemo_api.schema.strict_yaml import UNKNOWN_FIELD, Problem
from selfemo_api.text.suggestions import closest

_UNSUPPORTED = re.compile(r'Unsupported value: "(.*)": supported values: (.*)')
_NO_RECIPE = re.compile(r"there is no recipe `(.*)`; available: ")
_OVERRIDES = "spec.overrides."
#: The maximum number of paths in a message.
_SHOWN = 3


def with_suggestion(problem: Problem) -> Problem:
    """Return a problem with the field or the value that was probably meant, if there is one.

    Parameters
    ----------
    problem
        A problem of a document.

    Examples
    --------
    >>> print(with_suggestion(Problem("spec.seflPlay", "unknown field", 7)))
    spec.seflPlay: unknown field: did you mean `selfPlay`? (line 7)
    """
    match = _suggested_field(problem) or _suggested_value(problem.message)
    if match is None:
        return problem
    sign = ":" if problem.message == UNKNOWN_FIELD else ";"
    message = f"{problem.message}{sign} did you mean {match}?"
    return Problem(problem.field, message, problem.line)


def _suggested_value(message: str) -> str | None:
    """Return the supported value that is most like the one in a message, in backquotes."""
    unsupported = _UNSUPPORTED.fullmatch(message)
    if unsupported is not None:
        value, supported = unsupported.groups()
        return _quoted(closest(value, re.findall(r'"([^"]*)"', supported)))
    recipe = _NO_RECIPE.match(message)
    return _quoted(closest(recipe[1], RECIPES)) if recipe is not None else None


def _quoted(name: str | None) -> str | None:
    return None if name is None else f"`{name}`"


def _suggested_field(problem: Problem) -> str | None:
    """Return the sibling field that is most like an unknown one, or the fields of the same name."""
    if problem.message != UNKNOWN_FIELD:
        return None
    parent, _, name = problem.field.rpartition(".")
    in_overrides = f"{parent}.".startswith(_OVERRIDES)
    root = resolved_schema() if in_overrides else crd_schema()
    inner = f"{parent}."[len(_OVERRIDES) :].rstrip(".") if in_overrides else parent
    sibling = closest(name, _properties_at(root, inner))
    if sibling is not None or not problem.field.startswith("spec."):
        return _quoted(sibling)
    paths = [path for path in setting_paths() if path.rpartition(".")[2].lower() == name.lower()]
    below = parent.removeprefix("spec").lstrip(".")
    nearest = [path for path in paths if below and path.startswith(f"{below}.")] or paths
    return " or ".join(f"`spec.{written_path(path)}`" for path in nearest[:_SHOWN]) or None


def _properties_at(schema: dict[str, Any], path: str) -> list[str]:
    """Return the names of the fields of the object at a dotted path."""
    for part in filter(None, path.split(".")):
        name, _, index = part.partition("[")
        schema = schema.get("properties", {}).get(name, {})
        schema = schema.get("items", {}) if index else schema
    return list(schema.get("properties", {}))


@lru_cache(maxsize=1)
def setting_paths() -> tuple[str, ...]:
    """Return the dotted path of each setting below ``spec``, outside lists."""
    spec = crd_schema()["properties"]["spec"]
    experts = (path for path in _leaf_paths(resolved_schema(), "") if is_override_only(path))
    return (*_leaf_paths(spec, ""), *experts)


def _leaf_paths(schema: dict[str, Any], parent: str) -> Iterator[str]:
    for name, below in schema.get("properties", {}).items():
        yield f"{parent}{name}"
        yield from _leaf_paths(below, f"{parent}{name}.")
