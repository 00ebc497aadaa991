"""Errors of S3: which pass by themselves, and what a person is told about the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import botocore
import botocore.exceptions as bc
import pytest
from botocore.parsers import ResponseParserError
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3ValidationError
from tests.support.picky_s3 import Habit, PickyS3

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import ObjectNotFound, join, open_store
from selfemo_jobs.store.s3_errors import is_other_server, translate

AWS = StorageSpec(uri="s3://bucket/run")
OTHER = StorageSpec(uri="s3://bucket/run", endpoint="https://storage.example.org")
CHECKSUMS = "if this server rejects checksums, set `storage.checksums: WhenRequired`"


def reply(
    code: str, status: int, operation: str = "PutObject", message: str = "No."
) -> bc.ClientError:
    metadata = {"HTTPStatusCode": status}
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return bc.ClientError(response, operation)  # type: ignore[arg-type]


def translated(error: Exception, storage: StorageSpec = AWS) -> Exception:
    return translate(error, "s3://bucket/run/x", storage)


#: The passing errors of Amazon S3's list of error responses, of its token service and of KMS, and
#: those of other servers.
PASSING = [
    ("ExpiredToken", 400),
    ("ExpiredTokenException", 400),
    ("TokenRefreshRequired", 400),
    ("RequestTimeTooSkewed", 403),
    ("RequestExpired", 400),
    ("BadDigest", 400),
    ("IncompleteBody", 400),
    ("InvalidDigest", 400),
    ("XAmzContentSHA256Mismatch", 400),
    ("XAmzContentChecksumMismatch", 400),
    ("RequestTimeout", 400),
    ("RequestTimedOut", 400),
    ("OperationAborted", 409),
    ("ConditionalRequestConflict", 409),
    ("TemporaryRedirect", 307),
    ("SlowDown", 503),
    ("SlowDownRead", 429),
    ("ServiceUnavailable", 503),
    ("InternalError", 500),
    ("InternalError", 200),  # a multipart upload that fails while it is completed
    ("Busy", 503),
    ("ServerBusy", 400),
    ("RequestThrottled", 400),
    ("Throttling", 400),
    ("ThrottlingException", 400),
    ("KMS.ThrottlingException", 400),
    ("KMS.DependencyTimeoutException", 500),
    ("KMS.KMSInternalException", 500),
    ("KMS.KeyUnavailableException", 400),
    ("TooManyRequests", 429),
    ("RateLimitExceeded", 400),
    ("QpsLimitExceeded", 400),
    ("408", 408),
    ("425", 425),
    ("429", 429),
    ("500", 500),
    ("502", 502),
    ("503", 503),
    ("504", 504),
    ("509", 509),
    ("529", 529),
]


@pytest.mark.parametrize("storage", [AWS, OTHER], ids=["aws", "other"])
@pytest.mark.parametrize(("code", "status"), PASSING)
def test_passing_errors_are_not_bad_input(code: str, status: int, storage: StorageSpec) -> None:
    error = translated(reply(code, status, "GetObject"), storage)
    assert isinstance(error, Unavailable)
    assert code in str(error)
    assert "run the same command again" in str(error)


def test_all_that_boto3_tries_again_is_passing() -> None:
    throttled = ThrottledRetryableChecker._THROTTLED_ERROR_CODES
    transient = TransientRetryableChecker._TRANSIENT_ERROR_CODES
    path = Path(botocore.__file__).parent / "data" / "_retry.json"
    content = json.loads(path.read_text())
    policies = [*content["definitions"].values()]
    for service in ("s3", "sts"):
        policies += content["retry"][service]["__default__"]["policies"].values()
    replies = [policy["applies_when"].get("response", {}) for policy in policies]
    listed = {r["service_error_code"] for r in replies if "service_error_code" in r}
    assert {"BadDigest", "RequestTimeout", "IDPCommunicationError"} < listed
    for code in {*throttled, *transient, *listed}:
        assert isinstance(translated(reply(code, 400)), Unavailable), code
    for status in {r["http_status_code"] for r in replies if r} - {400}:
        assert isinstance(translated(reply("Unknown", status)), Unavailable), status


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("AccessDenied", 403, "grant s3:GetObject"),
        ("403", 403, "grant s3:GetObject"),
        ("InvalidAccessKeyId", 403, "the access key is not known"),
        ("SignatureDoesNotMatch", 403, "the secret key does not match the access key"),
        ("InvalidToken", 400, "renew it"),
        ("NoSuchBucket", 404, "create the bucket"),
        ("PermanentRedirect", 301, "`storage.region`"),
        ("NotImplemented", 501, "use another server"),
        ("501", 501, "use another server"),
        ("QuotaExceeded", 403, "storage full"),
        ("InsufficientStorage", 507, "storage full"),
        ("XMinioStorageFull", 507, "storage full"),
        ("KMS.DisabledException", 400, "enable the KMS key"),
        ("KMS.NotFoundException", 400, "KMS key does not exist"),
        ("MalformedXML", 400, "S3 rejected the request"),
    ],
)
def test_errors_for_a_person_are_bad_input(code: str, status: int, advice: str) -> None:
    error = translated(reply(code, status, "GetObject"))
    assert isinstance(error, BadInput)
    assert advice in str(error)
    assert "checksums" not in str(error)


def test_a_missing_object_is_not_an_error_of_a_person() -> None:
    for code in ("NoSuchKey", "404", "NotFound"):
        assert isinstance(translated(reply(code, 404, "HeadObject")), ObjectNotFound)


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("SignatureDoesNotMatch", 403, "The signature does not match."),
        ("AccessDenied", 403, "Access denied."),
        ("Unauthorized", 401, "Unauthorized"),
        ("NotImplemented", 501, "STREAMING-UNSIGNED-PAYLOAD-TRAILER is not implemented"),
        ("InvalidArgument", 400, "aws-chunked encoding is not supported"),
        ("InvalidRequest", 400, "The header x-amz-sdk-checksum-algorithm is not supported"),
        ("MissingContentLength", 411, "You must provide the Content-Length HTTP header."),
        ("MalformedTrailerError", 400, "The request contained trailing data"),
        ("InvalidHeader", 400, "Unknown header"),
        ("BadDigest", 400, "The checksum does not match"),
        ("XAmzContentSHA256Mismatch", 400, "The hash does not match"),
        ("418", 418, "No."),
    ],
)
def test_checksums_are_named_where_another_server_refuses_a_put(
    code: str, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(operation: str, storage: StorageSpec) -> str:
        return str(translated(reply(code, status, operation, message), storage))

    for operation in ("PutObject", "UploadPart", "CreateMultipartUpload"):
        assert line(operation, OTHER).endswith(CHECKSUMS)
    assert CHECKSUMS not in line("GetObject", OTHER)
    assert CHECKSUMS not in line("PutObject", AWS)
    plain = OTHER.model_copy(update={"checksums": "WhenRequired"})
    assert CHECKSUMS not in line("PutObject", plain)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://storage.example.org")
    assert line("PutObject", AWS).endswith(CHECKSUMS)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "NoSuchBucket", "QuotaExceeded"])
def test_checksums_are_not_named_where_the_reason_is_another(code: str) -> None:
    assert CHECKSUMS not in str(translated(reply(code, 403), OTHER))


@pytest.mark.parametrize(
    ("endpoint", "other"),
    [
        ("https://s3.eu-west-1.amazonaws.com", False),
        ("https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", False),
        ("https://s3.cn-north-1.amazonaws.com.cn", False),
        ("https://amazonaws.com.example.org", True),
        ("http://127.0.0.1:9000", True),
        ("https://[::1", True),
        (None, False),
    ],
)
def test_servers_of_aws_are_known(
    endpoint: str | None, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert is_other_server(StorageSpec(uri="s3://bucket/x", endpoint=endpoint)) is other


@pytest.mark.parametrize("operation", ["AssumeRoleWithWebIdentity", "AssumeRole"])
def test_a_role_that_may_not_be_assumed(operation: str) -> None:
    for code in ("AccessDenied", "InvalidIdentityToken", "ValidationError"):
        error = translated(reply(code, 403, operation))
        assert isinstance(error, BadInput)
        assert "let the role in AWS_ROLE_ARN trust this service account" in str(error)
        assert "s3:GetObject" not in str(error)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("IDPCommunicationError", "The identity provider did not respond"),
        ("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider"),
        ("ExpiredTokenException", "Token expired"),
        ("Throttling", "Rate exceeded"),
    ],
)
def test_a_token_service_that_is_disturbed(code: str, message: str) -> None:
    error = reply(code, 400, "AssumeRoleWithWebIdentity", message)
    assert isinstance(translated(error), Unavailable)


def _all_below(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _all_below(below))]


def test_no_error_of_boto3_is_a_bug() -> None:
    kinds = [kind for kind in _all_below(bc.BotoCoreError) if kind.__module__ == bc.__name__]
    assert len(kinds) > 60
    for kind in kinds:
        error = kind.__new__(kind)
        error.args = ("odd",)
        assert isinstance(translated(error), BadInput | Unavailable), kind
    for failure in (
        ResponseParserError("not XML"),
        RetriesExceededError(ConnectionError()),
        S3DownloadFailedError("the ETag is another one"),
        S3ValidationError("size"),
    ):
        assert isinstance(translated(failure), Unavailable)


def test_the_keys_of_an_endpoint_are_not_shown() -> None:
    url = "http://minio:top@secret@127.0.0.1:9/bucket/x?a=b@c"
    storage = OTHER.model_copy(update={"endpoint": "http://minio:top@secret@127.0.0.1:9"})
    for error in (
        bc.EndpointConnectionError(endpoint_url=url, error="refused"),
        ValueError(f"Invalid endpoint: {url}"),
        reply("AccessDenied", 403),
    ):
        line = str(translated(error, storage))
        assert "127.0.0.1:9" in line
        assert "secret" not in line
        assert "minio" not in line


@pytest.mark.parametrize("status", [500, 503])
def test_the_service_of_credentials_is_asked_again(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That of a machine on AWS: boto3 asks it once, and would report that there are no keys."""
    asked: list[str] = []
    later = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    role = {"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c", "Expiration": later}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked.append(self.path)
            is_role = self.path.endswith("/role")
            body = json.dumps(role).encode() if is_role else b"role"
            self.send_response(status if len(asked) < 3 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT

        def log_message(self, format: str, *args: object) -> None: ...

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=service.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{service.server_address[1]}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
    with PickyS3() as server:
        storage = server.storage()
        uri = join(storage.uri, "x")
        open_store(storage).put(uri, b"x")
        assert open_store(storage).get(uri) == b"x"
    service.shutdown()
    service.server_close()


def test_a_server_without_tls_is_named() -> None:
    error = bc.SSLError(endpoint_url="https://x", error="[SSL: WRONG_VERSION_NUMBER] wrong version")
    assert isinstance(translated(error, OTHER), BadInput)
    assert "http:// URL" in str(translated(error, OTHER))


@pytest.mark.parametrize(
    ("variables", "file", "expected"),
    [
        (
            {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/none/t"},
            "",
            "/none/t, which does not exist",
        ),
        ({"REQUESTS_CA_BUNDLE": "/none/ca.pem"}, "", "/none/ca.pem: it does not exist"),
        (
            {"AWS_CA_BUNDLE": "{folder}/config"},
            "# not a certificate",
            "it contains no certificates (PEM)",
        ),
        ({}, "ca_bundle = /none/ca.pem", "/none/ca.pem: it does not exist"),
        ({}, "web_identity_token_file = /none/t\nrole_arn = {role}", "/none/t does not exist"),
        ({}, "credential_process = /none/program", "/none/program does not exist"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "{folder}", "AWS_ROLE_ARN": "{role}"},
            "",
            "cannot be read",
        ),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "{folder}/config"}, "", "no role ARN configured"),
        ({"AWS_PROFILE": "other"}, "", "profile (other) could not be found"),
        ({}, "source_profile = none\nrole_arn = {role}", "does not exist"),
    ],
)
def test_wrong_settings_of_aws_are_bad_input(
    variables: dict[str, str],
    file: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"folder": str(tmp_path), "role": "arn:aws:iam::123456789012:role/runner"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(f"[default]\n{file.format(**names)}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(**names))
    with pytest.raises(BadInput) as caught:
        open_store(AWS.model_copy(update={"endpoint": "https://127.0.0.1:9"})).get("s3://bucket/x")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("code", "status"), [("BadDigest", 400), ("OperationAborted", 409), ("IncompleteBody", 400)]
)
def test_a_passing_error_is_tried_again(
    code: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 itself does not try these again."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with PickyS3(Habit.CHECKSUMS, code=code, status=status, times=2) as server:
        storage = server.storage(maxAttempts=3)
        uri = join(storage.uri, "x")
        assert open_store(storage).put_if_absent(uri, b"x")
        assert open_store(storage).get(uri) == b"x"
        assert server.refused == 2
    with PickyS3(Habit.CHECKSUMS, code=code, status=status) as server:
        storage = server.storage(maxAttempts=3)
        with pytest.raises(Unavailable):
            open_store(storage).put(join(storage.uri, "x"), b"x")
        assert server.refused == 3


def test_the_reason_is_asked_for_where_a_reply_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reply to a HEAD has no body: an expired token is then a bare 400."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with PickyS3(Habit.TOKEN) as server:
        storage = server.storage()
        store, uri = open_store(storage), join(storage.uri, "x")
        for call in (lambda: store.exists(uri), lambda: store.download(uri, tmp_path / "copy")):
            with pytest.raises(Unavailable, match=r"ExpiredToken: .*: the session token has"):
                call()
