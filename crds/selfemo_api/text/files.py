"""Writes small files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all, also where the process is killed or the power fails.

    Readers see the old content or the new one, never a part. The folder itself is not synced: after
    a power failure the old content may still be there.

    Parameters
    ----------
    path
        The file to write or to replace. Its folder must exist. Only one process at a time may write
        it: the temporary file ``<name>.new`` beside it has the same name in every process.
    data
        The whole content. Text is encoded as UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written. The old content is then still there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "status.json")
    ...     write_atomically(path, "{}")
    ...     path.read_text()
    '{}'
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())  # before the rename: a name must never lead to a torn file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
