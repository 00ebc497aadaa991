"""Turns boto3's errors into errors with advice: what requires a user fix, and what to retry."""

from __future__ import annotations

import botocore.exceptions as bc
from s3transfer.exceptions import RetriesExceededError

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store.certificates import is_untrusted
from selfemo_jobs.store.interface import ObjectNotFound

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `storage.credentialsSecretRef`, or give "
    "the pod's service account an identity"
)
#: What to do, by S3's error code (Amazon S3 API Reference, "Error responses").
_ADVICE = {
    "AccessDenied": "grant s3:GetObject, s3:PutObject and s3:ListBucket there (without ListBucket "
    "a missing object is denied too)",
    "AllAccessDisabled": "the bucket's owner has closed it",
    "AccountProblem": "the account has a problem: ask the provider",
    "InvalidAccessKeyId": f"the access key is not known there: {_KEYS}",
    "XAdminUserNotFound": f"the access key is not known there: {_KEYS}",  # versitygw's code
    "SignatureDoesNotMatch": f"the secret key is not the access key's: {_KEYS}",
    "ExpiredToken": "the session token has expired: renew it",
    "InvalidToken": "the session token is not valid: renew it",
    "TokenRefreshRequired": "the session token must be renewed",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NoSuchBucket": "make the bucket, or fix the URI",
    "InvalidBucketName": "fix the bucket's name in the URI",
    "AuthorizationHeaderMalformed": "set `storage.region` to the bucket's region",
    "PermanentRedirect": "set `storage.region` and `storage.endpoint` to the bucket's",
    "IllegalLocationConstraintException": "set `storage.region` to the bucket's region",
    "NotImplemented": "this server does not support what selfemo needs (conditional puts, "
    "multipart uploads): use another server",
    "QuotaExceeded": "storage full: free space or raise the quota",
    "InsufficientStorage": "storage full: free space",
    "XMinioStorageFull": "storage full: free space",
    "EntityTooLarge": "the server does not accept an object of that size",
    "InvalidRequest": "if the server refuses checksums, set `storage.checksums: WhenRequired`",
}
#: The operation that exchanges a pod's token for the credentials of a role.
_ASSUME_ROLE = "AssumeRoleWithWebIdentity"
#: The code that belongs to the status of a HEAD reply, which has no body and so no code.
_BY_STATUS = {
    401: "AccessDenied",
    403: "AccessDenied",
    301: "PermanentRedirect",
    507: "InsufficientStorage",
}
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
#: The codes of passing errors whose status is below 500.
_PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}

_UNREACHABLE = (
    bc.HTTPClientError,  # connections refused, reset, timed out; proxies
    bc.ConnectionError,
    bc.IncompleteReadError,
    bc.ResponseStreamingError,
    bc.CredentialRetrievalError,
    bc.MetadataRetrievalError,
    bc.FlexibleChecksumError,  # a body that was cut off or changed on its way
    RetriesExceededError,
)


#: The errors that boto3 raises before it sends a request.
_BEFORE_REQUEST = (
    ((bc.NoCredentialsError, bc.PartialCredentialsError, bc.ProfileNotFound), _KEYS),
    ((bc.TokenRetrievalError, bc.UnauthorizedSSOTokenError), "sign in again"),
    ((bc.NoRegionError, bc.InvalidRegionError), "set `storage.region`"),
    ((bc.ParamValidationError, bc.EndpointProviderError), "fix the bucket's name in the URI"),
)


def code_of(error: bc.ClientError) -> str:
    """Return S3's error code, or an empty string."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_passing(error: Exception) -> bool:
    """Return whether the same request may succeed later, without a user fix."""
    return isinstance(error, _UNREACHABLE) and not is_untrusted(error)


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
    where = f"{uri} at {storage.endpoint}" if storage.endpoint else uri
    if isinstance(error, bc.ClientError):
        return _translate_reply(error, uri, where)
    for kinds, reason in _BEFORE_REQUEST:
        if isinstance(error, kinds):
            return BadInput(f"{where}: {_one_line(error)}: {reason}")
    if is_passing(error):
        return Unavailable(
            f"{where}: S3 could not be reached in {storage.max_attempts} tries "
            f"({_one_line(error)}); run the same command again when it is available"
        )
    if isinstance(error, bc.SSLError):
        return BadInput(f"{where}: the server's certificate is not trusted: set AWS_CA_BUNDLE")
    return error


def _translate_reply(error: bc.ClientError, uri: str, where: str) -> Exception:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if error.operation_name == _ASSUME_ROLE and status < 500:
        message = _one_line(error.response.get("Error", {}).get("Message") or code)
        return BadInput(
            f"{where}: {code}: {message}: let the role of AWS_ROLE_ARN trust this service account"
        )
    if code in _MISSING:
        return ObjectNotFound(uri)
    if code not in _ADVICE:
        code = _BY_STATUS.get(status, code)
    advice = _ADVICE.get(code)
    if advice is None and (status >= 500 or status == 429 or code in _PASSING):
        return Unavailable(
            f"{where}: S3 answers {code} ({status}) after all retries; run the same command again"
        )
    message = _one_line(error.response.get("Error", {}).get("Message") or "refused")
    return BadInput(f"{where}: {code}: {message}: {advice or 'S3 refuses the request'}")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
