"""Fetches the file of a source to this machine."""

from __future__ import annotations

from pathlib import Path

from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import ObjectNotFound, Store, store_for
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.volumes import local_path


def fetch_source(uri: str, store: Store | None, work: Path) -> Path:
    """Return the local path of a source's file.

    Parameters
    ----------
    uri
        The URI. ``file://`` and ``data://`` files are read in place; ``s3://`` files are copied
        below ``work``.
    store
        The run's store. Its endpoint and options are used for ``s3://`` URIs. None refuses those.
    work
        The scratch folder. The file is copied each time, because it may have changed.

    Raises
    ------
    BadInput
        If there is no such file, or it may not be read.
    Unavailable
        If the storage cannot be reached.
    """
    if not uri.startswith("s3://"):
        path = local_path(uri)
        if path.is_dir():
            raise BadInput(f"{uri}: {path} is a folder: give a file in it")
        if not path.is_file():
            raise BadInput(f"{uri}: {path} does not exist")
        return path
    if store is None:
        raise BadInput(f"{uri}: there are no storage options with which to read S3")
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    path = work / "sources" / sha256(uri.encode())[:16] / name
    try:
        store_for(uri, store).download(uri, path)
    except ObjectNotFound:
        raise BadInput(f"{uri} does not exist") from None
    return path
