"""The HTTP server of all metrics and probes: few threads, whatever clients do.

The server of prometheus_client is not used: it starts a thread for each connection, without a
limit, and waits for the rest of a request indefinitely.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

#: The maximum number of concurrent connections, each with a thread. Prometheus and the kubelet have
#: one each. An additional connection closes the oldest one.
MAX_CONNECTIONS = 32
#: Seconds after which a connection is closed, whatever it does. A scrape takes well below a second.
CONNECTION_SECONDS = 20.0
#: Seconds without a byte after which a connection is closed.
SILENT_SECONDS = 5.0


class BoundedServer(ThreadingHTTPServer):
    """An HTTP server with limits on connections and on the time that each may take.

    It listens on all addresses: the kubelet and Prometheus connect from outside the pod.

    Parameters
    ----------
    port
        The port to listen on. If 0, a free port is used.
    handler
        The class that handles a request.
    wrap
        Returns the connection that is read, for example with TLS. Its OSError or ValueError closes
        the connection. If None, the connection itself is read.

    Raises
    ------
    OSError
        If the port cannot be listened on.
    OverflowError
        If there is no such port.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        port: int,
        handler: type[BaseHTTPRequestHandler],
        wrap: Callable[[socket.socket], socket.socket] | None = None,
    ) -> None:
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._wrap = wrap
        if socket.has_dualstack_ipv6():  # in a cluster with IPv6, the kubelet may connect over it
            self.address_family = socket.AF_INET6
        super().__init__(("", port), handler)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def start(self) -> None:
        """Start serving in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        """Bind the port, of both IP families if there are two."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)  # not HTTPServer's, which asks DNS for the name of the address

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. An OSError ends only this connection."""
        connection, address = super().get_request()
        connection.settimeout(SILENT_SECONDS)
        if self._wrap is not None:
            try:
                connection = self._wrap(connection)
            except (OSError, ValueError) as error:
                connection.close()
                raise OSError(str(error)) from error  # the only error that the server survives
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
