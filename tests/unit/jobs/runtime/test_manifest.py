"""A manifest is read as it was written, also by an older version."""

from __future__ import annotations

import json

import pytest

from selfemo_api.stages import Stage
from selfemo_jobs.errors import DamagedFiles
from selfemo_jobs.runtime.manifest import Manifest, Part, parse_manifest

MANIFEST = Manifest(
    run="default/demo-0123abcd",
    stage=Stage.SCORE,
    generation=1,
    seed=3,
    config_sha256="0" * 64,
    config={"a": 1},
    parts=[Part(path="part.parquet", sha256="1" * 64, size=3)],
)


def test_fields_of_a_newer_version_are_left_out() -> None:
    """As a stage reads it after a rollback."""
    newer = MANIFEST.to_json() | {"newer": {"a": 1}}
    newer["parts"][0]["newer"] = 1
    assert parse_manifest(json.dumps(newer).encode(), "x") == MANIFEST


def test_a_missing_field_is_damage() -> None:
    content = MANIFEST.to_json()
    del content["parts"][0]["sha256"]
    with pytest.raises(DamagedFiles, match="x is not a manifest"):
        parse_manifest(json.dumps(content).encode(), "x")
