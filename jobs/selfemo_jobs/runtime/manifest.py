"""The manifest: what makes a stage at most once effective, and the run's provenance.

A stage writes its parts, then ``manifest.json`` with a conditional put. The manifest holds nothing
that differs between two runs of the same seed on the same machine (no time, host or attempt): those
go to ``run.json`` beside it, which nobody reads to decide anything.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from selfemo_api.api_model import API_VERSION, ApiModel, JsonObject, first_problem
from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

MANIFEST = "manifest.json"


class Part(ApiModel):
    """One file of a stage's result."""

    path: str
    """Below the stage's folder."""
    sha256: str
    size: int
    rows: int | None = None
    """Rows of a table; None for other files."""


class Manifest(ApiModel):
    """What a stage made, from what."""

    api_version: str = API_VERSION
    kind: str = "StageManifest"
    run: str
    stage: Stage
    generation: int
    seed: int
    config_sha256: str
    """Hash of the part of the configuration that the result follows from."""
    config: JsonObject
    parents: dict[str, str] = {}
    """SHA-256 of each parent's manifest by stage slug: the chain."""
    parts: list[Part] = []
    rows: int = 0
    metrics: dict[str, float] = {}
    scores: list[SourceScore] = []
    model: str | None = None
    """Train only: the model's folder below the stage's."""
    report: JsonObject = {}
    """Figures too large for the termination message (a confusion matrix, the filters' funnel …)."""
    versions: dict[str, str] = {}

    def encode(self) -> bytes:
        """Return the canonical bytes: sorted keys, so equal content has equal hashes."""
        return canonical(self.to_json())

    def part(self, path: str) -> Part:
        """Return a part by its path. Raises KeyError."""
        return next(p for p in self.parts if p.path == path)


def canonical(value: dict[str, Any]) -> bytes:
    """Return JSON bytes that are equal for equal values."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(store: Store, uri: str) -> tuple[Manifest, str]:
    """Return a manifest and the SHA-256 of its bytes.

    Raises
    ------
    BadInput
        If there is none, or it is not a manifest of this version.
    """
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise BadInput(f"{uri} does not exist: the stage that writes it has not finished") from None
    try:
        return Manifest.model_validate_json(data), sha256(data)
    except ValidationError as error:
        field, message = first_problem(error)
        raise BadInput(
            f"{uri} is not a manifest of {API_VERSION}: {field or 'the file'}: {message}"
        ) from None


def read_part(store: Store, manifest_uri: str, part: Part) -> bytes:
    """Return a part's bytes, checked against the manifest.

    Raises
    ------
    BadInput
        If the part is missing or its hash differs.
    """
    uri = join(manifest_uri.rsplit("/", 1)[0], part.path)
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise BadInput(f"{uri} is missing, though {manifest_uri} lists it: restore it") from None
    found = sha256(data)
    if found != part.sha256:
        raise BadInput(
            f"{uri} does not match {manifest_uri}: sha256 is {found[:12]}…, the manifest says "
            f"{part.sha256[:12]}…; restore the file, or delete the stage's folder to run it again"
        )
    return data
