"""Whether the parts of a stored result are there and have their hashes."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.store import ObjectNotFound, Store, object_uri
from selfemo_jobs.store.folder import file_path
from selfemo_jobs.store.hashing import file_sha256
from selfemo_jobs.store.local_files import translated_errors

log = logging.getLogger(__name__)


def are_whole(store: Store, folder: str, parts: Iterable[Part], work: Path) -> bool:
    """Return whether all parts of a result are there and have their hashes. The log names a fault.

    Parts of any size are compared: each is read as a stream.

    Parameters
    ----------
    store
        A store that reaches the folder.
    folder
        The URI of the stage's folder.
    parts
        The parts, as a manifest or a record lists them.
    work
        A folder for copies of remote parts, which are removed again.

    Raises
    ------
    BadInput
        If a part may not be read.
    Unavailable
        If the storage cannot be reached.
    """
    for part in parts:
        uri = object_uri(folder, part.path)
        digest = _stored_hash(store, uri, work)
        if digest != part.sha256:
            log.warning("%s is %s", uri, "damaged" if digest else "missing")
            return False
    return True


def _stored_hash(store: Store, uri: str, work: Path) -> str | None:
    """Return the SHA-256 of a stored object, or None if there is no such object."""
    if uri.startswith("file://"):
        path = file_path(uri)
        with translated_errors(path):
            return file_sha256(path) if path.is_file() else None
    copy = Path(tempfile.mkdtemp(prefix="verify-", dir=work))
    try:
        store.download(uri, copy / "part")
        return file_sha256(copy / "part")
    except ObjectNotFound:
        return None
    finally:
        shutil.rmtree(copy)
