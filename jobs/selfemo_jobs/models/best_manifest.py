"""``<run>/best/manifest.json``: the best model of a run, at an address that never changes.

It is written again after each promotion, as a whole, and after the model itself. A model of the run
is named relative to the run's folder, so that a copy of that folder still has its best model.
"""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import unquote

from pydantic import Field, ValidationError

from selfemo_api.api_model import API_VERSION, ApiModel, first_problem
from selfemo_api.model_description import ModelDescription
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.manifest import MANIFEST, canonical_json
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

#: The kind of the file.
BEST_KIND = "BestModel"
#: The path of the file below the run's folder.
BEST_PATH = f"best/{MANIFEST}"
_SHA256 = r"^[0-9a-f]{64}$"


class BestManifest(ApiModel):
    """The best model of a run so far."""

    api_version: str = API_VERSION
    """The version of this format."""
    kind: str = BEST_KIND
    """Always `BestModel`."""
    run: Annotated[str, Field(max_length=256)]
    """The folder of the run in the storage: `<namespace>/<name>-<uid8>`."""
    generation: Annotated[int, Field(ge=0)]
    """The number of the generation of the model."""
    published: Annotated[int, Field(ge=0)] = 0
    """The number of the generation at whose end the file was written. The Publish of an earlier
    generation never replaces it."""
    f1: float
    """The weighted F1 of the model on the selection dataset, from 0 to 1."""
    model: Annotated[str, Field(min_length=1, max_length=2048)]
    """The URI of the model's folder, relative to the run's folder if the model is in it."""
    revision: Annotated[str, Field(max_length=253)] | None = None
    """The revision of a model on the hub."""
    evaluation_sha256: Annotated[str, Field(pattern=_SHA256)] | None = None
    """The SHA-256 of the manifest of the evaluation."""
    training_sha256: Annotated[str, Field(pattern=_SHA256)] | None = None
    """The SHA-256 of the manifest of the training or of the warm start. Unset: the run did not
    train the model, which is the base model."""
    description: ModelDescription | None = None
    """The description of a model whose folder has none, because the run did not make it. Unset: the
    model's folder has its description."""

    def encode(self) -> bytes:
        """Return the bytes of the file. Equal manifests have equal bytes."""
        return canonical_json(self.to_json())


def best_uri(run_uri: str) -> str:
    """Return the URI of a run's best manifest.

    Parameters
    ----------
    run_uri
        The URI of the run's folder.

    Examples
    --------
    >>> best_uri("s3://bucket/default/demo-00000000/")
    's3://bucket/default/demo-00000000/best/manifest.json'
    """
    return join(run_uri, BEST_PATH)


def relative_model(run_uri: str, model_uri: str) -> str:
    """Return a model's URI relative to the run's folder, or as it is if it is elsewhere.

    Parameters
    ----------
    run_uri
        The URI of the run's folder.
    model_uri
        The URI of the model.

    Examples
    --------
    >>> relative_model("file:///store/default/demo-1", "file:///store/default/demo-1/a/model")
    'a/model'
    >>> relative_model("file:///store/default/demo-1", "hf://owner/name")
    'hf://owner/name'
    """
    return model_uri.removeprefix(run_uri.rstrip("/") + "/")


def best_model_uri(manifest_uri: str, best: BestManifest) -> str:
    """Return the URI of the model that a best manifest names.

    Parameters
    ----------
    manifest_uri
        The URI of the best manifest: it may have been copied with its run.
    best
        Its content.

    Raises
    ------
    BadInput
        If the model is in the run's folder, and the manifest alone was copied.
    """
    if "://" in best.model:
        return best.model
    run_uri = manifest_uri.removesuffix("/" + BEST_PATH)
    if run_uri == manifest_uri:
        raise BadInput(
            f"{manifest_uri} was copied without its run: it must be at <run>/{BEST_PATH}"
        )
    return model_below(run_uri, best.model, manifest_uri)


def model_below(folder_uri: str, model: str, manifest_uri: str) -> str:
    """Return the URI of a model that a manifest names by its path below a folder.

    Parameters
    ----------
    folder_uri
        The URI of the folder.
    model
        The path, percent-encoded.
    manifest_uri
        The URI of the manifest, for the message.

    Raises
    ------
    BadInput
        If the path leads out of the folder.

    Examples
    --------
    >>> model_below("s3://bucket/run", "a/model", "s3://bucket/run/best/manifest.json")
    's3://bucket/run/a/model'
    """
    path = unquote(model)
    if ".." in path.split("/") or path.startswith("/"):
        raise BadInput(f"{manifest_uri}: `model` is {model}, which points outside {folder_uri}")
    return join(folder_uri, model)


def is_best_manifest(data: bytes) -> bool:
    """Return whether the bytes of a ``manifest.json`` are those of a best manifest."""
    try:
        return bool(json.loads(data).get("kind") == BEST_KIND)
    except (ValueError, AttributeError):
        return False


def parse_best_manifest(data: bytes, uri: str) -> BestManifest:
    """Return the best manifest in some bytes.

    Parameters
    ----------
    data
        The bytes.
    uri
        The URI of the file, for the message.

    Raises
    ------
    BadInput
        If it is not a best manifest of this version.
    """
    try:
        best = BestManifest.model_validate_json(data, extra="ignore")  # of a newer version
    except ValidationError as error:
        field, message = first_problem(error)
        raise BadInput(
            f"{uri} is not a best manifest of {API_VERSION}: {field or 'the file'}: {message}"
        ) from None
    if (best.api_version, best.kind) != (API_VERSION, BEST_KIND):
        raise BadInput(f"{uri} is not a best manifest of {API_VERSION}")
    return best


def read_best_manifest(store: Store, uri: str) -> tuple[BestManifest, str]:
    """Return a best manifest and the SHA-256 of its bytes.

    Parameters
    ----------
    store
        A store that reaches the URI.
    uri
        The URI of the file.

    Raises
    ------
    BadInput
        If there is none, or it is not a best manifest of this version.
    """
    try:
        data = store.get(uri)
    except ObjectNotFound:
        raise BadInput(f"{uri} does not exist: the run has no best model yet") from None
    return parse_best_manifest(data, uri), sha256(data)
