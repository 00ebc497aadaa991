"""What S3's error codes mean: which need a user fix, and which pass by themselves. Pure.

The codes are those of Amazon S3 (API Reference, "Error responses"), of its security token service,
of AWS KMS, and of servers that speak S3's protocol.
"""

from __future__ import annotations

import re

#: What to do about keys that are missing or wrong.
KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `storage.credentialsSecretRef`, or "
    "configure an identity for the pod's service account"
)
#: The right that a denied request needs, where it is not one of the three in ADVICE.
RIGHTS = {
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListObjectVersions": "s3:ListBucketVersions",
}
#: What to do, by error code.
ADVICE = {
    "AccessDenied": "grant s3:GetObject, s3:PutObject and s3:ListBucket there (without ListBucket "
    "a missing object is denied too)",
    "AllAccessDisabled": "the bucket's owner has disabled it",
    "AccountProblem": "the account has a problem: contact the provider",
    "InvalidAccessKeyId": f"the access key is not known there: {KEYS}",
    "XAdminUserNotFound": f"the access key is not known there: {KEYS}",  # versitygw's code
    "SignatureDoesNotMatch": f"the secret key does not match the access key: {KEYS}",
    "InvalidToken": "the session token is not valid: renew it",
    "NoSuchBucket": "create the bucket, or fix the URI",
    "InvalidBucketName": "fix the bucket's name in the URI",
    "AuthorizationHeaderMalformed": "set `storage.region` to the bucket's region",
    "PermanentRedirect": "set `storage.region` and `storage.endpoint` to the bucket's",
    "IllegalLocationConstraintException": "set `storage.region` to the bucket's region",
    "NotImplemented": "this server does not support what selfemo needs (conditional writes, "
    "multipart uploads): use another server",
    "QuotaExceeded": "storage full: free space or raise the quota",
    "InsufficientStorage": "storage full: free space",
    "XMinioStorageFull": "storage full: free space",
    "EntityTooLarge": "the server does not accept an object of that size",
    "KeyTooLongError": "use a shorter `storage.uri` or name",
    "InvalidObjectState": "the object is archived: restore it",
    "KMS.DisabledException": "enable the KMS key of the bucket",
    "KMS.NotFoundException": "the bucket's KMS key does not exist: set another one",
    "KMS.KMSInvalidStateException": "the bucket's KMS key cannot be used: check its state",
}
#: The code that belongs to the status of a reply without a body, or with a code of no table.
BY_STATUS = {
    301: "PermanentRedirect",
    401: "AccessDenied",
    403: "AccessDenied",
    501: "NotImplemented",
    507: "InsufficientStorage",
}
#: Codes of a missing object.
MISSING = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})
#: Codes of which the checksums of a request are not the reason.
NOT_BY_CHECKSUMS = frozenset(ADVICE) - {
    *("AccessDenied", "AllAccessDisabled", "SignatureDoesNotMatch", "InvalidToken"),
    *("AuthorizationHeaderMalformed", "NotImplemented"),
}

#: Codes of credentials that the next attempt may get: a pod's token is renewed in its file,
#: and the clock of another node may be right.
_CREDENTIALS = {
    "ExpiredToken": "the session token has expired: renew it",
    "ExpiredTokenException": "the session token has expired: renew it",
    "TokenRefreshRequired": "the session token must be renewed",
    "RequestExpired": "the request has expired: set this machine's clock",
    "RequestTimeTooSkewed": "set this machine's clock",
}
#: Codes of data that did not arrive as it was sent.
DAMAGED_ON_THE_WAY = frozenset(
    {
        *("BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentChecksumMismatch"),
        *("XAmzContentSHA256Mismatch", "ContentSHA256Mismatch"),
    }
)
#: The code of a conditional put while another writer puts the same object.
CONFLICT = "ConditionalRequestConflict"
#: Codes of a conditional put that another writer disturbed.
OTHER_WRITERS = frozenset({"PreconditionFailed", CONFLICT, "OperationAborted"})
#: The codes of an upload that is complete, after a reply that was lost, or that was removed.
LOST_UPLOADS = frozenset({"NoSuchUpload"})
#: Codes of a server that is busy, or that another request disturbed.
_BUSY = frozenset(
    {
        *("BandwidthLimitExceeded", "Busy", CONFLICT, "ConcurrentModification"),
        *("EC2ThrottledException", "IDPCommunicationError", "InternalError", "InternalFailure"),
        *("LimitExceededException", "OperationAborted", "PriorRequestNotComplete"),
        *("ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestTimeout"),
        *("RequestTimeoutException", "RequestThrottled", "RequestThrottledException", "ServerBusy"),
        *("ServiceUnavailable", "ServiceUnavailableException", "SlowDown", "SlowDownRead"),
        *("SlowDownWrite", "TemporaryRedirect", "ThrottledException", "Throttling"),
        *("ThrottlingException", "TooManyRequests", "TooManyRequestsException"),
        *("TransactionInProgressException", "DependencyTimeoutException", "KMSInternalException"),
        *("KeyUnavailableException",),
    }
)
#: Codes of the same kind of servers whose lists are not known in full.
_BUSY_PATTERN = re.compile(
    r"throttl|slow_?down|too_?many_?requests|(?:rate|qps|request)_?limit|time_?d?_?out\b|busy",
    re.IGNORECASE,
)
#: Status codes of a reply that may be another one later.
_BUSY_STATUS = frozenset({307, 408, 425, 429})


def is_busy(code: str, status: int) -> bool:
    """Return whether the same request may succeed within seconds.

    Parameters
    ----------
    code
        The error code of the reply. A HEAD reply has none.
    status
        The HTTP status of the reply.

    Examples
    --------
    >>> is_busy("KMS.ThrottlingException", 400), is_busy("408", 408), is_busy("AccessDenied", 403)
    (True, True, False)
    """
    if code in ADVICE or code in _CREDENTIALS or BY_STATUS.get(status) == "NotImplemented":
        return False
    name = code.rpartition(".")[2]  # codes of KMS begin with `KMS.`
    return (
        name in _BUSY
        or name in DAMAGED_ON_THE_WAY
        or _BUSY_PATTERN.search(name) is not None
        or status in _BUSY_STATUS
        or (status >= 500 and status not in BY_STATUS)
    )


def renewed_later(code: str) -> str | None:
    """Return what to do about credentials that a later attempt may get; otherwise None.

    Parameters
    ----------
    code
        The error code of the reply.
    """
    return _CREDENTIALS.get(code)
