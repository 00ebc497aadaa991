"""What a stage's result follows from, as a document that is hashed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfemo_api.contract import (
    StageConfig,
)


def config_fingerprint(config: StageConfig, relevant: Sequence[str]) -> dict[str, Any]:
    """Return what a stage's result follows from: the seed, the models, the settings.

    Places below the run's own storage are given relative to it, so that a run that is moved, or
    repeated elsewhere, has the same hashes.
    """
    spec = config.spec.to_json()
    root = config.spec.storage.uri.rstrip("/")

    def relative(uri: str) -> str:
        return "storage:" + uri.removeprefix(root) if uri.startswith(root + "/") else uri

    return {
        "seed": config.seed,
        "generation": config.generation,
        "policyUri": relative(config.policy_uri),
        "judgeUri": relative(config.judge_uri),
        "replay": [relative(uri) for uri in config.replay],
        **{path: value_at(spec, path) for path in relevant},
    }


def value_at(value: Any, path: str) -> Any:
    """Return what stands at a dotted path of a JSON document, or None."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def differing_settings(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Return the names of the settings in which two fingerprints differ."""
    names = [k for k in sorted({*stored, *asked}) if stored.get(k) != asked.get(k)]
    return names or ["unknown"]
