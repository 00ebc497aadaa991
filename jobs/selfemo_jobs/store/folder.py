"""A folder as storage: one machine, or a shared file system."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.interface import ObjectInfo, ObjectNotFound, join
from selfemo_jobs.store.local_files import (
    explained,
    fsync_file,
    is_temporary,
    replacing,
    sync_folder,
    temporary,
)

#: Copy buffer: large enough that system calls cost nothing beside the disk.
_BUFFER = 4 << 20
#: What `link` says on a file system without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def file_path(uri: str) -> Path:
    """Return the path of a ``file:///path`` URI (percent-decoded).

    Raises
    ------
    BadInput
        If it is another kind of URI or its path is not absolute.
    """
    scheme, _, rest = uri.partition("://")
    if scheme != "file":
        raise BadInput(f"{uri} is not a file:// URI")
    path = unquote(rest.removeprefix("localhost"))
    if not path.startswith("/"):
        raise BadInput(f"{uri} must hold an absolute path: file:///folder")
    return Path(path)


class FileStore:
    """:class:`~selfemo_jobs.store.interface.Store` over ``file://`` URIs.

    Parameters
    ----------
    storage
        The spec; only ``uri`` matters here.
    """

    def __init__(self, storage: StorageSpec) -> None:
        file_path(storage.uri)  # refuse a wrong one now, not after the work
        self._storage = storage

    @property
    def storage(self) -> StorageSpec:
        """The spec that it was opened with."""
        return self._storage

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write and return True, or return False where another writer's bytes are already there."""
        path = file_path(uri)
        with explained(path), temporary(path) as (file, name):
            file.write(data)
            fsync_file(file)
            try:
                os.link(name, path)  # unlike a rename, it fails where the name is taken
            except FileExistsError:
                # on a network file system a repeated call may find its own first success
                return path.read_bytes() == data
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise BadInput(
                    f"{path}: this file system has no hard links, without which two writers "
                    "cannot be told apart: choose another `storage.uri`"
                ) from error
            sync_folder(path.parent)
        return True

    def put(self, uri: str, data: bytes) -> None:
        """Write, replacing what is there."""
        path = file_path(uri)
        with replacing(path) as file:
            file.write(data)

    def get(self, uri: str) -> bytes:
        """Return the bytes. Raises ObjectNotFound."""
        path = _existing(uri)
        with _found(uri, path):
            return path.read_bytes()

    def exists(self, uri: str) -> bool:
        """Return whether there is a file at the URI."""
        path = file_path(uri)
        with explained(path):
            return path.is_file()

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the files below a folder, sorted by URI; those being written are not there yet."""
        folder = file_path(prefix)
        found = []
        with explained(folder):
            for path in _files(folder):
                try:
                    size = path.stat().st_size
                except FileNotFoundError:
                    continue  # deleted since it was listed
                below = quote(path.relative_to(folder).as_posix(), safe="/=+,:@")
                found.append(ObjectInfo(join(prefix, below), size))
        return sorted(found, key=lambda info: info.uri)

    def remove(self, prefix: str) -> int:
        """Remove a folder with all files in it; return how many there were."""
        folder = file_path(prefix)
        count = len(self.list(prefix))
        with explained(folder), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)  # follows no link
        return count

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file there."""
        target = file_path(uri)
        with _open(path) as source, replacing(target) as file:
            shutil.copyfileobj(source, file, _BUFFER)

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file. Raises ObjectNotFound."""
        source = _existing(uri)
        with _found(uri, source), source.open("rb") as stored, replacing(path) as file:
            shutil.copyfileobj(stored, file, _BUFFER)


def _existing(uri: str) -> Path:
    path = file_path(uri)
    with explained(path):
        if not path.is_file():  # a folder is no object, as on S3
            raise ObjectNotFound(uri)
    return path


@contextmanager
def _found(uri: str, path: Path) -> Iterator[None]:
    try:
        with explained(path):
            yield
    except FileNotFoundError:
        raise ObjectNotFound(uri) from None


def _open(path: Path) -> BinaryIO:
    try:
        with explained(path):
            return path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_raise):
        yield from (Path(parent, name) for name in names if not is_temporary(name))
