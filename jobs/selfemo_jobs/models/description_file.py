"""``selfemo.json`` as a file: its bytes, and the files of a model that it lists."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from selfemo_api.api_model import API_VERSION, first_problem
from selfemo_api.model_description import DESCRIPTION_FILE, ModelDescription
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import model_files
from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.store.hashing import file_sha256


def encode_description(description: ModelDescription) -> bytes:
    """Return the bytes of ``selfemo.json``. Equal descriptions have equal bytes."""
    return canonical_json(description.to_json())


def parse_description(data: bytes, where: str) -> ModelDescription:
    """Return the description in the bytes of a ``selfemo.json``.

    Parameters
    ----------
    data
        The bytes.
    where
        The place of the file, for the message.

    Raises
    ------
    BadInput
        If it is not a description of this version.
    """
    try:
        description = ModelDescription.model_validate_json(data)
    except ValidationError as error:
        field, message = first_problem(error)
        raise BadInput(
            f"{where} is not a model's description of {API_VERSION}: {field or 'the file'}: "
            f"{message}"
        ) from None
    if (description.api_version, description.kind) != (API_VERSION, "ModelDescription"):
        raise BadInput(f"{where} is not a model's description of {API_VERSION}")
    return description


def read_description(folder: Path) -> ModelDescription | None:
    """Return the description in a model's folder, or None if the folder has none.

    Parameters
    ----------
    folder
        The folder of the model.

    Raises
    ------
    BadInput
        If there is a ``selfemo.json`` that cannot be read.
    """
    path = folder / DESCRIPTION_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    return parse_description(data, str(path))


def described_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a folder's description lists, by name.

    It is empty if there is no description that can be read: others may have such a file.

    Parameters
    ----------
    folder
        The folder of the model.
    """
    try:
        value = json.loads((folder / DESCRIPTION_FILE).read_bytes())["weightsSha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def check_weights_match(folder: Path, description: ModelDescription) -> None:
    """Check that the files in a folder are those that its description lists.

    Parameters
    ----------
    folder
        The folder of the model.
    description
        The description. If it lists no files, every file is accepted.

    Raises
    ------
    BadInput
        If a file is missing, differs, or is not listed. The message names it.
    """
    listed = description.weights_sha256
    if not listed:
        return
    advice = (
        f"copy the model again, or remove {DESCRIPTION_FILE} if you changed the model on purpose"
    )
    for name, digest in sorted(listed.items()):
        path = folder / name
        if "/" in name or not path.is_file():
            raise BadInput(f"{path} is missing, though {DESCRIPTION_FILE} lists it: {advice}")
        if file_sha256(path) != digest:
            raise BadInput(f"{path} is not the file that {DESCRIPTION_FILE} lists: {advice}")
    for path in model_files(folder):
        if path.name not in listed:
            raise BadInput(f"{path} is not a file that {DESCRIPTION_FILE} lists: {advice}")
