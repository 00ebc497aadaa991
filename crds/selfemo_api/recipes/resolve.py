"""Resolves the spec that the user wrote: its recipe, preset, overrides and ablation. Pure."""

from __future__ import annotations

from typing import Any

from selfemo_api.recipes.presets import with_labeled_dialogues, with_preset
from selfemo_api.recipes.recipe import merged, misplaced_overrides, recipe_values
from selfemo_api.spec import DEFAULT_RECIPE, Ablation

#: The settings that an ablation changes.
_ABLATIONS: dict[str, dict[str, Any]] = {
    Ablation.RANDOM_REWARDS: {"reward": {"signal": "Random"}},
    Ablation.PLAIN_IOU: {"reward": {"smoothing": 0.0}},
    Ablation.UNWEIGHTED_GROUPS: {"reward": {"groupWeight": "None"}},
    Ablation.SELF_GRADED: {"reward": {"judge": {"model": "Policy", "weight": 0.0}}},
}


def resolve(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with the values that its recipe and its preset provide.

    The precedence, from lowest to highest: the values of the recipe, the fields of the spec, its
    ``overrides``, its ``ablation``. Settings that remain unset have the base value of their type.

    Parameters
    ----------
    spec
        The JSON of ``spec`` as it was written. It is not changed. Values of a wrong type remain
        unchanged: the types reject them.

    Raises
    ------
    ValueError
        If there is no such recipe, or ``overrides`` contains a setting that it must not contain.

    Examples
    --------
    >>> spec = resolve({"recipe": "paper-v1", "overrides": {"training": {"epochs": 3}}})
    >>> spec["training"]["epochs"]
    3
    """
    values = with_recipe(spec)
    dataset = values.get("dataset")
    if isinstance(dataset, dict):
        values["dataset"] = with_labeled_dialogues(dataset)
    return values


def with_recipe(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec as :func:`resolve` does, with its sources as they were written.

    Its ``labeledDialogues`` are not yet a separate source, so that the index of a source is the
    index in the user's file.

    Parameters
    ----------
    spec
        The JSON of ``spec`` as it was written. It is not changed.

    Raises
    ------
    ValueError
        If there is no such recipe, or ``overrides`` contains a setting that it must not contain.
    """
    overrides = spec.get("overrides")
    if not isinstance(overrides, dict):
        overrides = {}
    for path, problem in misplaced_overrides(overrides).items():
        raise ValueError(f"`overrides.{path}`: {problem}")
    name, ablation = spec.get("recipe"), spec.get("ablation")
    name = DEFAULT_RECIPE if name is None else name
    recipe = recipe_values(name) if isinstance(name, str) else {}
    values = merged(_for_engine(recipe, spec), spec)
    values = merged(values, overrides, null_removes=True)
    if isinstance(ablation, str):
        values = merged(values, _ABLATIONS.get(ablation, {}))
    dataset = values.get("dataset")
    if isinstance(dataset, dict):
        values["dataset"] = with_preset(dataset)
    return values


def _for_engine(recipe: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe without the arguments of an engine that the spec replaces."""
    engine, self_play = recipe.get("selfPlay", {}).get("engine"), spec.get("selfPlay")
    requested = self_play.get("engine") if isinstance(self_play, dict) else None
    if requested in (None, engine):
        return recipe
    others = {n: v for n, v in recipe.get("selfPlay", {}).items() if n != "engineArgs"}
    return {**recipe, "selfPlay": others}
