"""Recipes: built-in, versioned values for the settings that a resource omits."""

from selfemo_api.recipes.recipe import (
    RECIPES,
    changed_settings,
    override_only_paths,
    recipe_values,
    with_overrides,
    written_path,
)
from selfemo_api.recipes.resolve import resolve

__all__ = [
    "RECIPES",
    "changed_settings",
    "override_only_paths",
    "recipe_values",
    "resolve",
    "with_overrides",
    "written_path",
]
