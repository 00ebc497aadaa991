"""What the kubelet asks: is the operator alive, is it ready?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Check = Callable[[], str | None]
"""Returns what is wrong, or None."""


class Probes:
    """An HTTP server with ``/livez`` and ``/readyz``.

    Parameters
    ----------
    port
        0 takes a free one.
    checks
        By path.
    """

    def __init__(self, port: int, checks: dict[str, Check]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                check = checks.get(self.path)
                if check is None:
                    self._say(404, "no such page")
                    return
                wrong = check()
                self._say(503 if wrong else 200, wrong or "ok")

            def _say(self, code: int, text: str) -> None:
                body = json.dumps({"status": text}).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a line every ten seconds helps nobody."""

        # the kubelet asks from outside the pod
        self._server = ThreadingHTTPServer(("", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Serve, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
