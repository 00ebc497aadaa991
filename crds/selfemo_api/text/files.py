"""Writes small files atomically."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file atomically, even if the process is killed or the power fails.

    Readers see the old content or the new one, never a part. The folder itself is not synced: after
    a power failure, the file may still have the old content.

    Parameters
    ----------
    path
        The file to write or to replace. Its folder must exist. The target of a link is replaced,
        not the link. Only one process at a time may write it: the temporary file next to it,
        :func:`temporary_name`, has the same name in every process. A path for which
        :func:`is_stream` is true is written directly.
    data
        The whole content. Text is encoded as UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written. It then still has the old content.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "status.json")
    ...     write_atomically(path, "{}")
    ...     path.read_text()
    '{}'
    """
    content = data.encode() if isinstance(data, str) else data
    if is_stream(path):
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(
                file.fileno()
            )  # before the rename: a name must never refer to an incomplete file
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # `write` on a full disk names no file
        raise


def is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a socket, which no file may replace.

    Parameters
    ----------
    path
        The path. Links are followed, such as ``/dev/stdout``. A file in ``/dev/shm`` is one.

    Examples
    --------
    >>> is_stream(Path("/dev/null")), is_stream(Path("/dev/no/such"))
    (True, False)
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def temporary_name(path: Path) -> Path:
    """Return the path next to another one where its new content is written first.

    A user has no file of this name, unlike ``<name>.new``.
    """
    return path.with_name(f".{path.name}.selfemo-new")
