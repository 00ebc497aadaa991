"""Whole-or-nothing writes of local files, and what the operating system's refusals mean."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from selfemo_jobs.errors import BadInput, Unavailable

_TEMPORARY = (".selfemo-", ".tmp")
#: Age from which a temporary file is the leaving of a killed process: no write pauses for a day.
_STALE_SECONDS = 86_400.0

_FULL = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full (quota)",
    errno.EFBIG: "file too large",
}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
#: What a network file system says while its server is away.
_AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOLINK, errno.ENOTCONN}


def is_temporary(name: str) -> bool:
    """Return whether a file's name is that of a write under way (or cut off)."""
    return name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a path into ones that a person can act on.

    A missing file stays :class:`FileNotFoundError`.

    Raises
    ------
    BadInput
        Disk full, not permitted, read-only, or not a place for a file.
    Unavailable
        A network file system whose server is away.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        found = _explain(path, error)
        if found is None:
            raise
        raise found from error


def _explain(path: Path, error: OSError) -> BadInput | Unavailable | None:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return BadInput(
            f"{path}: {_FULL[error.errno]}: free space or choose another place, then run the same "
            "command again"
        )
    if error.errno in _DENIED:
        return BadInput(
            f"{path}: {reason}: give this user ({os.geteuid()}) the right, or choose another place"
        )
    if error.errno in _WRONG_PLACE:
        return BadInput(f"{path}: {reason}: choose another place")
    if error.errno in _AWAY:
        return Unavailable(f"{path}: {reason}: the file system is away; run the same command again")
    return None


@contextmanager
def temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new file beside ``path``, making its folder; sync it at the end, and never leave it.

    The caller moves or links the file to ``path`` within the block, after ``settle``; whatever is
    still there at the end is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc and the like
        raise BadInput(f"{path.parent} cannot be made: choose another place") from error
    _sweep(path.parent)
    name = path.parent / secrets.token_hex(8).join(_TEMPORARY)
    # not tempfile: its files are for this user alone (0600), and stages may run as several
    try:
        with name.open("xb") as file:
            yield file, name
    finally:
        name.unlink(missing_ok=True)


def fsync_file(file: BinaryIO) -> None:
    """Bring what was written to the disk: after a power cut a name must not lead to a torn file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a folder's new names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` at the end of the block, whole or not at all."""
    with explained(path), temporary(path) as (file, name):
        yield file
        fsync_file(file)
        name.replace(path)
        sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, replacing what is there. Its folder is made."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder that takes the place of ``folder`` at the end of the block.

    ``folder`` has no part of the new content before that. If the block raises, ``folder`` stays as
    it is. A process that is killed leaves the new folder, ``<name>.new``, behind; the next call
    removes it.

    Parameters
    ----------
    folder
        The folder to make or to replace. Only one process at a time may write it.
    """
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@cache  # once in a process is enough
def _sweep(folder: Path) -> None:
    """Remove temporary files of processes that were killed long ago."""
    oldest = time.time() - _STALE_SECONDS
    for path in folder.glob(f"{_TEMPORARY[0]}*{_TEMPORARY[1]}"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was quicker
