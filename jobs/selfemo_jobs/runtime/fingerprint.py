"""The fingerprint: the settings that a stage's result follows from, as a document to hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.spec import EvolutionSpec


def config_fingerprint(config: StageConfig, relevant: Sequence[str]) -> dict[str, Any]:
    """Return the settings that a stage's result follows from: the seed, the models, the spec.

    URIs below the run's own storage are given relative to it. So a run that is moved, or repeated
    with another storage, has the same hashes.

    Parameters
    ----------
    config
        The stage's configuration.
    relevant
        Dotted paths of the parts of the spec that the result follows from, see
        :func:`relevant_settings`.
    """

    def relative(uri: str) -> str:
        return storage_relative(uri, config.spec.storage.uri)

    return {
        "seed": config.seed,
        "generation": config.generation,
        "policyUri": relative(config.policy_uri),
        "judgeUri": relative(config.judge_uri),
        "replay": [relative(uri) for uri in config.replay],
        **_compared(config, relative),
        **relevant_settings(config.spec, relevant),
    }


def storage_relative(uri: str, storage: str) -> str:
    """Return a URI relative to the storage of the run; one of another place as it is.

    Parameters
    ----------
    uri
        The URI of a model or a manifest.
    storage
        The URI of the storage.

    Examples
    --------
    >>> storage_relative("s3://bucket/runs/a/model", "s3://bucket/runs/")
    'storage:/a/model'
    """
    root = storage.rstrip("/")
    return "storage:" + uri.removeprefix(root) if uri.startswith(root + "/") else uri


def _compared(config: StageConfig, relative: Callable[[str], str]) -> dict[str, Any]:
    """Return the model and the earlier evaluations that Evaluate measures expression with."""
    if config.baseline_uri is None:
        return {}
    earlier = {name.value: relative(uri) for name, uri in config.earlier_evaluations.items()}
    return {"baselineUri": relative(config.baseline_uri), "earlierEvaluations": earlier}


def relevant_settings(spec: EvolutionSpec, relevant: Sequence[str]) -> dict[str, Any]:
    """Return the parts of a spec that a result follows from, by path.

    Parameters
    ----------
    spec
        The spec.
    relevant
        Dotted paths of the parts. The sources of dialogues are ``dataset.sources.selfPlay`` (with
        the labeled ones), ``dataset.sources.labeled`` and ``dataset.sources.evaluation``.
    """
    document = spec.to_json()
    dataset = spec.dataset
    document["dataset"]["sources"] = {
        "selfPlay": [source.to_json() for source in dataset.self_play],
        "labeled": [source.to_json() for source in dataset.labeled],
        "evaluation": [source.to_json() for source in dataset.evaluation],
    }
    return {path: value_at(document, path) for path in relevant}


def value_at(document: Any, path: str) -> Any:
    """Return the value at a dotted path of a JSON document, or None where there is none.

    Examples
    --------
    >>> value_at({"reward": {"penalty": 0.5}}, "reward.penalty")
    0.5
    """
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def differing_settings(stored: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """Return the names of the settings in which two fingerprints differ.

    Examples
    --------
    >>> differing_settings({"seed": 1, "generation": 2}, {"seed": 1, "generation": 3})
    ['generation']
    """
    names = sorted({*stored, *requested})
    return [n for n in names if stored.get(n) != requested.get(n)] or ["unknown"]
