"""A store that could not be opened."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput


class UnopenedStore:
    """A :class:`~selfemo_jobs.store.interface.Store` that could not be opened.

    Parameters
    ----------
    storage
        The spec of the storage.
    error
        The reason. Each use of the store raises it.
    """

    def __init__(self, storage: StorageSpec, error: BadInput) -> None:
        self._storage = storage
        self._error = error

    @property
    def storage(self) -> StorageSpec:
        """The spec of the store."""
        return self._storage

    def put_if_absent(self, uri: str, data: bytes) -> NoReturn:  # noqa: ARG002 - the interface
        """Raise the reason."""
        raise self._error

    put = put_if_absent

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error

    def get(self, uri: str) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error

    exists = delete = get

    def get_start(self, uri: str, length: int) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error

    def list(self, prefix: str) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error

    remove = older_versions = list

    def upload(self, path: Path, uri: str) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error

    def download(self, uri: str, path: Path) -> NoReturn:  # noqa: ARG002
        """Raise the reason."""
        raise self._error
