"""Servers that nothing trusts, variables that name no file, and the words of the hub."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from huggingface_hub.utils import hf_raise_for_status

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_jobs.store import open_store
from selfemo_jobs.store.hub import translated_hub_errors


@pytest.fixture(scope="module")
def https_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server on the loopback interface with a certificate that it signed itself."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_hub_with_an_untrusted_certificate_is_bad_input(https_port: int, tmp_path: Path) -> None:
    """Not an outage: another try would not help."""
    from huggingface_hub import snapshot_download

    with (
        pytest.raises(BadInput) as caught,
        translated_hub_errors("hf://owner/name", None, "model"),
    ):
        endpoint = f"https://localhost:{https_port}"
        snapshot_download("owner/name", endpoint=endpoint, cache_dir=tmp_path)
    assert str(caught.value) == (
        "hf://owner/name: the Hub's certificate is not trusted: set SSL_CERT_FILE to a CA "
        "bundle with the certificate of its authority"
    )


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (
            403,
            BadInput,
            "the Hub rejected the request with 403 (Storage limit \\x1b[31mreached): check the",
        ),
        (
            412,
            Unavailable,
            "the Hub responded with 412 (Storage limit \\x1b[31mreached); run the same",
        ),
        (409, Unavailable, "the Hub responded with 409"),
        (423, Unavailable, "the Hub responded with 423"),
        (503, Unavailable, "the Hub responded with 503"),
    ],
)
def test_the_words_of_the_hub_are_in_the_error(
    status: int, error: type[StageError], message: str
) -> None:
    reply = httpx.Response(
        status,
        headers={"x-error-message": "Storage limit \x1b[31mreached."},
        request=httpx.Request("POST", "https://huggingface.co/api/models/owner/name/commit/main"),
    )
    with pytest.raises(error) as caught, translated_hub_errors("hf://owner/name", None, "model"):
        hf_raise_for_status(reply)
    assert str(caught.value).startswith(f"hf://owner/name: {message}")


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_a_missing_file_of_s3_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/nowhere/file")
    with pytest.raises(BadInput) as caught:
        open_store(StorageSpec(uri="s3://bucket/run"))
    assert str(caught.value) == (
        f"s3://bucket/run: {name} is /nowhere/file, which does not exist: fix or unset the variable"
    )
