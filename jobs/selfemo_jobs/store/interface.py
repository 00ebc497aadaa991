"""The one interface through which stages reach storage. Everything is addressed by full URI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfemo_api.spec import StorageSpec


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object."""

    uri: str
    size: int


class ObjectNotFound(Exception):
    """There is no object at the URI."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} does not exist")
        self.uri = uri


class Store(Protocol):
    """A folder (`file://`) or an S3 bucket (`s3://`).

    Every method raises :class:`~selfemo_jobs.errors.BadInput` where a person must act (access
    denied, no such bucket, disk full, read-only folder) and
    :class:`~selfemo_jobs.errors.Unavailable` where the storage stayed away through all retries.
    A write is atomic: a reader sees the whole object or none.
    """

    @property
    def storage(self) -> StorageSpec:
        """The spec that it was opened with: endpoint and options also serve other `s3://` URIs."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write and return True, or return False where another writer's object is already there.

        A retry after a lost reply that finds its own bytes there has won.
        """
        ...

    def put(self, uri: str, data: bytes) -> None:
        """Write, replacing what is there."""
        ...

    def get(self, uri: str) -> bytes:
        """Return the bytes. Raises ObjectNotFound."""
        ...

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at the URI."""
        ...

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below a folder URI, sorted by URI; an absent folder is empty."""
        ...

    def remove(self, prefix: str) -> int:
        """Remove all objects below a folder URI; return how many there were."""
        ...

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file of any size there (multipart on S3)."""
        ...

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file (whole or not at all), making its folder. Raises ObjectNotFound."""
        ...


def join(uri: str, *parts: str) -> str:
    """Return a URI below another."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])
