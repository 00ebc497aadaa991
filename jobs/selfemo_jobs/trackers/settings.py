"""The settings and the tags of a run, as trackers show them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from selfemo_api.contract import RunOutcomes
from selfemo_api.spec import EvolutionSpec

#: Settings that are not written to a tracker. A pod template may have a secret in its environment;
#: the others are about the cluster and change no figure.
_HIDDEN = ("podTemplate", "queue", "deadlines", "failurePolicy", "managedBy", "suspend")
#: Settings whose keys are labels: these have signs that a tracker refuses in a name.
_BY_LABEL = ("dataset.labelMap", "dataset.labelPrior")
#: What a key may be made of where it becomes part of a name.
_PLAIN_KEY = re.compile(r"[\w.-]+")
#: The settings that are only how the resolved ones came about.
_SOURCES = ("overrides",)


def flat_settings(spec: EvolutionSpec) -> dict[str, str | int | float | bool]:
    """Return the settings of a resolved spec by their dotted path in camelCase.

    An object in a list is named by its field ``name``. Other lists are one JSON text, and so are
    maps whose keys are labels or have signs. References to Secrets, and the templates of pods, are
    left out.

    Parameters
    ----------
    spec
        The spec with the values of its recipe.
    """
    settings = spec.to_json()
    for name in (*_HIDDEN, *_SOURCES):
        settings.pop(name, None)
    return dict(_flatten(settings, ""))


def _flatten(value: Any, path: str) -> list[tuple[str, str | int | float | bool]]:
    if path.endswith("SecretRef"):
        return []
    if isinstance(value, list) and value and all(_is_named(entry) for entry in value):
        value = {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in value}
    if (
        isinstance(value, Mapping)
        and path not in _BY_LABEL
        and all(map(_PLAIN_KEY.fullmatch, value))
    ):
        prefix = f"{path}." if path else ""
        return [pair for k, v in value.items() for pair in _flatten(v, f"{prefix}{k}")]
    if isinstance(value, list | Mapping):
        return [(path, json.dumps(value, ensure_ascii=False))]
    return [(path, value)]


def _is_named(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("name"), str)


def run_tags(
    spec: EvolutionSpec, run: str, run_uri: str, outcomes: RunOutcomes | None
) -> dict[str, str]:
    """Return the facts about a run that are not settings.

    Parameters
    ----------
    spec
        The spec of the current generation.
    run
        The run's folder in the storage, ``<namespace>/<name>-<uid8>``.
    run_uri
        The URI of that folder.
    outcomes
        What has happened so far. None: it is unknown.
    """
    tags = {"selfemo.run": run, "selfemo.uri": run_uri}
    if spec.recipe:
        tags["selfemo.recipe"] = str(spec.recipe)
    if outcomes is not None:
        best = outcomes.best
        tags |= {
            "selfemo.changes": "\n".join(outcomes.changes),
            "selfemo.best.generation": str(best.generation),
            "selfemo.best.f1": f"{best.f1:.6f}",
            "selfemo.best.model": best.model_uri,
        }
    return tags
