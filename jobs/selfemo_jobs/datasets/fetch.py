"""Brings a source file to this machine, wherever it is."""

from __future__ import annotations

from pathlib import Path

from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import ObjectNotFound, Store, store_for
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.volumes import local_path


def fetch_source(uri: str, store: Store | None, work: Path) -> Path:
    """Return a local path of a source file.

    Parameters
    ----------
    uri
        ``file://``, ``data://`` (both read in place) or ``s3://`` (copied into ``work``).
    store
        The run's store: its endpoint and options serve ``s3://`` URIs. None refuses those.
    work
        Scratch folder. The copy is made anew each time: a source may have changed.

    Raises
    ------
    BadInput
        If there is no such file, or it cannot be reached with what is given.
    Unavailable
        If the storage stayed away.
    """
    if not uri.startswith("s3://"):
        path = local_path(uri)
        if path.is_dir():
            raise BadInput(f"{uri}: {path} is a folder: name the file in it")
        if not path.is_file():
            raise BadInput(f"{uri}: {path} does not exist")
        return path
    if store is None:
        raise BadInput(f"{uri}: no storage options were given to read S3 with")
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    path = work / "sources" / sha256(uri.encode())[:16] / name
    try:
        store_for(uri, store).download(uri, path)
    except ObjectNotFound:
        raise BadInput(f"{uri} does not exist") from None
    return path
