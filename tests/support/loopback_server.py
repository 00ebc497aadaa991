"""A server of GET and HEAD requests on this machine, for servers with replies of their own."""

from __future__ import annotations

import threading
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

    @property
    def host(self) -> str:
        """The host and the port."""
        return f"127.0.0.1:{self._server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        """Answer a request.

        Parameters
        ----------
        handler
            The handler of the request.
        with_body
            Whether the response has a body: it is a GET request.
        """
        raise NotImplementedError
