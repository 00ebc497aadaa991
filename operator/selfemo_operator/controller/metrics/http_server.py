"""The operator's two small HTTP servers: one for the kubelet's probes, one for Prometheus.

The server of prometheus_client is not used: it would render every series again at each scrape, and
start threads without a bound.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

log = logging.getLogger(__name__)

#: The most connections at the same time, each with a thread. Prometheus and the kubelet have one
#: each. A further connection closes the oldest one.
MAX_CONNECTIONS = 32
#: Seconds after which a connection is closed, whatever it does. A scrape takes well below a second.
CONNECTION_SECONDS = 20.0
#: Seconds without a byte after which a connection is closed.
SILENT_SECONDS = 5.0


class Response(NamedTuple):
    """The response to a request."""

    status: int
    content_type: str
    body: bytes


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


def metrics_handler(text: Callable[[], bytes]) -> Handler:
    """Return a handler that responds with a text in Prometheus' format.

    Parameters
    ----------
    text
        A function that returns the text. It is called for each scrape.
    """
    return lambda _: Response(200, CONTENT_TYPE_PLAIN_0_0_4, text())


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
            @property
            def timeout(self) -> float:  # type: ignore[override]
                return SILENT_SECONDS

            def do_GET(self) -> None:
                response = _respond(handlers, self.path.partition("?")[0], self.headers)
                self.send_response(response.status)
                self.send_header("Content-Type", response.content_type)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            def log_message(self, *_: object) -> None:
                """Log nothing: a line for each probe would fill the log."""

        # the kubelet and Prometheus connect from outside the pod
        self._server = _BoundedServer(("", port), RequestHandler, tls)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Start serving in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self._server.shutdown()
        self._server.server_close()


class _BoundedServer(ThreadingHTTPServer):
    """A server with a bound on connections, and on the time that each may take."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: Any, tls: Path | None) -> None:
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._tls = _Tls(tls) if tls is not None else None
        if socket.has_dualstack_ipv6():  # in a cluster with IPv6, the kubelet may connect over it
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind the port, of both IP families if there are two."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)  # not HTTPServer's, which asks DNS for the name of the address

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(SILENT_SECONDS)
        if self._tls is not None:
            try:
                connection = self._tls.wrap(connection)
            except (OSError, ValueError) as error:
                connection.close()
                log.warning("the certificate of the metrics cannot be read: %s", error)
                raise OSError(str(error)) from error  # the server goes on with the next connection
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; close the oldest one if there are too many."""
        with self._lock:
            excess = list(self._open)[: max(0, len(self._open) - MAX_CONNECTIONS + 1)]
            for connection in excess:
                self._abort(connection)
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that its thread has served."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close the connections that have taken too long. Called twice a second."""
        with self._lock:
            oldest = time.monotonic() - CONNECTION_SECONDS
            for connection in [c for c, since in self._open.items() if since < oldest]:
                self._abort(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients that close early, or are closed, are usual."""

    def _abort(self, connection: socket.socket) -> None:
        """Let the thread of a connection see its end. The thread then closes it."""
        self._open.pop(connection, None)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Tls:
    """A TLS context that follows the files of the certificate."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "tls.crt", folder / "tls.key"
        self._read_at: tuple[float, ...] = ()
        self._context: ssl.SSLContext | None = None

    def wrap(self, connection: socket.socket) -> socket.socket:
        """Return a connection whose handshake follows with the first read, in its own thread."""
        changed = tuple(file.stat().st_mtime for file in self._files)
        if self._context is None or changed != self._read_at:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(*self._files)
            self._context, self._read_at = context, changed
        return self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )


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
    return Response(status, "application/json", json.dumps({"status": text, **more}).encode())
