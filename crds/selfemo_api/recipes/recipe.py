"""The built-in recipes, and the settings that they may set. Pure, except for reading files."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, get_args

import yaml

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import EvolutionSpec

#: The parts of the spec that a recipe may set. The CRD has no defaults for them.
RECIPE_PARTS = (
    *("model.prompts", "model.maxPromptTokens", "dataset.context", "warmStart", "selfPlay"),
    *("reward", "flywheel", "training", "resources.nodes", "resources.gpusPerNode"),
    *("resources.processesPerNode", "evaluation", "stopping", "promotion"),
)
#: The names of the built-in recipes: the default is the first.
RECIPES = (
    *("small-v2", "small-v1", "qwen3-lora-v1", "qwen3-600m-v1", "qwen3-4b-v1", "qwen3-8b-v1"),
    *("paper-v1", "tests-v1"),
)


def recipe_text(name: str) -> str:
    """Return the file of a built-in recipe: YAML with the reason for each value as a comment."""
    return (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")


@lru_cache(maxsize=len(RECIPES))
def _parsed_recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load(recipe_text(name)) or {}


def recipe_values(name: str) -> dict[str, Any]:
    """Return the values of a recipe, in the form of a spec.

    Settings that it omits have the base values of the types, which are the values of ``paper-v1``.

    Parameters
    ----------
    name
        The name and version of the recipe.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe `{name}`; available: {', '.join(RECIPES)}")
    return copy.deepcopy(_parsed_recipe(name))


@lru_cache(maxsize=1)
def override_only_paths() -> frozenset[str]:
    """Return the dotted paths of all settings, and groups of them, without a field in the CRD."""
    return frozenset(path for path, expert in _paths(EvolutionSpec, "") if expert)


@lru_cache(maxsize=1)
def _own_paths() -> frozenset[str]:
    """Return the dotted paths of all fields of the CRD, and of the groups that they are in."""
    return frozenset(path for path, expert in _paths(EvolutionSpec, "") if not expert)


def _paths(model: type[ApiModel], parent: str) -> Iterator[tuple[str, bool]]:
    """Yield the path of each setting and group, and whether it has no field in the CRD."""
    for name, field in model.model_fields.items():
        path = f"{parent}{field.alias or name}"
        extra = field.json_schema_extra
        expert = isinstance(extra, dict) and bool(extra.get("x-selfemo-expert"))
        yield path, expert
        if not expert:
            for inner in _models_in(field.annotation):
                yield from _paths(inner, f"{path}.")


