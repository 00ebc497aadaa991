"""The operator's two small HTTP servers: what the kubelet asks, and what Prometheus asks.

prometheus_client's own server would write each line anew at each scrape.
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


class Answer(NamedTuple):
    """What a page says."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Answer]
Check = Callable[[], str | None]
"""Returns what is wrong, or None."""


def probe_handler(check: Check) -> Page:
    """Return the page of a check: 200 while nothing is wrong."""

    def page() -> Answer:
        wrong = check()
        return _status(503 if wrong else 200, wrong or "ok")

    return page


def metrics_handler(text: Callable[[], bytes]) -> Page:
    """Return the page of a text in Prometheus' format, which is made anew at each scrape."""
    return lambda: Answer(200, CONTENT_TYPE_PLAIN_0_0_4, text())


class HttpServer:
    """An HTTP server with a few pages.

    Parameters
    ----------
    port
        0 takes a free one.
    pages
        By path.
    """

    def __init__(self, port: int, pages: Mapping[str, Page]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = _answer(pages, self.path.partition("?")[0])
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a line every ten seconds helps nobody."""

        # kubelet and Prometheus ask from outside the pod
        self._server = ThreadingHTTPServer(("", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Serve, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()


def _answer(pages: Mapping[str, Page], path: str) -> Answer:
    page = pages.get(path)
    if page is None:
        return _status(404, "no such page")
    try:
        return page()
    except Exception:  # whoever asks must hear that it failed, and the log why
        log.exception("%s cannot be answered", path)
        return _status(500, "failed: see the operator's log")


def _status(status: int, text: str) -> Answer:
    return Answer(status, "application/json", json.dumps({"status": text}).encode())
