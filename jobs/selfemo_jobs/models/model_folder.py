"""The files of a model: which they are, their hashes, how they are checked and saved."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_api.model_description import CARD_FILE, DESCRIPTION_FILE
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_weights import OTHER_FORMAT, FolderFiles, check_weights
from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.store.hashing import file_sha256, sha256
from selfemo_jobs.store.local_files import replacing_folder, translated_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: The files of a model: weights as safetensors, the configuration and the tokenizer. None of them
#: has to be unpickled or run.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "tokenizer*")
#: The files that describe a model: they are copied with it, but no result follows from them. They
#: change when a model is evaluated, and so they are not part of any hash.
DESCRIPTION_FILES = frozenset({DESCRIPTION_FILE, CARD_FILE})

#: The terms of a base model, which many licenses ask for with each copy. No result follows from
#: them. Those with the ending `.txt` are model files.
NOTICE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*")


def is_model_file(name: str) -> bool:
    """Return whether a file of a folder belongs to its model.

    Parameters
    ----------
    name
        The file's path below the folder.

    Examples
    --------
    >>> is_model_file("model.safetensors"), is_model_file("pytorch_model.bin")
    (True, False)
    >>> is_model_file("selfemo.json"), is_model_file("consolidated.safetensors")
    (False, False)
    """
    return (
        "/" not in name
        and name not in DESCRIPTION_FILES
        and not fnmatch.fnmatchcase(name, OTHER_FORMAT)
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    )


def is_copied_file(name: str) -> bool:
    """Return whether a file is copied with a model: it belongs to it, or has its terms.

    Parameters
    ----------
    name
        The file's path below the folder.

    Examples
    --------
    >>> is_copied_file("selfemo.json"), is_copied_file("optimizer.bin")
    (True, False)
    """
    return name in DESCRIPTION_FILES or is_model_file(name) or is_notice(name)


def is_notice(name: str) -> bool:
    """Return whether a file has the terms of a model, and is not one of its files.

    Parameters
    ----------
    name
        The file's path below the folder.

    Examples
    --------
    >>> is_notice("LICENSE"), is_notice("LICENSE.txt"), is_notice("docs/LICENSE")
    (True, False, False)
    """
    terms = any(fnmatch.fnmatchcase(name, pattern) for pattern in NOTICE_FILES)
    return terms and "/" not in name and not is_model_file(name)


def notice_files(folder: Path) -> list[Path]:
    """Return the files of a folder with the terms of its model, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_notice(path.name) and path.is_file())


def model_files(folder: Path) -> list[Path]:
    """Return the files of a folder that belong to its model, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_model_file(path.name) and path.is_file())


def model_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each of a model's files, by the file's name."""
    return {path.name: file_sha256(path) for path in model_files(folder)}


def model_sha256(folder: Path) -> str:
    """Return one SHA-256 of a model: of the names and the content of all its files."""
    return combined_sha256(model_hashes(folder))


def combined_sha256(hashes: dict[str, str]) -> str:
    """Return one SHA-256 of a model from the hashes of its files, by the files' names."""
    return sha256(canonical_json(hashes))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model and its tokenizer as a folder, whole or not at all.

    Parameters
    ----------
    model, tokenizer
        The model and its tokenizer.
    folder
        The folder to make or to replace.

    Raises
    ------
    BadInput
        If the disk is full, or the folder may not be written.
    Unavailable
        If the server of a network file system is unavailable.
    """
    with translated_errors(folder), replacing_folder(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for path in new.iterdir():
            # safetensors writes for the owner alone; a stage may run as another user
            path.chmod(0o644)


def check_model_folder(folder: Path, uri: str) -> None:
    """Check that a folder has a model: a configuration, and whole weights as safetensors.

    Only the headers of the weights are read.

    Parameters
    ----------
    folder
        The folder.
    uri
        The URI in the spec, for the message.

    Raises
    ------
    BadInput
        If the folder is missing, lacks ``config.json`` or weights, or is an unfinished download.
    """
    check_weights(FolderFiles(folder), place_of_folder(folder, uri))


def place_of_folder(folder: Path, uri: str) -> str:
    """Return the name of a model's folder for messages. Check that it and its files are there.

    Parameters
    ----------
    folder
        The folder.
    uri
        The URI in the spec.

    Raises
    ------
    BadInput
        If the folder is missing, is a file, may not be looked at, or has a link to no file.
    """
    where = uri if uri.removeprefix("file://") == str(folder) else f"{uri} ({folder})"
    with translated_errors(folder):
        if not folder.exists():
            raise BadInput(f"{where} does not exist")
        if not folder.is_dir():
            raise BadInput(f"{where} is a file: specify the folder that contains config.json")
        for path in sorted(folder.iterdir()):
            if is_model_file(path.name) and not path.exists():
                raise BadInput(f"{path} is a link to a file that does not exist: copy the file")
    return where


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return the content of a model's ``config.json``.

    Raises
    ------
    BadInput
        If it cannot be read, or it is not a model's configuration.
    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise BadInput(f"{path} has no `model_type`: it is not a model's configuration")
    return value
