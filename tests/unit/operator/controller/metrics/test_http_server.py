"""The HTTP server: bounds on connections and their time, TLS, and who may read the metrics."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from selfemo_api import bounded_server
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.metrics import authorization, http_server
from selfemo_operator.controller.metrics.authorization import Authorizer, authorized
from selfemo_operator.controller.metrics.http_server import (
    HttpServer,
    metrics_handler,
    probe_handler,
)

Json = dict[str, Any]
#: Enough to be far beyond the bound, and few enough for the limit of open files.
HALF_OPEN = 400
#: The most threads that they may take; a few are ending.
MOST_THREADS = 40


@pytest.fixture
def start() -> Iterator[Callable[..., HttpServer]]:
    servers: list[HttpServer] = []

    def build(handler: Any = None, tls: Path | None = None) -> HttpServer:
        server = HttpServer(0, {"/metrics": handler or metrics_handler(lambda: [b"up 1\n"])}, tls)
        server.start()
        servers.append(server)
        return server

    yield build
    for server in servers:
        server.stop()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_both_ip_families_are_served(start: Callable[..., HttpServer]) -> None:
    """In a cluster with IPv6 alone, the kubelet's probes come over it."""
    server = start()
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, server.port), timeout=5) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.0 200")


def test_a_large_response_arrives_whole_in_pieces_of_limited_size(
    start: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece, the text of each scrape would stay in the operator's memory."""
    parts = [f"up{number} {number}\n".encode() * 50 for number in range(3_000)]
    sizes: list[int] = []

    def recorded(pieces: Sequence[bytes]) -> Iterator[bytes | bytearray]:
        for block in blocks(pieces):
            sizes.append(len(block))
            yield block

    blocks = http_server._blocks
    monkeypatch.setattr(http_server, "_blocks", recorded)
    server = start(metrics_handler(lambda: parts))
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as response:
        assert response.read() == b"".join(parts)
    assert 10 < len(sizes) < 100
    assert max(sizes) < 2 * 64 * 2**10


def get(server: HttpServer, token: str | None = None, **more: Any) -> int:
    scheme = "https" if more else "http"
    request = Request(f"{scheme}://127.0.0.1:{server.port}/metrics")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=10, **more) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def test_half_open_requests_take_few_threads_and_a_scrape_is_answered(
    start: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "SILENT_SECONDS", 60.0)  # only the bound helps
    monkeypatch.setattr(bounded_server, "CONNECTION_SECONDS", 60.0)
    server = start()
    before = threading.active_count()
    clients = []
    for _ in range(HALF_OPEN):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        clients.append(client)
    deadline = time.monotonic() + 60
    while len(server._server._open) < MOST_THREADS - 10 and time.monotonic() < deadline:
        time.sleep(0.01)  # until the server has accepted some
    counts = []
    while time.monotonic() < deadline and len(counts) < 20:
        counts.append(threading.active_count() - before)
        time.sleep(0.05)
    assert counts[-1] <= MOST_THREADS
    assert get(server) == 200
    for client in clients:
        client.close()


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n"], ids=["silent", "half"])
def test_a_connection_that_sends_nothing_is_closed(
    start: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(bounded_server, "SILENT_SECONDS", 0.2)
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(sent)
        assert client.recv(1) == b""


def test_a_connection_that_sends_byte_by_byte_is_closed(
    start: Callable[..., HttpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "CONNECTION_SECONDS", 0.5)
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        end = time.monotonic() + 8
        with pytest.raises(OSError):
            while time.monotonic() < end:
                client.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() < end


def test_tls_follows_the_certificate(start: Callable[..., HttpServer], tmp_path: Path) -> None:
    def certificate() -> None:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", f"{tmp_path}/tls.key", "-out", f"{tmp_path}/tls.crt"]
        subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)

    certificate()
    server = start(tls=tmp_path)
    first = ssl.create_default_context(cafile=f"{tmp_path}/tls.crt")
    assert get(server, context=first) == 200
    certificate()
    second = ssl.create_default_context(cafile=f"{tmp_path}/tls.crt")
    assert get(server, context=second) == 200
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b"up 1" not in plain.recv(1000)
    assert get(server, context=second) == 200


class Reviews:
    """An API server that knows two tokens."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.down = False

    def create(self, path: str, body: Json) -> Json:
        self.requests.append(path)
        if self.down:
            raise ApiError(0, "Unreachable", "refused")
        spec = body["spec"]
        if path == authorization.TOKEN_REVIEWS:
            known = spec["token"] in ("prometheus", "stranger")
            return {"status": {"authenticated": known, "user": {"username": spec["token"]}}}
        assert spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        return {"status": {"allowed": spec["user"] == "prometheus"}}


def test_only_allowed_accounts_get_the_metrics(start: Callable[..., HttpServer]) -> None:
    reviews = Reviews()
    handler = metrics_handler(lambda: [b"up 1\n"])
    server = start(authorized(handler, Authorizer(reviews, "/metrics")))  # type: ignore[arg-type]
    tokens = (None, "", "unknown", "stranger", "prometheus", "prometheus")
    assert [get(server, token) for token in tokens] == [401, 401, 401, 403, 200, 200]
    assert len(reviews.requests) == 5, "an answer is kept, and no token is not asked about"


def test_invented_tokens_are_reviewed_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(authorization.time, "monotonic", lambda: clock[0])
    reviews = Reviews()
    authorizer = Authorizer(reviews, "/metrics")  # type: ignore[arg-type]
    assert authorizer.status({"Authorization": "Bearer prometheus"}) == 200
    statuses = [authorizer.status({"Authorization": f"Bearer {n}"}) for n in range(100)]
    assert statuses.count(401) == authorization.REVIEWS_PER_SECOND - 1
    assert statuses.count(429) == 100 - statuses.count(401)
    assert authorizer.status({"Authorization": "Bearer prometheus"}) == 200, "its answer is kept"
    clock[0] += authorization.ANSWER_SECONDS + 1
    reviews.down = True
    assert authorizer.status({"Authorization": "Bearer prometheus"}) == 503
    reviews.down = False
    assert authorizer.status({"Authorization": "Bearer prometheus"}) == 200


def test_invented_tokens_do_not_keep_prometheus_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(authorization.time, "monotonic", lambda: clock[0])
    authorizer = Authorizer(Reviews(), "/metrics")  # type: ignore[arg-type]
    scrapes = []
    for second in range(200):
        if second % 15 == 0:
            scrapes.append(authorizer.status({"Authorization": "Bearer prometheus"}))
        for number in range(20):
            authorizer.status({"Authorization": f"Bearer {second}-{number}"})
        clock[0] += 1
    assert set(scrapes) == {200}
    assert len(authorizer._refused._kept) == authorization.MAX_ANSWERS


def test_a_probe_names_the_namespaces_that_are_not_watched() -> None:
    response = probe_handler(lambda: None, lambda: {"team": "Jobs: 403"})({})
    assert response.status == 200
    assert json.loads(b"".join(response.body)) == {
        "status": "ok",
        "unwatched": {"team": "Jobs: 403"},
    }
    assert probe_handler(lambda: "stuck")({}).status == 503
