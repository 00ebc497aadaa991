"""A proxy in front of a real S3 server that makes chosen requests fail."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: The faults of a request.
PASS, LOSE_REPLY, CONFLICT, BUSY, CUT_BODY = "pass", "lose reply", "409", "503", "cut body"


class FaultyProxy:
    """Forwards requests to a server on the loopback interface.

    Parameters
    ----------
    port
        The port of the server.
    plan
        A function that returns the fault of a request. Its arguments are the method, the path, and
        the number of earlier requests with that method.

    Attributes
    ----------
    seen
        The method and the fault of each request.
    """

    def __init__(self, port: int, plan: Callable[[str, str, int], str]) -> None:
        self.seen: list[tuple[str, str]] = []
        proxy = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                with lock:
                    count = sum(1 for method, _ in proxy.seen if method == self.command)
                    fault = plan(self.command, self.path, count)
                    proxy.seen.append((self.command, fault))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.close_connection = True
                if fault in {CONFLICT, BUSY}:
                    code = "ConditionalRequestConflict" if fault == CONFLICT else "SlowDown"
                    text = f"<Error><Code>{code}</Code><Message>x</Message></Error>".encode()
                    self._answer(int(fault), {}, text, len(text))
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                upstream.request(self.command, self.path, body, headers)
                reply = upstream.getresponse()
                data = reply.read()
                if fault == LOSE_REPLY:
                    self.connection.close()
                    return
                kept = data[: len(data) // 2] if fault == CUT_BODY else data
                length = int(reply.headers.get("Content-Length", len(data)))
                self._answer(reply.status, dict(reply.headers), kept, length)

            def _answer(
                self, status: int, headers: dict[str, str], data: bytes, length: int
            ) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _do

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
