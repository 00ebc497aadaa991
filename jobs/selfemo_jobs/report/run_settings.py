"""The settings of a run as its manifests have them, by dotted path. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfemo_api.recipes.recipe import leaves
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.run_reader import StageRecord

#: Entries of a manifest's configuration that are not settings: they differ in each generation.
_NO_SETTINGS = {"generation", "seed", "policyUri", "judgeUri", "replay"}
#: Settings whose value is a map of labels or columns.
_MAPS = {"dataset.labelPrior", "dataset.labelMap", "dataset.columns", "model.promptTemplates"}


def manifest_settings(records: Sequence[StageRecord]) -> dict[str, Any]:
    """Return the settings that the finished stages depend on, the last value of each.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    settings: dict[str, Any] = {}
    for record in records:
        for path, value in record.manifest.config.items():
            if path not in _NO_SETTINGS:
                settings |= leaves({path: value}, whole=_MAPS)
    return settings


def spec_settings(spec: EvolutionSpec) -> dict[str, Any]:
    """Return all settings of a resolved spec.

    Parameters
    ----------
    spec
        The resolved spec.
    """
    return leaves(spec.to_json(), whole=_MAPS)


def base_model(records: Sequence[StageRecord], spec: EvolutionSpec | None) -> str | None:
    """Return the URI of the model that the run starts from; None if no stage has finished.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    spec
        The resolved spec, or None.
    """
    if spec is not None:
        return spec.baseline_uri
    if not records:
        return None
    uri = records[0].manifest.config.get("policyUri")
    return str(uri) if uri else None


def source_uses(records: Sequence[StageRecord], spec: EvolutionSpec | None) -> dict[str, Any]:
    """Return the sources of dialogues by name, each as in ``spec.dataset.sources``.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    spec
        The resolved spec, or None.
    """
    if spec is not None:
        return {source.name: source.to_json() for source in spec.dataset.sources}
    sources: dict[str, Any] = {}
    for record in records:
        for use in ("selfPlay", "labeled", "evaluation"):
            for source in record.manifest.config.get(f"dataset.sources.{use}") or ():
                sources.setdefault(source["name"], source)
    return sources


def check_report(records: Sequence[StageRecord]) -> Mapping[str, Any]:
    """Return what the stage Check reported: counts of the sources, and the kind of model.

    Parameters
    ----------
    records
        The finished stages of the run in order.
    """
    for record in records:
        if record.manifest.stage is Stage.CHECK:
            return record.manifest.report
    return {}
