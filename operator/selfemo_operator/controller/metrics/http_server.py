"""The operator's two small HTTP servers: one for the kubelet's probes, one for Prometheus.

The server of prometheus_client is not used: it would render every series again at each scrape.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

log = logging.getLogger(__name__)


class Response(NamedTuple):
    """The response to a request."""

    status: int
    content_type: str
    body: bytes


Handler = Callable[[], Response]
Check = Callable[[], str | None]
"""Returns a description of the problem, or None."""


def probe_handler(check: Check) -> Handler:
    """Return a handler that responds with 200 while a check finds no problem, otherwise with 503.

    >>> probe_handler(lambda: None)().status
    200
    """

    def handle() -> Response:
        problem = check()
        return _status_response(503 if problem else 200, problem or "ok")

    return handle


def metrics_handler(text: Callable[[], bytes]) -> Handler:
    """Return a handler that responds with a text in Prometheus' format.

    Parameters
    ----------
    text
        A function that returns the text. It is called for each scrape.
    """
    return lambda: Response(200, CONTENT_TYPE_PLAIN_0_0_4, text())


class HttpServer:
    """An HTTP server with a handler for each path.

    Parameters
    ----------
    port
        The port to listen on. 0 takes a free port.
    handlers
        The handlers by path, such as ``/metrics``.
    """

    def __init__(self, port: int, handlers: Mapping[str, Handler]) -> None:
        class RequestHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                response = _respond(handlers, self.path.partition("?")[0])
                self.send_response(response.status)
                self.send_header("Content-Type", response.content_type)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            def log_message(self, *_: object) -> None:
                """Log nothing: a line for each probe would fill the log."""

        # the kubelet and Prometheus connect from outside the pod
        self._server = ThreadingHTTPServer(("", port), RequestHandler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Start serving in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self._server.shutdown()
        self._server.server_close()


def _respond(handlers: Mapping[str, Handler], path: str) -> Response:
    handler = handlers.get(path)
    if handler is None:
        return _status_response(404, "no such page")
    try:
        return handler()
    except Exception:  # the client must receive an error, and the log the cause
        log.exception("the request for %s failed", path)
        return _status_response(500, "failed: see the operator's log")


def _status_response(status: int, text: str) -> Response:
    return Response(status, "application/json", json.dumps({"status": text}).encode())
