"""An HTTP server on this machine, for servers with replies of their own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LoopbackServer:
    """A server on a free port of 127.0.0.1. It is a context manager."""

    PROTOCOL = "HTTP/1.0"
    """The version of HTTP. With 1.1, connections are kept."""

    def __init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = self.PROTOCOL

            def do_GET(self) -> None:
                server.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                server.answer(self, with_body=False)

            def do_POST(self) -> None:
                server.answer(self, with_body=True)

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Serve HTTPS. Call it before the server is entered.

        Parameters
        ----------
        context
            The context, with a certificate.
        """
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def port(self) -> int:
        """The port."""
        return self._server.server_port

    @property
    def host(self) -> str:
        """The host and the port."""
        return f"127.0.0.1:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        """Answer a request.

        Parameters
        ----------
        handler
            The handler of the request. Its `command` is GET, HEAD or POST.
        with_body
            Whether the response has a body: the request is not HEAD.
        """
        raise NotImplementedError

    @staticmethod
    def send(
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        with_body: bool,
    ) -> None:
        """Send a response.

        Parameters
        ----------
        handler
            The handler of the request.
        status
            The status.
        headers
            The headers. The length of the body is added, unless they have one.
        body
            The body.
        with_body
            Whether the body is sent.
        """
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if with_body:
            handler.wfile.write(body)
