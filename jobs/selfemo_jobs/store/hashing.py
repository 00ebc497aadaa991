"""SHA-256 of bytes and of files, as hexadecimal text."""

from __future__ import annotations

import hashlib
from pathlib import Path

from selfemo_jobs.store.local_files import translated_errors


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes.

    Examples
    --------
    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file. The file may be of any size: it is read in small pieces.

    Raises
    ------
    BadInput
        If the file may not be read. A missing file is a FileNotFoundError.
    Unavailable
        If the server of a network file system is unavailable.
    """
    with translated_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