def _models_in(annotation: Any) -> list[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def is_override_only(path: str) -> bool:
    """Return whether a dotted path is a setting without a field in the CRD, or is inside one.

    Examples
    --------
    >>> is_override_only("training.clip.low"), is_override_only("training.imitation")
    (True, False)
    """
    parts = path.split(".")
    return any(".".join(parts[: end + 1]) in override_only_paths() for end in range(len(parts)))


def written_path(path: str) -> str:
    """Return where users write a setting, as a dotted path below ``spec``.

    Examples
    --------
    >>> written_path("training.epochs"), written_path("training.imitation")
    ('overrides.training.epochs', 'training.imitation')
    """
    return f"overrides.{path}" if is_override_only(path) else path


def with_overrides(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec as users write it: settings without a field are below ``overrides``.

    Parameters
    ----------
    spec
        The JSON of a spec in which such settings may be next to the others. It is not changed.

    Examples
    --------
    >>> with_overrides({"training": {"epochs": 2, "imitation": 10.0}})
    {'training': {'imitation': 10.0}, 'overrides': {'training': {'epochs': 2}}}
    """
    fields, experts = _divided(spec, "")
    overrides = merged(spec.get("overrides") or {}, experts)
    return {**fields, "overrides": overrides} if overrides else fields


def _divided(values: dict[str, Any], parent: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that have a dedicated field, and those that have none."""
    fields: dict[str, Any] = {}
    experts: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{parent}{name}"
        if path in override_only_paths():
            experts[name] = value
        elif isinstance(value, dict) and any(
            p.startswith(f"{path}.") for p in override_only_paths()
        ):
            inner, inner_experts = _divided(value, f"{path}.")
            if inner or not inner_experts:
                fields[name] = inner
            if inner_experts:
                experts[name] = inner_experts
        else:
            fields[name] = value
    return fields, experts


def misplaced_overrides(overrides: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with each value that ``spec.overrides`` must not contain, by its path.

    Parameters
    ----------
    overrides
        The JSON of ``spec.overrides``.

    Examples
    --------
    >>> misplaced_overrides({"training": {"epochs": 2, "imitation": 0.5}})
    {'training.imitation': 'has a dedicated field: set `training.imitation` outside `overrides`'}
    """
    problems = {}
    for path, value in leaves(overrides).items():
        if is_override_only(path) or (value == {} and _is_group(path)):
            continue
        parts = path.split(".")
        parents = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        own = next((parent for parent in parents if parent in _own_paths()), None)
        if own is not None and (own == path or not _is_group(own)):
            problems[path] = f"has a dedicated field: set `{path}` outside `overrides`"
        else:
            problems[path] = "unknown field"
    return problems


def _is_group(path: str) -> bool:
    """Return whether settings without a field are below a dotted path."""
    return any(expert.startswith(f"{path}.") for expert in override_only_paths())


def in_recipe(path: str) -> bool:
    """Return whether a recipe may set a value for a dotted path."""
    return any(path == part or path.startswith(f"{part}.") for part in RECIPE_PARTS)


def leaves(values: dict[str, Any], parent: str = "", whole: Container[str] = ()) -> dict[str, Any]:
    """Return the values of a nested document by dotted path. Lists and empty objects are values.

    Parameters
    ----------
    values
        The document.
    parent
        The path of the document with a dot, or an empty text.
    whole
        The paths of objects that are values too.

    Examples
    --------
    >>> leaves({"training": {"epochs": 2, "clip": {"low": 0.1}}})
    {'training.epochs': 2, 'training.clip.low': 0.1}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{parent}{name}"
        if isinstance(value, dict) and value and path not in whole:
            flat |= leaves(value, f"{path}.", whole)
        else:
            flat[path] = value
    return flat


def changed_settings(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the settings in which a resolved spec differs from its recipe, by dotted path.

    Parameters
    ----------
    spec
        The resolved spec.
    """
    actual = spec.to_json()
    names = ("dataset", "storage", "recipe")
    unchanged = {name: actual[name] for name in names} | recipe_values(spec.recipe)
    unchanged["model"] = {"uri": spec.model.uri} | recipe_values(spec.recipe).get("model", {})
    dataset = {name: value for name, value in actual["dataset"].items() if name != "context"}
    unchanged["dataset"] = dataset | recipe_values(spec.recipe).get("dataset", {})
    of_recipe = leaves(EvolutionSpec.model_validate(unchanged).to_json())
    of_spec = leaves(actual)
    paths = sorted(path for path in {*of_recipe, *of_spec} if in_recipe(path))
    return {p: of_spec.get(p) for p in paths if of_spec.get(p) != of_recipe.get(p)}


@lru_cache(maxsize=1)
def base_values() -> dict[str, Any]:
    """Return the parts of the spec that may be omitted, with their base values. Do not change it.

    The required parts (``model``, ``dataset``, ``storage``) are not included.
    """
    defaults = {f.alias or n: f.default for n, f in EvolutionSpec.model_fields.items()}
    return {n: value.to_json() for n, value in defaults.items() if isinstance(value, ApiModel)}


def merged(
    base: dict[str, Any], changes: dict[str, Any], *, null_removes: bool = False
) -> dict[str, Any]:
    """Return a document in which the values of another one replace its own. Lists are replaced.

    Parameters
    ----------
    base
        The document. It is not changed.
    changes
        The values that replace those of ``base``.
    null_removes
        Whether a null removes the value of ``base``. If false, a null changes nothing.

    Examples
    --------
    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    result = dict(base)
    for name, value in changes.items():
        if value is None:
            if null_removes:
                result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value, null_removes=null_removes)
        else:
            result[name] = value
    return result
