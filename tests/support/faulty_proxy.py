"""A proxy in front of a real S3 server that makes chosen requests fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer

from tests.support.s3_proxy import ForwardingHandler

#: The faults of a request.
PASS, LOSE_REPLY, CONFLICT, BUSY, CUT_BODY = "pass", "lose reply", "409", "503", "cut body"
DENIED, NOT_IMPLEMENTED, NO_UPLOAD = "403", "501", "404"
#: The codes of the faults that the proxy answers itself.
_CODES = {
    CONFLICT: "ConditionalRequestConflict",
    BUSY: "SlowDown",
    DENIED: "AccessDenied",
    NOT_IMPLEMENTED: "NotImplemented",
    NO_UPLOAD: "NoSuchUpload",
}


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

        class Handler(ForwardingHandler):
            def act(self) -> None:
                with lock:
                    count = sum(1 for method, _ in proxy.seen if method == self.command)
                    fault = plan(self.command, self.path, count)
                    proxy.seen.append((self.command, fault))
                body = self.body()
                if fault in _CODES:
                    return self.refuse(int(fault), _CODES[fault])
                reply, data = self.forward(body)
                if fault == LOSE_REPLY:
                    return self.connection.close()
                kept = data[: len(data) // 2] if fault == CUT_BODY else data
                length = int(reply.headers.get("Content-Length", len(data)))
                return self.answer(reply.status, dict(reply.headers), kept, length)

        Handler.port = port
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
