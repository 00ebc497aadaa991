"""What a shell offers for an argument: names of runs, recipes, presets and settings."""

from __future__ import annotations

import os
from pathlib import Path

from selfemo_operator.local.state import run_folders


def complete_runs(incomplete: str) -> list[str]:
    """Return the names of the runs in the state folder, for a shell.

    Parameters
    ----------
    incomplete
        What the user has typed.
    """
    try:
        folders = run_folders(Path(os.environ.get("SELFEMO_STATE", ".selfemo")))
    except OSError:
        return []  # the command itself says what is wrong; a message here would be on the line
    names = [
        folder.name if folder.parent.name == "default" else f"{folder.parent.name}/{folder.name}"
        for folder in folders
    ]
    return [name for name in names if name.startswith(incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Return the names of the recipes, for a shell.

    Parameters
    ----------
    incomplete
        What the user has typed.
    """
    from selfemo_api.recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """Return the paths of the settings for ``--set``, for a shell.

    Parameters
    ----------
    incomplete
        What the user has typed.
    """
    from selfemo_api.schema.suggestions import setting_paths

    return [f"{path}=" for path in setting_paths() if path.startswith(incomplete)]


def complete_presets(incomplete: str) -> list[str]:
    """Return the names of the published datasets, for a shell.

    Parameters
    ----------
    incomplete
        What the user has typed.
    """
    from selfemo_api.spec import Preset

    return [name for name in Preset if name.startswith(incomplete)]


def complete_examples(incomplete: str) -> list[str]:
    """Return the names of the examples, for a shell.

    Parameters
    ----------
    incomplete
        What the user has typed.
    """
    from selfemo_api.packaged_files import example_names

    return [name for name in example_names() if name.startswith(incomplete)]
