"""Turns boto3's errors into errors with advice: what requires a user fix, and what to retry."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

import botocore.exceptions as bc
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import (
    RetriesExceededError,
    S3DownloadFailedError,
    S3UploadFailedError,
    S3ValidationError,
)

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, NoCredentials, Unavailable, error_line
from selfemo_jobs.store.certificates import is_untrusted
from selfemo_jobs.store.interface import ObjectNotFound
from selfemo_jobs.store.s3_codes import (
    ADVICE,
    BY_STATUS,
    DAMAGED_ON_THE_WAY,
    KEYS,
    MISSING,
    NOT_BY_CHECKSUMS,
    RIGHTS,
    is_busy,
    renewed_later,
)

#: The operations that exchange a token or other credentials for those of a role.
_ASSUME_ROLE = ("AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML")
#: What the token service reports where it could not read the keys of the identity provider.
_PROVIDER_AWAY = "retrieve verification key"
#: The operations whose requests have a checksum of their data.
_PUTS = frozenset(
    {"PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"},
)
#: The environment variables by which boto3 finds another endpoint than that of AWS.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CHECKSUMS = "if this server rejects checksums, set `storage.checksums: WhenRequired`"

_UNREACHABLE = (
    bc.HTTPClientError,  # connections refused, reset, timed out; proxies
    bc.ConnectionError,
    bc.CapacityNotAvailableError,
    bc.ChecksumError,
    bc.IncompleteReadError,
    bc.ResponseStreamingError,
    bc.CredentialRetrievalError,
    bc.MetadataRetrievalError,
    bc.FlexibleChecksumError,  # a body that was cut off or changed on its way
    ResponseParserError,  # not XML: a proxy between, or a reply that was cut off
    RetriesExceededError,
    S3DownloadFailedError,  # the object was replaced while it was read
    S3UploadFailedError,
    S3ValidationError,
)

#: All errors of boto3 that are not replies of the server.
BOTO3_ERRORS: tuple[type[Exception], ...] = (
    bc.BotoCoreError,
    ResponseParserError,
    RetriesExceededError,
    S3DownloadFailedError,
    S3UploadFailedError,
    S3ValidationError,
    ValueError,  # of the URL of an endpoint
)
#: The errors that boto3 raises before it sends a request.
_BEFORE_REQUEST = (
    ((bc.PartialCredentialsError, bc.ProfileNotFound), KEYS),
    (
        (bc.TokenRetrievalError, bc.SSOError, bc.LoginError, bc.RefreshWithMFAUnsupportedError),
        "sign in again",
    ),
    ((bc.NoRegionError, bc.InvalidRegionError, bc.UnknownRegionError), "set `storage.region`"),
    (
        (bc.ParamValidationError, bc.EndpointProviderError),
        "fix the bucket's name in the URI, or `storage.endpoint`",
    ),
    ((bc.InvalidProxiesConfigError,), "fix the HTTPS_PROXY or HTTP_PROXY environment variable"),
    (
        (bc.BotoCoreError,),
        "fix AWS_PROFILE, the other AWS_ variables, or the AWS configuration file",
    ),
    # of the URL of an endpoint, or of a service of credentials
    ((ValueError,), "fix `storage.endpoint` or the AWS_ variables"),
)


def code_of(error: bc.ClientError) -> str:
    """Return S3's error code, or an empty string."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: bc.ClientError) -> int:
    """Return the HTTP status of a reply, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later, without a user fix."""
    return isinstance(error, _UNREACHABLE) and not _is_for_the_user(error)


def translate(error: Exception, uri: str, storage: StorageSpec) -> Exception:
    """Return the error to raise for an error of boto3. Its message has no credentials.

    Parameters
    ----------
    error
        The error that boto3 raised.
    uri
        The URI of the request.
    storage
        The spec of the storage, for the endpoint and the number of attempts in the message.

    Returns
    -------
    Exception
        BadInput, Unavailable or ObjectNotFound; the same error if it is an unknown one.
    """
    where = f"{uri} at {_without_keys(storage.endpoint)}" if storage.endpoint else uri
    reason = _without_keys(error_line(error))
    if isinstance(error, bc.ClientError):
        return _translate_reply(error, uri, where, storage)
    if is_transient(error):
        return Unavailable(
            f"{where}: S3 could not be reached in {storage.max_attempts} attempts ({reason}); "
            "run the same command again when it is available"
        )
    if is_untrusted(error):
        return BadInput(f"{where}: the server's certificate is not trusted: set AWS_CA_BUNDLE")
    if isinstance(error, bc.SSLError):
        return BadInput(
            f"{where}: the server does not use TLS: set `storage.endpoint` to its http:// URL"
        )
    if isinstance(error, bc.NoCredentialsError):
        return NoCredentials(f"{where}: {reason}: {KEYS}")
    advice = next((text for kinds, text in _BEFORE_REQUEST if isinstance(error, kinds)), None)
    return error if advice is None else BadInput(f"{where}: {reason}: {advice}")


def _without_keys(text: str) -> str:
    """Return a text whose URLs have no user and password: those of `AWS_ENDPOINT_URL` may."""
    return re.sub(r"(https?://)[^/?#\s]*@", r"\1", text)


def is_other_server(storage: StorageSpec) -> bool:
    """Return whether a storage is on another server than those of AWS.

    Parameters
    ----------
    storage
        The spec of the storage.
    """
    names = (os.environ.get(name, "") for name in _ENDPOINTS)
    endpoint = storage.endpoint or next((name for name in names if name), "")
    try:
        host = urlsplit(endpoint).hostname or ""
    except ValueError:
        return True
    return bool(host) and not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _translate_reply(
    error: bc.ClientError, uri: str, where: str, storage: StorageSpec
) -> BadInput | Unavailable | ObjectNotFound:
    code, status = code_of(error), status_of(error)
    message = error_line(error.response.get("Error", {}).get("Message") or code or "refused")
    if code in MISSING:
        return ObjectNotFound(uri)
    refused_checksum = (
        error.operation_name in _PUTS
        and storage.checksums == "WhenSupported"
        and is_other_server(storage)
        and (400 <= status < 500 or status == 501)
    )
    if is_busy(code, status) or _PROVIDER_AWAY in message:
        damaged = refused_checksum and code in DAMAGED_ON_THE_WAY
        hint = f"; {_CHECKSUMS}" if damaged else ""
        return Unavailable(
            f"{where}: S3 responded with {code} ({status}) after all retries; run the same "
            f"command again{hint}"
        )
    renewal = renewed_later(code)
    if renewal is not None:
        return Unavailable(f"{where}: {code}: {message}: {renewal}, and run the same command again")
    if error.operation_name in _ASSUME_ROLE:
        return BadInput(
            f"{where}: {code}: {message}: let the role in AWS_ROLE_ARN trust this service account"
        )
    if code not in ADVICE:
        code = BY_STATUS.get(status, code)
    advice = ADVICE.get(code, "S3 rejected the request")
    if code == "AccessDenied" and error.operation_name in RIGHTS:
        advice = f"grant {RIGHTS[error.operation_name]} there"
    if refused_checksum and code not in NOT_BY_CHECKSUMS:
        advice = f"{advice}; {_CHECKSUMS}"
    return BadInput(f"{where}: {code}: {message}: {advice}")


def _is_for_the_user(error: Exception) -> bool:
    """Return whether a connection fails for a reason that a user must fix."""
    if is_untrusted(error):
        return True
    return isinstance(error, bc.SSLError) and "WRONG_VERSION_NUMBER" in str(error)
