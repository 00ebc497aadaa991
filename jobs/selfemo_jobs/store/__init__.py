"""Storage: a folder or any S3, behind one small interface."""

from __future__ import annotations

from selfemo_api.spec import StorageSpec
from selfemo_jobs.store.interface import ObjectInfo, ObjectNotFound, Store, join

__all__ = ["ObjectInfo", "ObjectNotFound", "Store", "join", "open_store", "store_for"]


def open_store(storage: StorageSpec) -> Store:
    """Return the store that a spec names. Nothing is contacted yet."""
    if storage.uri.startswith("s3://"):
        from selfemo_jobs.store.s3 import S3Store  # boto3 only where it is needed

        return S3Store(storage)
    from selfemo_jobs.store.folder import FileStore

    return FileStore(storage)


def store_for(uri: str, store: Store) -> Store:
    """Return a store that reaches a URI: the one given, or one of the other kind with its options.

    A run whose results go to a folder may still read its model or data from S3.
    """
    if uri.partition("://")[0] == store.storage.uri.partition("://")[0]:
        return store
    return open_store(store.storage.model_copy(update={"uri": uri}))
