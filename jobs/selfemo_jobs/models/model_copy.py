"""Copies a model to a folder, to S3 or to the hub, with its description and its card.

``selfemo export`` and the stage Publish (``spec.publish``) use it. The ``selfemo.json`` at the
target tells by its hashes which model is there: the same one is completed, and another one is not
replaced unless the caller says so.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from selfemo_api.model_description import CARD_FILE, DESCRIPTION_FILE, ModelDescription
from selfemo_api.text.files import temporary_name
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import encode_description, parse_description
from selfemo_jobs.models.hub_upload import upload_to_hub
from selfemo_jobs.models.model_card import card_text
from selfemo_jobs.models.model_description import without_local_paths
from selfemo_jobs.models.model_folder import (
    DESCRIPTION_FILES,
    NOTICE_FILES,
    is_notice,
    model_files,
    model_hashes,
    notice_files,
)
from selfemo_jobs.store import (
    ObjectNotFound,
    Store,
    join,
    object_uri,
    objects_below,
    store_for,
)
from selfemo_jobs.store.local_files import fsync_folder, translated_errors
from selfemo_jobs.store.volumes import local_path

log = logging.getLogger(__name__)

_HUB = "hf://"
_S3 = "s3://"
#: The ending of the file of a model for llama.cpp.
GGUF = ".gguf"
_WEIGHTS = (".safetensors", GGUF)
#: The names of the files of models that Transformers and llama.cpp write.
_USUAL_NAMES = (
    *NOTICE_FILES,
    *("README.md", "config.json", "generation_config.json", "*.safetensors", f"*{GGUF}"),
    *("model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "vocab.*"),
    *("merges.txt", "added_tokens.json", "chat_template.*", DESCRIPTION_FILE),
)


@dataclass(frozen=True)
class CopiedModel:
    """What a copy did."""

    uri: str
    """The URI of the target."""
    files: int
    """The number of files of the model, with its description and its card."""
    size: int
    """The size of all files in bytes."""
    written: int
    """The number of files that were written: the others were there already."""


@dataclass(frozen=True)
class _Content:
    """The files to copy."""

    files: Mapping[str, Path]
    """The local path of each file of the model, by name."""
    texts: Mapping[str, bytes]
    """The bytes of the description and the card, by name."""
    weights: Mapping[str, str]
    """The SHA-256 of each file of the model, by name."""

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        sizes = [path.stat().st_size for path in self.files.values()]
        return sum(sizes) + sum(len(text) for text in self.texts.values())

    def copied(self, uri: str, written: int) -> CopiedModel:
        """Return what a copy of these files did."""
        count = len(self.files) + len(self.texts)
        return CopiedModel(uri=uri, files=count, size=self.size, written=written)


def copy_model(
    folder: Path,
    target: str,
    description: ModelDescription,
    *,
    store: Store,
    overwrite: bool = False,
    private: bool = False,
) -> CopiedModel:
    """Copy a model; a call that was interrupted is completed by the same call.

    Parameters
    ----------
    folder
        The local folder of the model. It is not changed.
    target
        ``file:///folder``, ``data://volume/folder``, ``s3://bucket/prefix`` or ``hf://owner/name``.
    description
        The description to store. Hashes that it lacks are added. On the hub, paths of this machine
        are shortened to their last names.
    store
        A store with whose options an ``s3://`` target is written.
    overwrite
        Whether another model at the target is replaced.
    private
        Whether a repository that is made on the hub is private.

    Returns
    -------
    CopiedModel
        What was done.

    Raises
    ------
    BadInput
        If another model or other files are at the target, or it may not be written.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    files = {path.name: path for path in (*model_files(folder), *notice_files(folder))}
    if not description.weights_sha256:
        hashes = model_hashes(folder)
        description = description.model_copy(update={"weights_sha256": hashes})
    return copy_files(files, target, description, store=store, overwrite=overwrite, private=private)


def copy_files(
    files: Mapping[str, Path],
    target: str,
    description: ModelDescription,
    *,
    store: Store,
    overwrite: bool = False,
    private: bool = False,
) -> CopiedModel:
    """Copy the files of a model, as :func:`copy_model` does.

    Parameters
    ----------
    files
        The local path of each file of the model, by name. A GGUF file is one alone.
    target, store, overwrite, private
        See :func:`copy_model`.
    description
        The description, with the hashes of these files.
    """
    if target.startswith(_HUB):
        description = without_local_paths(description)
    gguf = next((name for name in files if name.endswith(GGUF)), None)
    texts = {
        CARD_FILE: card_text(description, gguf=gguf).encode(),
        DESCRIPTION_FILE: encode_description(description),
    }
    content = _Content(files, texts, description.weights_sha256)
    if target.startswith(_HUB):
        written = upload_to_hub(
            files, texts, target, description, overwrite=overwrite, private=private
        )
        return content.copied(target, written)
    if target.startswith(_S3):
        store = store_for(target, store)
        return content.copied(target, _to_store(content, target, target, store, overwrite))
    return content.copied(target, _to_folder(content, target, store, overwrite))


