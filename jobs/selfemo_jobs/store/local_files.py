"""Local files and folders that are written whole or not at all, and clear file system errors."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from selfemo_api.contract import ExitCode
from selfemo_api.os_errors import NO_LOCKS, os_error_advice, reported_os_error
from selfemo_api.text.files import is_stream, temporary_name
from selfemo_jobs.errors import BadInput, Unavailable

_TEMPORARY = (".selfemo-", ".tmp")
#: What NFS keeps of a removed file while a process has it open.
_NFS_OPEN = re.compile(r"\.nfs[0-9a-f]{16,}")
#: The lock of a folder, see :func:`locked_folder`.
_LOCK = ".selfemo-lock"
#: Seconds to wait for a lock, which is held while a small file is written, and between two tries.
_LOCK_SECONDS, _LOCK_PAUSE = 60.0, 0.02
#: Temporary files of this age were left by a killed process, since no write takes a day.
_STALE_SECONDS = 86_400.0


def is_temporary(name: str) -> bool:
    """Return whether a file is not content: it serves writes, or was removed on NFS while open.

    Examples
    --------
    >>> is_temporary(".nfs000000000123abcd00000001"), is_temporary("model.safetensors")
    (True, False)
    """
    is_new = name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1])
    return name == _LOCK or is_new or _NFS_OPEN.fullmatch(name) is not None


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Return a context that turns the operating system's errors into ones with advice.

    A missing file stays :class:`FileNotFoundError`. The errors of Rust libraries count, too.

    Parameters
    ----------
    path
        The path that the messages name.

    Raises
    ------
    BadInput
        If the disk is full, access is denied, or no file can be written there.
    Unavailable
        If the server of a network file system is unavailable.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        translated = translate_os_error(path, error)
        if translated is None:
            raise
        raise translated from error


def translate_os_error(
    path: Path | str | None, error: BaseException
) -> BadInput | Unavailable | None:
    """Return the operating system's error as one with advice; None if there is no advice.

    Parameters
    ----------
    path
        The path that the message names. None: that of the error.
    error
        The error. One of a Rust library may report another of the operating system.
    """
    reported = reported_os_error(error)
    advice = None if reported is None else os_error_advice(reported, path)
    if advice is None:
        return None
    message, code = advice
    return Unavailable(message) if code is ExitCode.UNAVAILABLE else BadInput(message)


def path_below(folder: Path, name: str, uri: str) -> Path:
    """Return the path of a file below a folder. Its name may come from anyone.

    Parameters
    ----------
    folder
        The folder.
    name
        The path of the file below the folder, with slashes.
    uri
        The URI of the file, for the message.

    Raises
    ------
    BadInput
        If the name leads out of the folder, or no file can have it.

    Examples
    --------
    >>> str(path_below(Path("/work"), "part/a.csv", "s3://bucket/part/a.csv"))
    '/work/part/a.csv'
    """
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name:
        raise BadInput(
            f"{uri}: its name contains an empty part, `.`, `..` or a zero byte, so it cannot be "
            "copied to a folder: rename it, or select the other files with a pattern"
        )
    return folder.joinpath(*parts)


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Return a context with a new file beside ``path``, and its name. The folder is made.

    Within the context, the caller calls :func:`fsync_file` and then moves or links the file to
    ``path``. A temporary file that is still there at the end is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc and the like
        raise BadInput(f"{path.parent} cannot be created: choose another location") from error
    _remove_stale_files(path.parent)
    name = path.parent / secrets.token_hex(8).join(_TEMPORARY)
    # not tempfile: its files are for this user alone (0600), and stages may run as several users
    try:
        with name.open("xb") as file:
            yield file, name
    finally:
        name.unlink(missing_ok=True)


def fsync_file(file: BinaryIO) -> None:
    """Write a file's content to the disk.

    Call it before the file gets its final name. Otherwise a power failure may leave that name with
    a part of the content.
    """
    file.flush()
    os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Return a context with a new file that replaces ``path`` at the end, whole or not at all.

    The target of a link is replaced, not the link. A device or a pipe is written directly.
    """
    if is_stream(path):
        with translated_errors(path), path.open("wb") as stream:
            yield stream
        return
    path = Path(os.path.realpath(path))
    with translated_errors(path), temporary_file(path) as (file, name):
        yield file
        fsync_file(file)
        name.replace(path)
        fsync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, replacing what is there. Its folder is made."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Return a context that one process at a time may enter for a folder.

    The operating system ends the lock of a process that is killed. The lock's file stays, since
    other processes may have it open.

    Parameters
    ----------
    folder
        The folder. If it does not exist, there is nothing to protect.

    Raises
    ------
    BadInput
        If the file system has no locks, or the folder may not be written.
    Unavailable
        If another process holds the lock for a minute.
    """
    path = folder / _LOCK
    try:
        with translated_errors(path):
            descriptor = open_lock(path)
    except FileNotFoundError:
        yield
        return
    try:
        with translated_errors(path):
            _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Return the descriptor of a lock's file, which is made where it does not exist."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user made it


def _lock(descriptor: int, path: Path) -> None:
    """Wait until this process alone holds a lock. Raises BadInput and Unavailable."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Unavailable(
                    f"{path} was locked for {_LOCK_SECONDS:.0f} seconds; run the same command again"
                ) from None
            time.sleep(_LOCK_PAUSE)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise BadInput(
                f"{path}: this file system does not support file locks (flock), which selfemo "
                "needs to detect concurrent writers: choose another `storage.uri`"
            ) from error
        else:
            return


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder that takes the place of ``folder`` at the end of the block.

    ``folder`` has no part of the new content before that. If the block raises, ``folder`` stays as
    it is. A process that is killed leaves the new folder (:func:`temporary_name`) behind; the next
    call removes it. If ``folder`` is a link, its target is replaced.

    Parameters
    ----------
    folder
        The folder to make or to replace. Only one process at a time may write it.
    """
    folder = Path(os.path.realpath(folder))
    new = temporary_name(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@cache  # once for each folder of a process
def _remove_stale_files(folder: Path) -> None:
    """Remove the temporary files of processes that were killed long ago."""
    oldest = time.time() - _STALE_SECONDS
    for path in folder.glob(f"{_TEMPORARY[0]}*{_TEMPORARY[1]}"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except (FileNotFoundError, PermissionError):
            continue  # another process was faster, or another user left it in a sticky folder
