"""The manifest: it makes a stage effective at most once, and holds the provenance of its result.

A stage writes its parts, and then ``manifest.json`` with a conditional put. The manifest has
nothing that differs between two runs of the same seed on the same machine: no time, host or
attempt. These are in ``run.json`` beside it, which is never read to decide anything.
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
    """A file of a stage's result."""

    path: str
    """The path below the stage's folder."""
    sha256: str
    """The hash of the file's bytes."""
    size: int
    """The size in bytes."""
    rows: int | None = None
    """The number of rows of a table. None for other files."""


class Manifest(ApiModel):
    """The result of a stage, and all that it follows from."""

    api_version: str = API_VERSION
    kind: str = "StageManifest"
    run: str
    """The run's folder in the storage: ``<namespace>/<name>-<uid8>``."""
    stage: Stage
    generation: int
    seed: int
    """The stage's own seed."""
    config_sha256: str
    """The hash of ``config``."""
    config: JsonObject
    """The fingerprint: the settings that the result follows from."""
    parents: dict[str, str] = {}
    """The SHA-256 of each parent's manifest, by the stage's slug. They chain the stages."""
    parts: list[Part] = []
    rows: int = 0
    metrics: dict[str, float] = {}
    scores: list[SourceScore] = []
    model: str | None = None
    """WarmStart and Train only: the path of the model's folder below the stage's folder."""
    label_prior: dict[str, float] | None = None
    """Check only: the share of each emotion in the labeled sources, from 0 to 1."""
    report: JsonObject = {}
    """What is too large for the termination message: a confusion matrix, the filters' funnel …"""
    versions: dict[str, str] = {}
    """The version of each library that can change the result."""

    def encode(self) -> bytes:
        """Return the bytes of the file. Equal manifests have equal bytes."""
        return canonical_json(self.to_json())

    def part(self, path: str) -> Part:
        """Return a part by its path. Raises KeyError."""
        return next(p for p in self.parts if p.path == path)


def canonical_json(value: dict[str, Any]) -> bytes:
    """Return an object as JSON. Equal objects have equal bytes.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    True
    """
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(store: Store, uri: str) -> tuple[Manifest, str]:
    """Return a manifest and the SHA-256 of its bytes.

    Parameters
    ----------
    store
        A store that reaches the URI.
    uri
        The URI of the ``manifest.json``.

    Raises
    ------
    BadInput
        If there is no manifest, or it is not a manifest of this version.
    """
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise BadInput(f"{uri} does not exist: the stage that writes it has not finished") from None
    return parse_manifest(data, uri), sha256(data)


def parse_manifest(data: bytes, uri: str) -> Manifest:
    """Return the manifest in some bytes.

    Parameters
    ----------
    data
        The bytes of the file.
    uri
        The URI of the file, for the message.

    Raises
    ------
    BadInput
        If it is not a manifest of this version.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        field, message = first_problem(error)
        raise BadInput(
            f"{uri} is not a manifest of {API_VERSION}: {field or 'the file'}: {message}"
        ) from None


def read_part(store: Store, manifest_uri: str, part: Part) -> bytes:
    """Return a part's bytes, checked against the manifest.

    Parameters
    ----------
    store
        A store that reaches the manifest.
    manifest_uri
        The URI of the manifest that lists the part.
    part
        The part.

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
    digest = sha256(data)
    if digest != part.sha256:
        raise BadInput(
            f"{uri} does not match {manifest_uri}: sha256 is {digest[:12]}…, the manifest has "
            f"{part.sha256[:12]}…; restore the file, or delete the stage's folder to run it again"
        )
    return data
