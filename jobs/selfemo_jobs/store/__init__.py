"""Storage: a folder or any S3 service, behind one small interface."""

from __future__ import annotations

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.interface import (
    ObjectInfo,
    ObjectNotFound,
    Store,
    join,
    object_uri,
    objects_below,
)
from selfemo_jobs.store.unopened import UnopenedStore

__all__ = [
    "ObjectInfo",
    "ObjectNotFound",
    "Store",
    "UnopenedStore",
    "join",
    "object_uri",
    "objects_below",
    "open_store",
    "open_store_later",
    "store_for",
]


def open_store(storage: StorageSpec) -> Store:
    """Return the store of a spec. No connection is made yet."""
    if storage.uri.startswith("s3://"):
        from selfemo_jobs.store.s3 import S3Store  # boto3 is needed for S3 only

        return S3Store(storage)
    from selfemo_jobs.store.folder import FileStore

    return FileStore(storage)


def open_store_later(storage: StorageSpec) -> Store:
    """Return the store of a spec. If it cannot be opened, its first use raises the reason.

    Parameters
    ----------
    storage
        The spec of the storage.
    """
    try:
        return open_store(storage)
    except BadInput as error:
        return UnopenedStore(storage, error)


def store_for(uri: str, store: Store) -> Store:
    """Return a store that reaches a URI: the given store, or one of the other kind.

    A run that stores its results in a folder can so read its model or data from S3.

    Parameters
    ----------
    uri
        A ``file://`` or ``s3://`` URI.
    store
        The run's store. A store of the other kind gets its endpoint and options.
    """
    if uri.partition("://")[0] == store.storage.uri.partition("://")[0]:
        return store
    return open_store(store.storage.model_copy(update={"uri": uri}))
