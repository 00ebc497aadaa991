"""A folder as a storage, on one machine or on a shared file system."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store.interface import ObjectInfo, ObjectNotFound, object_uri
from selfemo_jobs.store.local_files import (
    fsync_file,
    fsync_folder,
    is_temporary,
    locked_folder,
    replacing,
    temporary_file,
    translated_errors,
)

log = logging.getLogger(__name__)

#: The size of the copy buffer in bytes: with it, system calls cost little beside the disk.
_BUFFER = 4 << 20
#: The errors of `link` on a file system without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
#: The errors of the removal of a folder into which another process writes, or in which NFS keeps a
#: removed file that is still open.
_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}
#: The folder of fsck at the root of a volume, which only root may read.
_FOUND = "lost+found"
#: How often a removal is tried: another process that removes the same folder ends each try early.
_REMOVALS = 10
#: The longest name of a file, and the longest path, in bytes: those of Linux.
_NAME_BYTES, _PATH_BYTES = 255, 4096


def file_path(uri: str) -> Path:
    """Return the path of a ``file:///path`` URI, percent-decoded.

    Raises
    ------
    BadInput
        If it is another kind of URI, or its path is not absolute.

    Examples
    --------
    >>> str(file_path("file:///data/my%20run"))
    '/data/my run'
    """
    scheme, _, rest = uri.partition("://")
    if scheme != "file":
        raise BadInput(f"{uri} is not a file:// URI")
    path = unquote(rest.removeprefix("localhost"), errors="surrogateescape")
    if not path.startswith("/"):
        raise BadInput(f"{uri} must contain an absolute path: file:///folder")
    return possible_path(path, uri)


def possible_path(text: str, uri: str) -> Path:
    """Return a path that a file system can have. The path need not exist.

    Parameters
    ----------
    text
        The path.
    uri
        The URI that names it, for the message.

    Raises
    ------
    BadInput
        If it has a zero byte or half of a surrogate pair, or a name in it is too long.
    """
    try:
        names = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        names = [b"\0"]
    if any(b"\0" in name for name in names):
        shown = uri.encode(errors="replace").decode().replace("\0", "%00")
        raise BadInput(f"{shown} contains a character that is not allowed in a path: fix the URI")
    if max(map(len, names)) > _NAME_BYTES or sum(map(len, names)) + len(names) > _PATH_BYTES:
        raise BadInput(f"{uri[:100]}… is too long for a path: use a shorter one")
    return Path(text)


class FileStore:
    """A :class:`~selfemo_jobs.store.interface.Store` for ``file://`` URIs.

    Parameters
    ----------
    storage
        The spec of the storage. Only ``uri`` is used.
    """

    def __init__(self, storage: StorageSpec) -> None:
        file_path(storage.uri)  # a wrong URI is refused now, not after the work
        self._storage = storage

    @property
    def storage(self) -> StorageSpec:
        """The spec of the store."""
        return self._storage

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write a file and return True, or return False if another writer's file is there."""
        path = file_path(uri)
        with translated_errors(path), temporary_file(path) as (file, name):
            file.write(data)
            fsync_file(file)
            try:
                os.link(name, path)  # unlike a rename, it fails if the name exists
            except FileExistsError:
                # on a network file system, a repeated call may find the file of the first one
                return path.read_bytes() == data
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise BadInput(
                    f"{path}: this file system does not support hard links, which selfemo needs "
                    "to detect concurrent writers: choose another `storage.uri`"
                ) from error
            fsync_folder(path.parent)
        return True

    def put(self, uri: str, data: bytes) -> None:
        """Write a file, replacing an existing one."""
        path = file_path(uri)
        with replacing(path) as file:
            file.write(data)

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> bool:
        """Write a file if it still has the expected bytes, under a lock of its folder."""
        if expected is None:
            return self.put_if_absent(uri, data)
        path = file_path(uri)
        with locked_folder(path.parent):
            try:
                content = self.get(uri)
            except ObjectNotFound:
                return False
            if content != expected:
                return content == data
            self.put(uri, data)
        return True

    def get(self, uri: str) -> bytes:
        """Return the bytes of a file. Raises ObjectNotFound."""
        path = _existing(uri)
        with _missing_as_not_found(uri, path):
            return path.read_bytes()

    def get_start(self, uri: str, length: int) -> bytes:
        """Return at most so many bytes from the start of a file. Raises ObjectNotFound."""
        path = _existing(uri)
        with _missing_as_not_found(uri, path), path.open("rb") as file:
            return file.read(length)

    def exists(self, uri: str) -> bool:
        """Return whether there is a file at the URI."""
        path = file_path(uri)
        with translated_errors(path):
            return path.is_file()

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the files below a folder, sorted by URI, without those that are being written."""
        folder = file_path(prefix)
        objects = []
        with translated_errors(folder):
            for path in _files(folder):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # deleted since it was listed
                uri = object_uri(prefix, path.relative_to(folder).as_posix())
                objects.append(ObjectInfo(uri, status.st_size, status.st_mtime))
        return sorted(objects, key=lambda info: info.uri)

    def remove(self, prefix: str) -> int:
        """Remove a folder with all its files; return how many there were."""
        folder = file_path(prefix)
        count = len(self.list(prefix))
        with translated_errors(folder):
            if folder.is_symlink():
                folder.unlink(missing_ok=True)
            else:
                _remove_tree(folder)
        return count

    def older_versions(self, prefix: str) -> int:  # noqa: ARG002 - the interface
        """Return 0: a folder keeps no versions."""
        return 0

    def delete(self, uri: str) -> None:
        """Remove a file. One that is not there is not an error."""
        path = file_path(uri)
        with translated_errors(path), contextlib.suppress(FileNotFoundError):
            path.unlink()

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file to a URI."""
        target = file_path(uri)
        with _open(path) as source, replacing(target) as file:
            shutil.copyfileobj(source, file, _BUFFER)

    def download(self, uri: str, path: Path) -> None:
        """Copy a file to a local path. Raises ObjectNotFound."""
        source = _existing(uri)
        with (
            _missing_as_not_found(uri, source),
            source.open("rb") as stored,
            replacing(path) as file,
        ):
            shutil.copyfileobj(stored, file, _BUFFER)


def _remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it. It does not follow links.

    Another process may remove or write files there at the same time.

    Raises
    ------
    Unavailable
        If files are left that a process writes there.
    """
    for _ in range(_REMOVALS):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # of any file: the others must go too
            pass
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        left = next(_files(folder), None)
        if left is None:
            break
    else:
        raise Unavailable(f"{left}: another process is writing there; run the same command again")
    if folder.exists():
        log.warning(
            "%s contains files that a process still has open; the file system will remove them",
            folder,
        )


def _existing(uri: str) -> Path:
    path = file_path(uri)
    with translated_errors(path):
        if not path.is_file():  # as on S3, a folder is not an object
            raise ObjectNotFound(uri)
    return path


@contextmanager
def _missing_as_not_found(uri: str, path: Path) -> Iterator[None]:
    """Return a context that raises ObjectNotFound where a file is missing."""
    try:
        with translated_errors(path):
            yield
    except FileNotFoundError:
        raise ObjectNotFound(uri) from None


def _open(path: Path) -> BinaryIO:
    try:
        with translated_errors(path):
            return path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None


def _raise(error: OSError) -> None:
    """Raise an error of ``os.walk``, except for a missing folder."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        if parent == os.fspath(folder) and _FOUND in folders:
            folders.remove(_FOUND)
        yield from (Path(parent, name) for name in names if not is_temporary(name))
