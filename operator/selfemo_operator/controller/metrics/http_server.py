"""The operator's two small HTTP servers: one for the kubelet's probes, one for Prometheus.

The handler of prometheus_client is not used: it would render every series again at each scrape.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from selfemo_api.bounded_server import BoundedServer

log = logging.getLogger(__name__)

#: Bytes of a response that are sent at once. A text of 15 MB in one piece would stay in the memory
#: of the process: glibc keeps it for each of its arenas, and each connection may have another one.
_BLOCK_BYTES = 64 * 2**10


class Response(NamedTuple):
    """The response to a request."""

    status: int
    content_type: str
    body: Sequence[bytes]
    """The body in parts."""


Headers = Mapping[str, str] | Message
Handler = Callable[[Headers], Response]
"""Returns the response to a request with the given headers."""
Check = Callable[[], str | None]
"""Returns a description of the problem, or None."""


def probe_handler(check: Check, unwatched: Callable[[], dict[str, str]] = dict) -> Handler:
    """Return a handler that responds with 200 while a check finds no problem, otherwise with 503.

    Parameters
    ----------
    check
        The check.
    unwatched
        A function that returns the namespaces that are not watched, with the reasons. They are
        part of the response.

    Examples
    --------
    >>> probe_handler(lambda: None)({}).status
    200
    """

    def handle(_: Headers) -> Response:
        problem = check()
        more = {"unwatched": names} if (names := unwatched()) else {}
        return status_response(503 if problem else 200, problem or "ok", **more)

    return handle


def metrics_handler(parts: Callable[[], Sequence[bytes]]) -> Handler:
    """Return a handler that responds with a text in Prometheus' format.

    Parameters
    ----------
    parts
        A function that returns the text in parts. It is called for each scrape.
    """
    return lambda _: Response(200, CONTENT_TYPE_PLAIN_0_0_4, parts())


class HttpServer:
    """An HTTP server with a handler for each path.

    Parameters
    ----------
    port
        The port to listen on. 0 takes a free port.
    handlers
        The handlers by path, such as ``/metrics``.
    tls
        The folder with the certificate (`tls.crt`) and the key (`tls.key`). They are read again for
        each connection once they have changed. None: plain HTTP.
    """

    def __init__(self, port: int, handlers: Mapping[str, Handler], tls: Path | None = None) -> None:
        class RequestHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                response = _respond(handlers, self.path.partition("?")[0], self.headers)
                self.send_response(response.status)
                self.send_header("Content-Type", response.content_type)
                self.send_header("Content-Length", str(sum(map(len, response.body))))
                self.end_headers()
                for block in _blocks(response.body):
                    self.wfile.write(block)

            def log_message(self, *_: object) -> None:
                """Log nothing: a line for each probe would fill the log."""

        self._server = BoundedServer(port, RequestHandler, _Tls(tls).wrap if tls else None)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        """Start serving in a thread."""
        self._server.start()

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self._server.stop()


class _Tls:
    """A TLS context that follows the files of the certificate."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "tls.crt", folder / "tls.key"
        self._read_at: tuple[float, ...] = ()
        self._context: ssl.SSLContext | None = None

    def wrap(self, connection: socket.socket) -> socket.socket:
        """Return a connection whose handshake follows with the first read, in its own thread."""
        try:
            context = self._current_context()
        except (OSError, ValueError) as error:
            log.warning("the certificate of the metrics cannot be read: %s", error)
            raise  # the server continues with the next connection
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def _current_context(self) -> ssl.SSLContext:
        """Return a context with the certificate that the files have now."""
        changed = tuple(file.stat().st_mtime for file in self._files)
        if self._context is None or changed != self._read_at:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(*self._files)
            self._context, self._read_at = context, changed
        return self._context


def _blocks(parts: Sequence[bytes]) -> Iterator[bytes | bytearray]:
    """Yield parts together, so that thousands of small ones take few system calls."""
    block = bytearray()
    for part in parts:
        block += part
        if len(block) >= _BLOCK_BYTES:
            yield block
            block.clear()
    yield block


def _respond(handlers: Mapping[str, Handler], path: str, headers: Headers) -> Response:
    handler = handlers.get(path)
    if handler is None:
        return status_response(404, "no such page")
    try:
        return handler(headers)
    except Exception:  # the client must receive an error, and the log the cause
        log.exception("the request for %s failed", path)
        return status_response(500, "failed: see the operator's log")


def status_response(status: int, text: str, **more: Any) -> Response:
    """Return a response that consists of a status in words.

    Parameters
    ----------
    status
        The HTTP status.
    text
        The status in words.
    more
        Further fields of the body.
    """
    body = json.dumps({"status": text, **more}).encode()
    return Response(status, "application/json", (body,))
