"""The interface of a storage. Every object is addressed by its full URI."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from selfemo_api.spec import StorageSpec


@dataclass(frozen=True)
class ObjectInfo:
    """A stored object."""

    uri: str
    """The URI, percent-encoded below the listed prefix."""
    size: int
    """The size in bytes."""
    modified: float = field(default=0.0, compare=False)
    """The time of the last write, in seconds since 1970, by the clock of the storage."""


class ObjectNotFound(Exception):
    """There is no object at a URI."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} does not exist")
        self.uri = uri


class Store(Protocol):
    """A folder (`file://`) or an S3 bucket (`s3://`). The path of a URI is percent-encoded.

    Every method raises :class:`~selfemo_jobs.errors.BadInput` if a user must act (access denied, no
    such bucket, disk full, read-only folder), and :class:`~selfemo_jobs.errors.Unavailable` if the
    storage stays unavailable through all retries. A write is atomic: readers see the whole object
    or none.
    """

    @property
    def storage(self) -> StorageSpec:
        """The spec of the store. Its endpoint and options are used for other `s3://` URIs too."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write an object and return True, or return False if another writer's object is there.

        If a reply was lost, the retry may see the object of the first try. Equal bytes therefore
        count as this writer's own.
        """
        ...

    def put(self, uri: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        ...

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> bool:
        """Write an object if it still has the expected bytes; return whether it has the new ones.

        All writers of such an object use this method. As in :meth:`put_if_absent`, equal bytes
        count as this writer's own.

        Parameters
        ----------
        uri
            The URI of a small object.
        data
            The new bytes.
        expected
            The bytes that the writer has read. None: there was no object.
        """
        ...

    def get(self, uri: str) -> bytes:
        """Return the bytes of an object. Raises ObjectNotFound."""
        ...

    def get_start(self, uri: str, length: int) -> bytes:
        """Return at most so many bytes from the start of an object. Raises ObjectNotFound."""
        ...

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at the URI."""
        ...

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below a folder's URI, sorted by URI. An absent folder is empty."""
        ...

    def remove(self, prefix: str) -> int:
        """Remove all objects below a folder's URI; return how many there were."""
        ...

    def older_versions(self, prefix: str) -> int | None:
        """Return how many versions of removed objects are still stored below a folder's URI.

        A bucket with versioning, which object lock requires, keeps what is removed. None: the
        storage does not permit to look.
        """
        ...

    def delete(self, uri: str) -> None:
        """Remove an object. One that is not there is not an error."""
        ...

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file of any size to a URI."""
        ...

    def download(self, uri: str, path: Path) -> None:
        """Copy an object to a local file, whole or not at all; its folder is made.

        Raises ObjectNotFound.
        """
        ...


def join(uri: str, *parts: str) -> str:
    """Return a URI below another.

    Examples
    --------
    >>> join("s3://bucket/run/", "train", "model")
    's3://bucket/run/train/model'
    """
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def object_uri(prefix: str, name: str) -> str:
    """Return the URI of an object below a folder's URI. The name gets percent-encoded.

    Parameters
    ----------
    prefix
        The URI of the folder, percent-encoded.
    name
        The path of the object below the folder: the end of a key, or the path of a file, of which
        the bytes need not be UTF-8.

    Examples
    --------
    >>> object_uri("s3://bucket/my%20data", "part 1/a=b.csv")
    's3://bucket/my%20data/part%201/a=b.csv'
    """
    return f"{prefix.rstrip('/')}/{quote(os.fsencode(name), safe='/=+,:@')}"


def objects_below(store: Store, uri: str) -> dict[str, ObjectInfo]:
    """Return the objects below a folder's URI, by their paths below it (:func:`object_name`).

    Parameters
    ----------
    store
        A store that reaches the folder.
    uri
        The URI of the folder.
    """
    return {object_name(info.uri, uri): info for info in store.list(uri)}


def object_name(uri: str, prefix: str) -> str:
    """Return the path of an object below a folder's URI: the inverse of :func:`object_uri`.

    Examples
    --------
    >>> object_name("s3://bucket/my%20data/part%201/a=b.csv", "s3://bucket/my%20data")
    'part 1/a=b.csv'
    """
    return unquote(uri.removeprefix(f"{prefix.rstrip('/')}/"), errors="surrogateescape")
