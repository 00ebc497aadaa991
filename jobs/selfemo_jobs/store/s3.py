"""An S3 service as a storage, with boto3.

boto3 retries requests itself (standard mode: exponential backoff with jitter). This module adds
four cases that boto3 does not handle: a body that is cut off while it is read, the status 409 of a
conditional put, and a status 412 or 404 that is caused by a lost reply.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import BotoCoreError, ClientError

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_jobs.store.interface import ObjectInfo, ObjectNotFound, object_uri
from selfemo_jobs.store.local_files import replacing
from selfemo_jobs.store.s3_client import is_newer, make_client, pause_seconds
from selfemo_jobs.store.s3_codes import LOST_UPLOADS, OTHER_WRITERS
from selfemo_jobs.store.s3_errors import (
    BOTO3_ERRORS,
    code_of,
    is_transient,
    status_of,
    translate,
)

log = logging.getLogger(__name__)

_PART_BYTES = 16 << 20  # few requests for gigabytes of weights, and little memory
_CONCURRENCY = 4  # parts at a time: 64 MiB of buffers, which is little beside a model
#: The codes of a server that has no versions.
_NO_VERSIONS = {"NotImplemented", "MethodNotAllowed", "XNotImplemented", "501", "405"}
#: The codes of a server that does not list uploads, and of one that has removed an upload itself.
_NO_MULTIPART = _NO_VERSIONS | LOST_UPLOADS
#: The codes of a put whose object is no longer the one that was read.
_CHANGED = OTHER_WRITERS | {"NoSuchKey"}


class S3Store:
    """A :class:`~selfemo_jobs.store.interface.Store` for ``s3://bucket/key`` URIs.

    Parameters
    ----------
    storage
        The spec of the storage: endpoint, region, addressing, checksums and retries. boto3 finds
        the credentials itself (environment, profile, the pod's identity).

    Raises
    ------
    BadInput
        If the environment names a file of certificates or of a token that does not exist.
    """

    def __init__(self, storage: StorageSpec) -> None:
        self._storage = storage
        self._attempts = storage.max_attempts
        with self._translated(storage.uri):
            self._client = make_client(storage)
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_CONCURRENCY,
            num_download_attempts=self._attempts,
        )
        self._checked_buckets: set[str] = set()

    @property
    def storage(self) -> StorageSpec:
        """The spec of the store."""
        return self._storage

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write an object and return True, or return False if another writer's object is there.

        The status 412 may be caused by this writer's own first try, whose reply was lost. So the
        object is read: equal bytes count as this writer's own.
        """
        bucket, key = split_uri(uri)
        for attempt in range(self._attempts):
            try:
                with self._translated(uri, passed_on=OTHER_WRITERS):
                    self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if code_of(error) == "PreconditionFailed":
                    try:
                        return self.get(uri) == data
                    except ObjectNotFound:
                        pass  # it was deleted since then: try again
            else:
                return True
            time.sleep(pause_seconds(attempt))
        raise Unavailable(
            f"{uri}: other writers interfered {self._attempts} times; run the same command again"
        )

    def put(self, uri: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        bucket, key = split_uri(uri)
        with self._translated(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> bool:
        """Write an object if it still has the expected bytes (``If-Match`` with its ETag).

        After each status 412, 409 or 404 the object is read again, which shows whether another
        writer was faster, or this writer's own first try, whose reply was lost.
        """
        if expected is None:
            return self.put_if_absent(uri, data)
        bucket, key = split_uri(uri)
        for attempt in range(self._attempts):
            try:
                with self._translated(uri):
                    content, tag = self._get_with_retries(bucket, key)
            except ObjectNotFound:
                return False
            if content != expected:
                return content == data
            try:
                with self._translated(uri, passed_on=_CHANGED):
                    self._client.put_object(Bucket=bucket, Key=key, Body=data, IfMatch=tag)
            except ClientError:
                time.sleep(pause_seconds(attempt))
            else:
                return True
        raise Unavailable(
            f"{uri}: other writers interfered {self._attempts} times; run the same command again"
        )

    def get(self, uri: str) -> bytes:
        """Return the bytes of an object. Raises ObjectNotFound."""
        bucket, key = split_uri(uri)
        with self._translated(uri):
            return self._get_with_retries(bucket, key)[0]

    def get_start(self, uri: str, length: int) -> bytes:
        """Return at most so many bytes from the start of an object. Raises ObjectNotFound."""
        bucket, key = split_uri(uri)
        part = f"bytes=0-{length - 1}"
        with self._translated(uri):
            try:
                reply = self._client.get_object(Bucket=bucket, Key=key, Range=part)
            except ClientError as error:
                if code_of(error) == "InvalidRange":
                    return b""  # the object is empty
                raise
            # some servers ignore the range: the rest of the body is then not read
            with closing(reply["Body"]) as body:
                return body.read(length)

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at the URI."""
        bucket, key = split_uri(uri)
        try:
            with self._translated(uri):
                self._client.head_object(Bucket=bucket, Key=key)
        except ObjectNotFound:
            return False
        return True

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below a prefix, sorted by URI."""
        bucket, key = split_uri(prefix, empty=True)
        below = f"{key.rstrip('/')}/" if key else ""
        objects: list[ObjectInfo] = []
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=below
            )
            for page in pages:
                objects.extend(
                    ObjectInfo(
                        object_uri(prefix, o["Key"].removeprefix(below)),
                        o["Size"],
                        o["LastModified"].timestamp(),
                    )
                    for o in page.get("Contents", [])
                    if not o["Key"].endswith("/")  # a console makes such "folders"
                )
        return sorted(objects, key=lambda info: info.uri)

    def remove(self, prefix: str) -> int:
        """Remove all objects and all interrupted uploads below a prefix; count the objects.

        An object that may not be removed, for example because it is locked, does not keep the
        others. The error tells how many there are.
        """
        bucket, key = split_uri(prefix)
        below = f"{key.rstrip('/')}/"
        count, refused, reason = 0, 0, None
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=below):
                # one by one: a batch needs a checksum that some S3 servers do not support
                for item in page.get("Contents", []):
                    try:
                        self._client.delete_object(Bucket=bucket, Key=item["Key"])
                    except ClientError as error:
                        if code_of(error) != "AccessDenied":
                            raise
                        refused, reason = refused + 1, reason or error
                    else:
                        count += 1
            self._abort_uploads(bucket, below)
            if reason is not None:
                where = f"{prefix}: {refused} of {refused + count} objects may not be removed"
                raise translate(reason, where, self._storage) from reason
        return count

    def _abort_uploads(self, bucket: str, prefix: str) -> None:
        """Abort the interrupted uploads below a prefix, if the server and the rights permit it.

        An upload that stays is not an object: nothing reads it, and a bucket's lifecycle rule can
        remove it.
        """
        uploads = self._client.get_paginator("list_multipart_uploads")
        try:
            for page in uploads.paginate(Bucket=bucket, Prefix=prefix):
                for upload in page.get("Uploads", []):
                    self._client.abort_multipart_upload(
                        Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
        except ClientError as error:
            if code_of(error) not in _NO_MULTIPART and status_of(error) != 403:
                raise
            log.warning(
                "s3://%s/%s: interrupted uploads are not removed (%s): grant "
                "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or set a lifecycle "
                "rule on the bucket for them",
                *(bucket, prefix, code_of(error)),
            )

    def older_versions(self, prefix: str) -> int | None:
        """Return how many versions of removed objects are still stored; None: not permitted."""
        bucket, key = split_uri(prefix)
        count = 0
        with self._translated(prefix):
            pages = self._client.get_paginator("list_object_versions")
            try:
                for page in pages.paginate(Bucket=bucket, Prefix=f"{key.rstrip('/')}/"):
                    count += len(page.get("Versions", []))
            except ClientError as error:
                if code_of(error) in _NO_VERSIONS:
                    return 0
                if status_of(error) == 403:
                    return None
                raise
        return count

    def delete(self, uri: str) -> None:
        """Remove an object. One that is not there is not an error."""
        bucket, key = split_uri(uri)
        with suppress(ObjectNotFound), self._translated(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file to a URI, in parts if it is large."""
        bucket, key = split_uri(uri)
        if not path.is_file():
            raise BadInput(f"{path} does not exist")
        size, start = path.stat().st_size, time.monotonic()
        try:
            with (
                self._translated(uri, passed_on=LOST_UPLOADS),
                create_transfer_manager(self._client, self._transfer) as manager,
            ):
                manager.upload(os.fspath(path), bucket, key).result()
        except ClientError as error:
            if not self._has_arrived(uri, size, time.monotonic() - start):
                raise Unavailable(
                    f"{uri}: the server removed the upload before it was complete; run the same "
                    "command again"
                ) from error

    def _has_arrived(self, uri: str, size: int, seconds: float) -> bool:
        """Return whether an object has so many bytes and was written in the last seconds.

        It is then that of an upload whose last reply was lost.
        """
        bucket, key = split_uri(uri)
        try:
            with self._translated(uri):
                reply = self._client.head_object(Bucket=bucket, Key=key)
        except ObjectNotFound:
            return False
        return reply["ContentLength"] == size and is_newer(reply, seconds)

    def download(self, uri: str, path: Path) -> None:
        """Copy an object to a local file, in parts if it is large. Raises ObjectNotFound."""
        bucket, key = split_uri(uri)
        with (
            replacing(path) as file,  # its own errors are not about credentials
            self._translated(uri),
            create_transfer_manager(self._client, self._transfer) as manager,
        ):
            manager.download(bucket, key, file).result()

    def _check_bucket(self, bucket: str, uri: str) -> None:
        """Raise BadInput if the bucket is missing: the reply to a HEAD does not say so."""
        if bucket in self._checked_buckets:
            return
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if code_of(error) in {"404", "NoSuchBucket", "NotFound"}:
                raise BadInput(
                    f"{uri}: there is no bucket {bucket} for this access key: create it, or fix "
                    "the URI or the key"
                ) from None
            # access is denied: then the bucket exists
        except BOTO3_ERRORS as error:
            raise translate(error, uri, self._storage) from error
        self._checked_buckets.add(bucket)

    def _get_with_retries(self, bucket: str, key: str) -> tuple[bytes, str]:
        """Return an object and its ETag; try again if the connection breaks within the body."""
        attempt = 0
        while True:
            reply = self._client.get_object(Bucket=bucket, Key=key)  # boto3 retries this itself
            try:
                return reply["Body"].read(), reply.get("ETag", "")
            except BotoCoreError as error:
                attempt += 1
                if attempt >= self._attempts or not is_transient(error):
                    raise
            time.sleep(pause_seconds(attempt))

    @contextmanager
    def _translated(self, uri: str, passed_on: Set[str] = frozenset()) -> Iterator[None]:
        """Return a context that translates the errors of boto3.

        Parameters
        ----------
        uri
            The URI of the request.
        passed_on
            The error codes that the caller handles.
        """
        try:
            yield
        except ClientError as error:
            if code_of(error) in passed_on:
                raise
            translated = translate(self._with_reason(error, uri), uri, self._storage)
            if isinstance(translated, ObjectNotFound):
                self._check_bucket(split_uri(uri, empty=True)[0], uri)
            raise translated from error
        except FileNotFoundError as error:  # a token, or a program that prints credentials
            raise BadInput(
                f"{uri}: {error.filename} does not exist, but the AWS_ variables or the AWS "
                "configuration file refer to it: fix them"
            ) from error
        except (PermissionError, IsADirectoryError) as error:
            raise BadInput(f"{uri}: {error.filename} cannot be read: {error.strerror}") from error
        except (StageError, UnicodeError):
            raise
        except BOTO3_ERRORS as error:
            raise translate(error, uri, self._storage) from error

    def _with_reason(self, error: ClientError, uri: str) -> ClientError:
        """Return the error of a GET in place of that of a HEAD, whose reply has no reason."""
        if error.operation_name != "HeadObject" or status_of(error) not in {400, 401, 403}:
            return error
        bucket, key = split_uri(uri)
        try:
            self._client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except ClientError as reason:
            return reason
        except BotoCoreError:
            pass  # the status is all that is known
        return error


def split_uri(uri: str, *, empty: bool = False) -> tuple[str, str]:
    """Return the bucket and the key of an ``s3://bucket/key`` URI. The key gets percent-decoded.

    Parameters
    ----------
    uri
        The URI.
    empty
        Whether the key may be empty.

    Raises
    ------
    BadInput
        If it is another kind of URI, or the bucket or the key is missing.

    Examples
    --------
    >>> split_uri("s3://bucket/run/manifest.json")
    ('bucket', 'run/manifest.json')
    >>> split_uri("s3://bucket/my%20data/train.csv")
    ('bucket', 'my data/train.csv')
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not (key or empty):
        raise BadInput(f"{uri} must be s3://bucket/key")
    return bucket, unquote(key)
