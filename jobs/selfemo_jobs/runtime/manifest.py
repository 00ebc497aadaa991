"""The manifest: it makes a stage effective at most once, and holds the provenance of its result.

A stage writes its parts, and then ``manifest.json`` with a conditional put. The manifest has
nothing that differs between two runs of the same seed on the same machine: no time, host or
attempt. These are in ``run.json`` beside it, which is never read to decide anything.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from selfemo_api.api_model import API_VERSION, ApiModel, JsonObject, first_problem
from selfemo_api.contract import GenerationOutcome
from selfemo_api.results import ExpressionScore, SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.errors import DamagedFiles, WrongRows
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

MANIFEST = "manifest.json"
#: The number of digits of a hash in the names of parts and of models' folders. Few attempts write
#: the same part, so that 48 bits do not meet by chance.
NAME_DIGITS = 12
_STAGE_FOLDER = re.compile(r"^(.*/generations/\d{3})/[a-z]+(?=/)")


class Part(ApiModel):
    """A file of a stage's result."""

    path: str
    """The path below the stage's folder. The hash of the content is in the name, so that two
    attempts never write different content to one place."""
    sha256: str
    """The hash of the file's bytes."""
    size: int
    """The size in bytes."""
    rows: int | None = None
    """The number of rows of a table. None for other files."""

    @property
    def name(self) -> str:
        """The path without the hash of the content. Each stage has one part of a name."""
        return self.path.replace(f"-{self.sha256[:NAME_DIGITS]}.", ".")


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
    expression: ExpressionScore | None = None
    """Evaluate only: how well the responder expresses emotions, where it plays."""
    model: str | None = None
    """WarmStart and Train only: the path of the model's folder below the stage's folder. The hash
    of the model is in its name."""
    label_prior: dict[str, float] | None = None
    """Check only: the share of each emotion in the labeled sources, from 0 to 1."""
    outcome: GenerationOutcome | None = None
    """Publish only: the outcome of the generation. The status keeps those of the last generations
    alone. The URI of the model is relative to the storage, as in ``config``."""
    report: JsonObject = {}
    """What is too large for the termination message: a confusion matrix, the filters' funnel …"""
    versions: dict[str, str] = {}
    """The version of each library that can change the result."""

    def encode(self) -> bytes:
        """Return the bytes of the file. Equal manifests have equal bytes."""
        return canonical_json(self.to_json())

    def find_part(self, name: str) -> Part | None:
        """Return a part by its name or its path; None if there is no such part."""
        return next((p for p in self.parts if name in (p.name, p.path)), None)


def canonical_json(value: dict[str, Any]) -> bytes:
    """Return an object as JSON. Equal objects have equal bytes.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    True
    """
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def content_path(path: str, digest: str) -> str:
    """Return the path of a part with the hash of its content in the file's name.

    Parameters
    ----------
    path
        The path without the hash. The file's name has an ending.
    digest
        The SHA-256 of the content, in hexadecimal digits.

    Examples
    --------
    >>> content_path("dialogues/dev.jsonl.gz", "0123456789abcdef")
    'dialogues/dev-0123456789ab.jsonl.gz'
    """
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{folder}{slash}{stem}-{digest[:NAME_DIGITS]}{dot}{ending}"


def rerun_advice(uri: str) -> str:
    """Return what to do where the rows of an earlier stage of the generation cannot be used.

    The stage would answer with the same rows, so its result has to go. So has that of each stage
    after it.

    Parameters
    ----------
    uri
        The URI of a file of the stage.
    """
    match = _STAGE_FOLDER.match(uri)
    folder = match[1] if match else uri.rsplit("/", 1)[0]
    return f"delete the folder {folder}, and run the same command again"


def wrong_rows(problem: str, uri: str) -> WrongRows:
    """Return the error of a stage that cannot use the rows of an earlier stage of its generation.

    Parameters
    ----------
    problem
        What is wrong with which row.
    uri
        The URI of a file of the earlier stage.
    """
    match = _STAGE_FOLDER.match(uri)
    stage = match[0] if match else uri.rsplit("/", 1)[0]
    return WrongRows(problem, join(stage, MANIFEST), rerun_advice(uri))


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
    DamagedFiles
        If there is no manifest, or it is not a manifest of this version.
    """
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise DamagedFiles(
            f"{uri} does not exist", uri, "the stage that writes it has not finished"
        ) from None
    return parse_manifest(data, uri), sha256(data)


def parse_manifest(data: bytes, uri: str) -> Manifest:
    """Return the manifest in some bytes.

    Unknown fields are left out: a newer version may have written them before a rollback.

    Parameters
    ----------
    data
        The bytes of the file.
    uri
        The URI of the file, for the message.

    Raises
    ------
    DamagedFiles
        If it is not a manifest of this version.
    """
    try:
        return Manifest.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        field, message = first_problem(error)
        raise DamagedFiles(
            f"{uri} is not a manifest of {API_VERSION}", uri, f"{field or 'the file'}: {message}"
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
    DamagedFiles
        If the part is missing or its hash differs.
    """
    uri = join(manifest_uri.rsplit("/", 1)[0], part.path)
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise missing_part(uri, manifest_uri) from None
    digest = sha256(data)
    if digest != part.sha256:
        raise changed_part(uri, manifest_uri, digest, part)
    return data


def missing_part(uri: str, manifest_uri: str) -> DamagedFiles:
    """Return the error of a part that a manifest lists and that is not there."""
    return DamagedFiles(f"{uri} is missing, though {manifest_uri} lists it", manifest_uri)


def changed_part(uri: str, manifest_uri: str, digest: str, part: Part) -> DamagedFiles:
    """Return the error of a part whose hash is not the one that a manifest has."""
    hashes = f"sha256 is {digest[:12]}…, the manifest has {part.sha256[:12]}…"
    return DamagedFiles(f"{uri} does not match {manifest_uri} ({hashes})", manifest_uri)
