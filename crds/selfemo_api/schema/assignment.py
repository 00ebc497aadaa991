"""Sets values in a document by dotted path, as ``--set`` does."""

from __future__ import annotations

from typing import Any

from selfemo_api.recipes import with_overrides, written_path
from selfemo_api.recipes.recipe import leaves
from selfemo_api.schema.strict_yaml import Problem


def set_in_spec(document: dict[str, Any], dotted: str, value: Any) -> Problem | None:
    """Set a value of the spec in place, and return the problem if that is impossible.

    Parameters
    ----------
    document
        The document.
    dotted
        The dotted path below ``spec``. It may name a setting without a field.
    value
        The value. If it is an object, its settings without a field are put below ``overrides``.
    """
    path = written_path(dotted)
    if path != dotted or not isinstance(value, dict):
        return assign(document, f"spec.{path}", value)
    inner: dict[str, Any] = {}
    assign(inner, path, value)
    divided = with_overrides(inner)
    problem = assign(document, f"spec.{path}", _value_at(divided, path))
    for below, setting in leaves(divided.get("overrides", {})).items():
        problem = problem or assign(document, f"spec.overrides.{below}", setting)
    return problem


def _value_at(document: Any, dotted: str) -> Any:
    """Return the value at a dotted path, or an empty object if there is none."""
    for name in dotted.split("."):
        document = document.get(name, {}) if isinstance(document, dict) else {}
    return document


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
