"""boto3's client of an S3 service: its files, time limits, and what is retried or has arrived."""

from __future__ import annotations

import os
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.certificates import missing_file, unreadable_certificates
from selfemo_jobs.store.s3_codes import CONFLICT, is_busy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_CONNECT_SECONDS = 10.0  # a healthy endpoint accepts a connection within a second
_READ_SECONDS = 60.0  # boto3's default; the reply to a large conditional put may take as long
_PAUSE_SECONDS = 0.2  # the first pause before a retry; doubles up to _PAUSE_MOST
_PAUSE_MOST = 10.0
_TIME_SECONDS = 1.0  # the times of a reply are whole seconds
#: The tries of the service that gives a machine on AWS its credentials. boto3's default is one, and
#: each takes up to a second where there is no such service.
_IDENTITY_ATTEMPTS = 3
_ATTEMPTS = "metadata_service_num_attempts"
#: The region in signatures where none is set: S3 servers other than AWS expect it.
_REGION = "us-east-1"
#: The environment variables that name files which boto3 reads.
_FILES = (
    "AWS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)


def make_client(storage: StorageSpec) -> S3Client:
    """Return a boto3 client with the options of a storage spec.

    Parameters
    ----------
    storage
        The spec of the storage.

    Raises
    ------
    BadInput
        If the environment names a file of certificates or of a token that does not exist.
    """
    missing = missing_file(*_FILES)
    if missing:
        raise BadInput(f"{storage.uri}: {missing}")
    session = boto3.session.Session()
    variables = session._session
    attempts = variables.get_config_variable(_ATTEMPTS)
    variables.set_config_variable(_ATTEMPTS, max(attempts, _IDENTITY_ATTEMPTS))
    if not (storage.endpoint or "").startswith("http://"):
        _check_certificates(session)
    region = storage.region or session.region_name or (_REGION if storage.endpoint else None)
    checksums: Literal["when_supported", "when_required"] = (
        "when_supported" if storage.checksums == "WhenSupported" else "when_required"
    )
    client: S3Client = session.client(
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
    # boto3's own list of errors to try again is short; it sleeps for what a handler returns
    handler: Any = partial(_retry_delay, storage.max_attempts)
    client.meta.events.register("needs-retry.s3", handler)
    return client


def _check_certificates(session: boto3.session.Session) -> None:
    """Check the file of certificates that a session reads.

    Raises
    ------
    BadInput
        If it is missing, or has no certificates: boto3 would report that as a lost connection.
    """
    name = session._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    reason = name and unreadable_certificates(Path(name))
    if reason:
        raise BadInput(f"{name}: {reason}: fix AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or `ca_bundle`")


def _retry_delay(
    most: int,
    response: tuple[Any, dict[str, Any]] | None,
    attempts: int,
    **_event: Any,
) -> float | None:
    """Return the seconds until a request is tried again; None if boto3 decides.

    Parameters
    ----------
    most
        The largest number of attempts.
    response
        The HTTP response and its parsed content. None: there was no response.
    attempts
        The number of attempts so far.
    """
    if response is None or attempts >= most:
        return None
    code = str(response[1].get("Error", {}).get("Code", ""))
    # a conflict of conditional puts is looked at by their caller
    if code == CONFLICT or not is_busy(code, response[0].status_code):
        return None
    return pause_seconds(attempts)


def pause_seconds(attempt: int) -> float:
    """Return the seconds before a request is tried again.

    Parameters
    ----------
    attempt
        The number of attempts so far.

    Examples
    --------
    >>> pause_seconds(1), pause_seconds(20)
    (0.4, 10.0)
    """
    return min(_PAUSE_SECONDS * 2.0**attempt, _PAUSE_MOST)


def is_newer(reply: HeadObjectOutputTypeDef, seconds: float) -> bool:
    """Return whether an object was written within the last seconds, by the clock of the server.

    Parameters
    ----------
    reply
        The reply to a HEAD of the object.
    seconds
        The number of seconds.
    """
    date = reply["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        age = (parsedate_to_datetime(date) - reply["LastModified"]).total_seconds()
    except (ValueError, KeyError, TypeError):
        return False  # the server does not tell
    return age <= seconds + _TIME_SECONDS
