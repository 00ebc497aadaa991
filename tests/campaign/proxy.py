"""The proxy between the operator and the API server, in which the faults take place."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3

from selfemo_operator.controller.kube.client import KubeClient
from tests.campaign.faults import Faults
from tests.campaign.requests import Cut, Reply, Request, parse
from tests.integration.operator.api import write_kubeconfig

_FORWARDED = ("content-type", "accept", "user-agent")


class FaultProxy:
    """Forwards requests with the rights of a client, and lets faults take place.

    Parameters
    ----------
    kube
        The client whose connections are used.
    faults
        The armed faults.
    """

    def __init__(self, kube: KubeClient, faults: Faults) -> None:
        self.faults = faults
        client = kube._client
        self.pool: urllib3.PoolManager = client.rest_client.pool_manager
        self.host: str = client.configuration.host
        self._connections: set[socket.socket] = set()
        self._streams: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_class(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def kubeconfig(self, to: Path) -> Path:
        """Write a kubeconfig for this proxy; return its path."""
        return write_kubeconfig(self.url, to)

    def reset_connections(self) -> None:
        """Break all connections of the operator, watches included."""
        with self._lock:
            connections, streams = list(self._connections), list(self._streams)
        for connection in connections:
            _shut(connection)
        for stream in streams:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                stream.shutdown()

    def stop(self) -> None:
        """Stop serving, and break all connections."""
        self._server.shutdown()
        self._server.server_close()
        self.reset_connections()

    def opened(self, connection: socket.socket) -> None:
        """Note a connection."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)

    @contextlib.contextmanager
    def streaming(self, response: urllib3.BaseHTTPResponse) -> Iterator[None]:
        """Let :meth:`reset_connections` end a watch at the API server, too."""
        with self._lock:
            self._streams.add(response)
        try:
            yield
        finally:
            with self._lock:
                self._streams.discard(response)

    def forward(
        self, request: Request, headers: dict[str, str], target: str
    ) -> urllib3.BaseHTTPResponse:
        """Send a request to the API server."""
        return self.pool.request(
            request.method,
            self.host + target,
            body=request.body,
            headers=headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=400),
            retries=False,
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a connection breaks whenever an operator is killed."""


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _handler_class(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 400

        def setup(self) -> None:
            super().setup()
            proxy.opened(self.connection)

        def finish(self) -> None:
            proxy.closed(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            try:
                self._forward()
            except (Cut, OSError, urllib3.exceptions.HTTPError, http.client.HTTPException):
                self.close_connection = True
                _shut(self.connection)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def _forward(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = parse(self.command, self.path, self.rfile.read(length) if length else None)
            request = dataclasses.replace(request, write=proxy.faults.number(request))
            reply = proxy.faults.before(request)
            if reply is not None:
                self._send(reply)
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() in _FORWARDED}
            response = proxy.forward(request, headers, self.path)
            try:
                if request.is_watch and response.status == 200:
                    with proxy.streaming(response):
                        self._stream(request, response)
                    return
                body = response.data
            finally:
                response.close()
                response.release_conn()
            proxy.faults.after(request, response.status, body)
            after = response.headers.get("Retry-After", "")
            self._send(Reply(response.status, body, int(after) if after.isdigit() else None))

        def _send(self, reply: Reply) -> None:
            lines = [
                f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, '')}",
                "Content-Type: application/json",
                f"Content-Length: {len(reply.body)}",
            ]
            if reply.retry_after is not None:
                lines.append(f"Retry-After: {reply.retry_after}")
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode() + reply.body)

        def _stream(self, request: Request, response: urllib3.BaseHTTPResponse) -> None:
            self.close_connection = True
            head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            self.wfile.write((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
            pending = b""
            for chunk in response.stream(None):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    for out in proxy.faults.event(request, line) if line else []:
                        text = out + b"\n"
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler
