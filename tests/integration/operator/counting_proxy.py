"""An HTTP proxy in front of the API server that counts the operator's requests.

It can interrupt any write: before it reaches the server, or after the server has processed it and
before the operator receives the response.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3

from selfemo_operator.controller.kube.client import KubeClient
from tests.integration.operator.api import write_kubeconfig

WRITES = ("POST", "PUT", "PATCH", "DELETE")


class CountingProxy:
    """Forwards requests with the rights of a client.

    Parameters
    ----------
    kube
        The client whose connections are used.

    Attributes
    ----------
    writes
        The method and the path of each write, in order.
    reads
        The paths of the other requests.
    """

    def __init__(self, kube: KubeClient) -> None:
        self.writes: list[tuple[str, str]] = []
        self.reads: list[str] = []
        self.before: Callable[[int], None] = lambda _: None
        """Called with the number of a write (from 0) before it is forwarded."""
        self.after: Callable[[int], None] = lambda _: None
        """Called after the server has processed a write, before the response is sent."""
        self._lock = threading.Lock()
        client = kube._client
        pool, host = client.rest_client.pool_manager, client.configuration.host
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._forward()

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def _forward(self) -> None:
                number = outer._count(self.command, self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                if number is not None:
                    outer.before(number)
                names = ("content-type", "accept", "user-agent")
                headers = {k: v for k, v in self.headers.items() if k.lower() in names}
                response = pool.request(
                    self.command,
                    host + self.path,
                    body=body,
                    headers=headers,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=5, read=400),
                    retries=False,
                )
                body_read = None
                if number is not None:
                    body_read = response.data
                    outer.after(number)
                self._respond(response, body_read)

            def _respond(self, response: urllib3.BaseHTTPResponse, body: bytes | None) -> None:
                try:
                    self.send_response(response.status)
                    for name in ("Content-Type", "Retry-After"):
                        if name in response.headers:
                            self.send_header(name, response.headers[name])
                    self.send_header("Connection", "close")
                    # otherwise a reader waits for a full buffer, and events are delayed
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for chunk in [body] if body is not None else response.stream(None):
                        if chunk:  # an empty chunk would end the response
                            self._write(chunk)
                    self._write(b"")
                except (OSError, urllib3.exceptions.HTTPError):
                    pass  # the operator has been killed
                finally:
                    response.close()
                    self.close_connection = True

            def _write(self, chunk: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self, to: Path) -> Path:
        """Write a kubeconfig for this proxy; return its path."""
        return write_kubeconfig(self.url, to)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _count(self, method: str, path: str) -> int | None:
        if "/leases" in path:
            return None
        with self._lock:
            if method not in WRITES:
                self.reads.append(path)
                return None
            self.writes.append((method, path.partition("?")[0]))
            return len(self.writes) - 1
