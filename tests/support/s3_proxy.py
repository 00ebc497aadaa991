"""What the proxies in front of an S3 server have in common: they forward, answer and refuse."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler

#: Headers of a reply that the proxy sets itself.
_OWN = {"content-length", "connection", "transfer-encoding"}


class ForwardingHandler(BaseHTTPRequestHandler):
    """Handles a request with :meth:`act`, and then closes its connection."""

    protocol_version = "HTTP/1.1"
    #: The port of the server on the loopback interface.
    port: int

    def act(self) -> None:
        """Answer the request, or leave it without an answer."""
        raise NotImplementedError

    def body(self) -> bytes:
        """Return the body of the request."""
        self.close_connection = True
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Send the request to the server; return its reply, and the body of the reply."""
        headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        upstream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        upstream.request(self.command, self.path, body, headers)
        reply = upstream.getresponse()
        data = reply.read()
        upstream.close()
        return reply, data

    def answer(self, status: int, headers: Mapping[str, str], data: bytes, length: int) -> None:
        """Send a reply that announces a length, which may be another one than that of its body."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        """Send an error as S3 does."""
        text = f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode()
        self.answer(status, {}, text, len(text))

    def do_GET(self) -> None:
        """Handle a request of any method."""
        self.act()

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""