def _to_folder(content: _Content, target: str, store: Store, overwrite: bool) -> int:
    """Copy to a folder; return the number of files that were written.

    A folder that does not exist appears as a whole, or not at all.
    """
    folder = local_path(target)
    if any(path.parent.resolve() == folder.resolve() for path in content.files.values()):
        raise BadInput(f"{target} is the folder of the model itself: choose another folder")
    local = store_for("file:///", store)
    with translated_errors(folder):
        if folder.is_dir():
            return _to_store(content, folder.absolute().as_uri(), target, local, overwrite)
        if folder.exists():
            raise BadInput(f"{target} is a file: choose a folder")
        new = temporary_name(folder.absolute())
        written = _to_store(content, new.as_uri(), target, local, overwrite=True)
        new.rename(folder)
        fsync_folder(folder.parent)
    return written


def _to_store(content: _Content, uri: str, target: str, store: Store, overwrite: bool) -> int:
    """Copy to a folder of a store; return the number of files that were written.

    The description is written before the files that it lists. So an interrupted copy is recognized,
    and a program that reads it too early sees that files are missing.

    Parameters
    ----------
    content
        The files.
    uri
        The URI to write to.
    target
        The URI of the target, for messages.
    store
        A store that writes there.
    overwrite
        Whether another model is replaced.
    """
    sizes = {name: info.size for name, info in objects_below(store, uri).items()}
    stored = description_at(store, join(uri, DESCRIPTION_FILE)) if sizes else None
    if stored is None or stored.weights_sha256 != content.weights:
        _check_replaceable(target, sizes, stored, overwrite=overwrite)
        _remove(uri, sizes, store)
        sizes = {}
    written = 0
    for name in (DESCRIPTION_FILE, CARD_FILE):
        if _bytes_at(store, join(uri, name)) != content.texts[name]:
            store.put(join(uri, name), content.texts[name])
            written += 1
    for name, path in sorted(content.files.items()):
        if sizes.get(name) != path.stat().st_size:  # a file of a store is whole or not there
            log.info("copies", extra={"fields": {"file": name, "to": target}})
            store.upload(path, object_uri(uri, name))
            written += 1
    return written


def _remove(uri: str, names: Iterable[str], store: Store) -> None:
    """Remove the files of a model. The folder stays: it may be the root of a volume.

    The description is the last: until then, it shows whose the other files are.
    """
    for name in sorted(names, key=lambda name: name == DESCRIPTION_FILE):
        store.delete(object_uri(uri, name))


def _check_replaceable(
    target: str,
    sizes: Mapping[str, int],
    stored: ModelDescription | None,
    *,
    overwrite: bool,
) -> None:
    """Check that all that is at a target may be removed for another model.

    Parameters
    ----------
    target
        The URI of the target.
    sizes
        The size of each file at the target in bytes, by its path below it.
    stored
        The description at the target, or None.
    overwrite
        Whether another model is replaced.

    Raises
    ------
    BadInput
        If there are files of another kind, or another model that is not to be replaced.
    """
    if not sizes:
        return
    others = other_files(sizes, stored)
    if others:
        raise BadInput(f"{target} contains other files ({others[0]}): choose an empty destination")
    if not overwrite:
        what = f"another model ({stored_name(stored)})" if stored else "files of a model"
        raise BadInput(f"{target} contains {what}: choose another destination, or use --overwrite")


def other_files(names: Iterable[str], stored: ModelDescription | None) -> list[str]:
    """Return the files that are surely not those of a model, and are never removed.

    Parameters
    ----------
    names
        The paths of the files below the target.
    stored
        The description at the target, or None: then only files with the usual names count.
    """
    if stored is not None and stored.weights_sha256:
        unknown = {*names} - {*stored.weights_sha256} - DESCRIPTION_FILES
        return sorted(name for name in unknown if not is_notice(name))
    others = [n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in _USUAL_NAMES)]
    is_model = any(name.endswith(_WEIGHTS) or name.startswith("tokenizer") for name in names)
    return sorted(others if is_model else names)


def stored_name(description: ModelDescription) -> str:
    """Return what a description is of, for a message.

    Parameters
    ----------
    description
        The description.
    """
    origin = description.origin
    return f"{origin.run}, generation {origin.generation}" if origin else "from an unknown run"


def description_at(store: Store, uri: str) -> ModelDescription | None:
    """Return the description at a URI, or None if there is none that can be read.

    Parameters
    ----------
    store
        A store that reaches the URI.
    uri
        The URI of a ``selfemo.json``.
    """
    data = _bytes_at(store, uri)
    try:
        return parse_description(data, uri) if data is not None else None
    except BadInput:
        return None


def _bytes_at(store: Store, uri: str) -> bytes | None:
    """Return the bytes of an object, or None if there is none."""
    try:
        return store.get(uri)
    except ObjectNotFound:
        return None
