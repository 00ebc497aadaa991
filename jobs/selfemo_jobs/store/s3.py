"""Any S3 as storage, over boto3.

boto3 itself repeats a request (standard mode: exponential back-off with jitter). This module adds
what it does not do: a body cut off in mid-read, a 409 of a conditional put, and the false 412 that
a lost reply leaves behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import RetriesExceededError

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store.interface import ObjectInfo, ObjectNotFound
from selfemo_jobs.store.local_files import replacing
from selfemo_jobs.store.s3_errors import code_of, explain, is_passing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECT_SECONDS = 10.0  # a healthy endpoint answers in one; several are tried
_READ_SECONDS = 60.0  # boto3's own: a large conditional put may take that long to be answered
_PART_BYTES = 16 << 20  # few requests for weights of gigabytes, and little memory
_CONCURRENCY = 4  # parts in flight, so 64 MiB of buffers: beside a model that is nothing
_PAUSE_SECONDS = 0.2  # first pause of our own retries; doubles up to _PAUSE_MOST
_PAUSE_MOST = 10.0
#: The region that is signed for where none is given: what S3 servers other than AWS expect.
_REGION = "us-east-1"


class S3Store:
    """:class:`~selfemo_jobs.store.interface.Store` over ``s3://bucket/key`` URIs.

    Parameters
    ----------
    storage
        Endpoint, region, addressing, checksums and retries. Credentials come from where boto3
        looks for them (environment, profile, the pod's identity).
    """

    def __init__(self, storage: StorageSpec) -> None:
        self._storage = storage
        self._attempts = storage.max_attempts
        with self._explained(storage.uri):
            self._client = make_client(storage)
        self._transfer = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_CONCURRENCY,
            num_download_attempts=self._attempts,
        )
        self._known: set[str] = set()

    @property
    def storage(self) -> StorageSpec:
        """The spec that it was opened with."""
        return self._storage

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Write and return True, or return False where another writer's object is already there.

        A 412 may be the echo of our own first try whose reply was lost: so what is there is read
        back, and our own bytes mean that we won.
        """
        bucket, key = split(uri)
        for attempt in range(self._attempts):
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                code = code_of(error)
                if code == "PreconditionFailed":
                    try:
                        return self.get(uri) == data
                    except ObjectNotFound:
                        pass  # deleted since: try again
                elif code != "ConditionalRequestConflict":
                    raise explain(error, uri, self._storage) from error
            except BotoCoreError as error:
                raise explain(error, uri, self._storage) from error
            else:
                return True
            _pause(attempt)
        raise Unavailable(
            f"{uri}: other writers were in the way {self._attempts} times; run the same command "
            "again"
        )

    def put(self, uri: str, data: bytes) -> None:
        """Write, replacing what is there."""
        bucket, key = split(uri)
        with self._explained(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def get(self, uri: str) -> bytes:
        """Return the bytes. Raises ObjectNotFound."""
        bucket, key = split(uri)
        with self._explained(uri):
            return self._again(bucket, key)

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at the URI."""
        bucket, key = split(uri)
        try:
            with self._explained(uri):
                self._client.head_object(Bucket=bucket, Key=key)
        except ObjectNotFound:
            return False
        return True

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below a prefix, sorted by URI."""
        bucket, key = split(prefix, empty=True)
        below = f"{key.rstrip('/')}/" if key else ""
        found: list[ObjectInfo] = []
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=below
            )
            for page in pages:
                found.extend(
                    ObjectInfo(f"s3://{bucket}/{o['Key']}", o["Size"])
                    for o in page.get("Contents", [])
                    if not o["Key"].endswith("/")  # a "folder" that a console made
                )
        return sorted(found, key=lambda info: info.uri)

    def remove(self, prefix: str) -> int:
        """Remove all objects below a prefix, and uploads that were cut off there."""
        bucket, key = split(prefix)
        below = f"{key.rstrip('/')}/"
        count = 0
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=below):
                # one by one: a batch needs a checksum that some S3 servers do not know
                for found in page.get("Contents", []):
                    self._client.delete_object(Bucket=bucket, Key=found["Key"])
                    count += 1
            uploads = self._client.get_paginator("list_multipart_uploads")
            for parts in uploads.paginate(Bucket=bucket, Prefix=below):
                for cut in parts.get("Uploads", []):
                    self._client.abort_multipart_upload(
                        Bucket=bucket, Key=cut["Key"], UploadId=cut["UploadId"]
                    )
        return count

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file there, in parts where it is large."""
        bucket, key = split(uri)
        if not path.is_file():
            raise BadInput(f"{path} does not exist")
        with (
            self._explained(uri),
            create_transfer_manager(self._client, self._transfer) as manager,
        ):
            manager.upload(os.fspath(path), bucket, key).result()

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file, in parts where it is large. Raises ObjectNotFound."""
        bucket, key = split(uri)
        with (
            self._explained(uri),
            replacing(path) as file,
            create_transfer_manager(self._client, self._transfer) as manager,
        ):
            manager.download(bucket, key, file).result()

    def _check_bucket(self, bucket: str, uri: str) -> None:
        """Raise BadInput where the bucket is missing: a HEAD's reply does not tell that apart."""
        if bucket in self._known:
            return
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if code_of(error) in {"404", "NoSuchBucket", "NotFound"}:
                raise BadInput(
                    f"{uri}: there is no bucket {bucket} for this access key: make it, or mend "
                    "the URI or the key"
                ) from None
            # not allowed to ask: then the bucket is there
        except BotoCoreError as error:
            raise explain(error, uri, self._storage) from error
        self._known.add(bucket)

    def _again(self, bucket: str, key: str) -> bytes:
        """Read, and read again where the connection broke in the middle of the body."""
        attempt = 0
        while True:
            reply = self._client.get_object(Bucket=bucket, Key=key)  # boto3 repeats this itself
            try:
                return reply["Body"].read()
            except BotoCoreError as error:
                attempt += 1
                if attempt >= self._attempts or not is_passing(error):
                    raise
            _pause(attempt)

    @contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, RetriesExceededError) as error:
            found = explain(error, uri, self._storage)
            if isinstance(found, ObjectNotFound):
                self._check_bucket(split(uri, empty=True)[0], uri)
            raise found from error


def make_client(storage: StorageSpec) -> S3Client:
    """Return a boto3 client with the spec's options."""
    session = boto3.session.Session()
    region = storage.region or session.region_name or (_REGION if storage.endpoint else None)
    checksums: Literal["when_supported", "when_required"] = (
        "when_supported" if storage.checksums == "WhenSupported" else "when_required"
    )
    return session.client(
        "s3",
        endpoint_url=storage.endpoint,
        region_name=region,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": storage.max_attempts},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if storage.path_style else "auto"},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
        ),
    )


def split(uri: str, *, empty: bool = False) -> tuple[str, str]:
    """Return the bucket and the key of an ``s3://bucket/key`` URI.

    Raises
    ------
    BadInput
        If it is another kind of URI, or has no bucket, or (unless ``empty``) no key.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not (key or empty):
        raise BadInput(f"{uri} must be s3://bucket/key")
    return bucket, key


def _pause(attempt: int) -> None:
    time.sleep(min(_PAUSE_SECONDS * 2**attempt, _PAUSE_MOST))
