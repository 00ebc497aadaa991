"""The files of a model: which they are, their hashes, how they are checked and saved."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.store.hashing import file_sha256, sha256
from selfemo_jobs.store.local_files import is_temporary, replacing_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: The files of a model: weights as safetensors, the configuration and the tokenizer. None of them
#: has to be unpickled or run.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "tokenizer*")
_UNFINISHED = ("*.incomplete", "*.part", "*.crdownload", "*.aria2", "*.tmp")
_PICKLED = ("pytorch_model*.bin", "*.pth", "*.pt")
#: The size of the longest safetensors header in bytes, as the format defines it.
_HEADER_MOST = 100 << 20


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
    """
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)


def model_files(folder: Path) -> list[Path]:
    """Return the files of a folder that belong to its model, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_model_file(path.name))


def model_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each of a model's files, by the file's name."""
    return {path.name: file_sha256(path) for path in model_files(folder)}


def model_sha256(folder: Path) -> str:
    """Return one SHA-256 of a model: of the names and the content of all its files."""
    return sha256(canonical_json(model_hashes(folder)))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model and its tokenizer as a folder, whole or not at all.

    Parameters
    ----------
    model, tokenizer
        The model and its tokenizer.
    folder
        The folder to make or to replace.
    """
    with replacing_folder(folder) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for path in new.iterdir():
            # safetensors writes for the owner alone; a stage may run as another user
            path.chmod(0o644)


def check_model_folder(folder: Path, uri: str) -> None:
    """Check that a folder has a model: a configuration, and whole weights as safetensors.

    Only the headers of the weights are read, so this is fast for a model of any size.

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
    where = uri if uri.removeprefix("file://") == str(folder) else f"{uri} ({folder})"
    if not folder.exists():
        raise BadInput(f"{where} does not exist")
    if not folder.is_dir():
        raise BadInput(f"{where} is a file: give the folder that has config.json")
    unfinished = _first(folder, _UNFINISHED)
    if unfinished:
        raise BadInput(f"{where} is an unfinished download ({unfinished} is there): finish it")
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        why = "it is an adapter: merge it into its model first" if adapter else "it is not a model"
        raise BadInput(f"{where} has no config.json: {why}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = _first(folder, _PICKLED)
        hint = f"; {pickled} is there, but only safetensors is read: convert it" if pickled else ""
        raise BadInput(f"{where} has no *.safetensors{hint}")
    _check_index(folder, where)
    for path in weights:
        _check_weights(path, where)


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
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise BadInput(f"{path} has no `model_type`: it is not a model's configuration")
    return value


def _check_index(folder: Path, where: str) -> None:
    """Check that all shards of an index file are there. Raises BadInput."""
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{where}: {path.name} is broken: download it again") from None
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{where} is an unfinished download: {missing[0]} is missing "
            f"({len(missing)} of {len(shards)} shards)"
        )


def _check_weights(path: Path, where: str) -> None:
    """Check that a safetensors file has the size that its header gives. Raises BadInput."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise BadInput(f"{where}: {path.name} is a Git LFS pointer: run `git lfs pull`")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(_HEADER_MOST, size - 8):
            raise BadInput(f"{where}: {path.name} is cut off or not safetensors: download it again")
        try:
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise BadInput(f"{where}: {path.name} has a broken header: download it again") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise BadInput(
            f"{where}: {path.name} is an unfinished download: {size} of {expected} bytes"
        )


def _first(folder: Path, patterns: tuple[str, ...]) -> str | None:
    """Return the first name in a folder that matches a pattern, or None.

    The store's own temporary files do not count. A killed attempt leaves one beside whole files.
    """
    paths = (path for pattern in patterns for path in folder.glob(pattern))
    return min((path.name for path in paths if not is_temporary(path.name)), default=None)
