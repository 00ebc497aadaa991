"""The weights of a model, wherever its files are: whether they are whole, and their shapes.

Only the names, the sizes and the headers of the files are read, so this is fast for a model of any
size, in a folder, on S3 or on the hub.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.local_files import is_temporary, translated_errors

INDEX = "model.safetensors.index.json"
WEIGHTS = ".safetensors"
#: The weights in Mistral's own format, which are there beside those of Transformers.
OTHER_FORMAT = "consolidated*.safetensors*"
_UNFINISHED = ("*.incomplete", "*.part", "*.crdownload", "*.aria2", "*.tmp")
_PICKLED = ("pytorch_model*.bin", "*.pth", "*.pt")
#: The files of PEFT's adapters. Beside whole weights, Transformers adds the adapter to them without
#: a message, and vLLM does not, so that one folder would be two models.
_ADAPTER = ("adapter_config.json", "adapter_model.*")
#: The size of the longest safetensors header in bytes, as the format defines it.
_HEADER_MOST = 100 << 20
#: The number of bytes to read first. Nearly all headers are shorter, so one request is enough.
_FIRST = 128 << 10


class ModelFiles(Protocol):
    """The files of a model in one place."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all files, those of other programs included."""
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def start(self, name: str, length: int) -> bytes:
        """Return at most so many bytes from the start of a file."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """The files of a model in a folder.

    Parameters
    ----------
    folder
        The folder.
    """

    folder: Path

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        with translated_errors(self.folder):
            return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return (self.folder / name).stat().st_size

    def start(self, name: str, length: int) -> bytes:
        """Return at most so many bytes from the start of a file."""
        path = self.folder / name
        with translated_errors(path), path.open("rb") as file:
            return file.read(length)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file of weights."""

    dtype: str
    """The type as the format names it, for example ``BF16``."""
    shape: tuple[int, ...]
    """The size of each dimension."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def check_weights(files: ModelFiles, where: str) -> None:
    """Check that a model has a configuration, and whole weights as safetensors.

    Parameters
    ----------
    files
        The files of the model.
    where
        The model's place, for the message.

    Raises
    ------
    BadInput
        If ``config.json`` or weights are missing, the model is an unfinished download, or there is
        an adapter beside it.
    """
    names = files.names
    unfinished = _first(names, _UNFINISHED)
    if unfinished:
        raise BadInput(f"{where} is an unfinished download (it contains {unfinished}): finish it")
    if "config.json" not in names:
        adapter = "adapter_config.json" in names
        why = "it is an adapter: merge it into its model first" if adapter else "it is not a model"
        raise BadInput(f"{where} contains no config.json: {why}")
    adapter_file = _first(names, _ADAPTER)
    if adapter_file:
        raise BadInput(
            f"{where} contains a model and an adapter ({adapter_file}): merge the adapter into "
            "the model, or remove its files"
        )
    if not weights_files(files):
        pickled = _first(names, _PICKLED)
        other = _first(names, (OTHER_FORMAT,))
        hint = (
            f"; it contains {pickled}, but only safetensors is supported: convert it"
            if pickled
            else ""
        )
        if other:
            hint = f"; {other} is in Mistral's own format: convert it to the Transformers format"
        raise BadInput(f"{where} contains no *.safetensors{hint}")
    _check_index(files, where)
    for name in weights_files(files):
        _check_size(files, name, where)


def read_tensors(files: ModelFiles, where: str) -> dict[str, Tensor]:
    """Return the tensors of all weights, by name.

    Parameters
    ----------
    files
        The files of the model.
    where
        The model's place, for the message.

    Raises
    ------
    BadInput
        If a header is damaged.
    """
    tensors = {}
    for file in weights_files(files):
        for name, entry in _read_header(files, file, where)[0].items():
            tensors[name] = Tensor(str(entry["dtype"]), tuple(entry["shape"]))
    return tensors


def weights_files(files: ModelFiles) -> list[str]:
    """Return the names of the files of the weights.

    Mistral's models have their weights a second time in a file of another format, whose name
    begins with ``consolidated``.
    """
    return [name for name in files.names if is_weights_file(name)]


def is_weights_file(name: str) -> bool:
    """Return whether a file has weights that Transformers and vLLM read, by its name.

    Examples
    --------
    >>> is_weights_file("model-00001-of-00002.safetensors")
    True
    >>> is_weights_file("consolidated.safetensors")
    False
    """
    return name.endswith(WEIGHTS) and not fnmatch.fnmatchcase(name, OTHER_FORMAT)


def _check_index(files: ModelFiles, where: str) -> None:
    """Check that all shards of an index file are there. Raises BadInput."""
    if INDEX not in files.names:
        return
    try:
        text = files.start(INDEX, files.size(INDEX)).decode("utf-8")
        shards = sorted(set(json.loads(text)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{where}: {INDEX} is broken: download it again") from None
    missing = [name for name in shards if name not in files.names]
    if missing:
        raise BadInput(
            f"{where} is an unfinished download: {missing[0]} is missing "
            f"({len(missing)} of {len(shards)} shards)"
        )


def _check_size(files: ModelFiles, name: str, where: str) -> None:
    """Check that a safetensors file has the size that its header gives. Raises BadInput."""
    header, length = _read_header(files, name, where)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    expected, size = 8 + length + max(ends, default=0), files.size(name)
    if size != expected:
        raise BadInput(f"{where}: {name} is an unfinished download: {size} of {expected} bytes")


def _read_header(files: ModelFiles, name: str, where: str) -> tuple[dict[str, Any], int]:
    """Return the entries of a safetensors header, and its length in bytes. Raises BadInput."""
    size = files.size(name)
    start = files.start(name, _FIRST)
    if start.startswith(b"version "):
        raise BadInput(f"{where}: {name} is a Git LFS pointer: run `git lfs pull`")
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or not 2 <= length <= min(_HEADER_MOST, size - 8):
        raise BadInput(f"{where}: {name} is truncated or not safetensors: download it again")
    data = start if length <= len(start) - 8 else files.start(name, 8 + length)
    try:
        header = json.loads(data[8 : 8 + length])
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        for entry in entries.values():
            _ = entry["data_offsets"][1] + 0, entry["dtype"], math.prod(entry["shape"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise BadInput(f"{where}: {name} has a broken header: download it again") from None
    return entries, length


def _first(names: Sequence[str], patterns: tuple[str, ...]) -> str | None:
    """Return the first name that matches a pattern, or None.

    The store's own temporary files do not count. A killed attempt leaves one beside whole files.
    """
    matches = (n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns))
    return min((name for name in matches if not is_temporary(name)), default=None)
