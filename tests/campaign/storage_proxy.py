"""A proxy in front of an S3 server whose faults follow a plan, and which may kill the client."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from tests.support.s3_proxy import ForwardingHandler

#: The methods on which each perturbation can act.
KINDS: dict[str, tuple[str, ...]] = {
    "kill-before-write": ("PUT",),
    "kill-after-write": ("PUT",),
    "lost-reply": ("PUT",),
    "conflict": ("PUT",),
    "ignored-condition": ("PUT",),
    "slow-down": ("GET", "PUT", "HEAD"),
    "internal-error": ("GET", "PUT", "HEAD"),
    "expired-token": ("GET", "PUT"),
    "slow": ("GET", "PUT", "HEAD"),
    "short-read": ("GET",),
    "stale-list": ("GET",),
    "overlap": ("GET", "PUT"),
}
_ERRORS = {
    "conflict": (409, "ConditionalRequestConflict"),
    "slow-down": (503, "SlowDown"),
    "internal-error": (500, "InternalError"),
    "expired-token": (400, "ExpiredToken"),
}
_SLOW_SECONDS = 0.5
_NEWEST = re.compile(rb"<Contents>(?:(?!<Contents>).)*</Contents>(?!.*<Contents>)", re.DOTALL)


@dataclass
class Plan:
    """What happens at which request."""

    faults: list[tuple[int, str]] = field(default_factory=list)
    """The number of a request, and the kind of the perturbation from then on, in order."""
    applied: list[str] = field(default_factory=list)
    requests: int = 0
    kill: Callable[[], None] = lambda: None
    """Kills the attempt that runs."""
    put: Callable[[str, bytes], None] = lambda _path, _data: None
    """Writes an object, whatever is there, as a server does that ignores the condition."""
    overlap: Callable[[], None] = lambda: None
    """Starts another attempt beside the one that runs."""

    def next(self, method: str, path: str, *, conditional: bool) -> str:
        """Return the perturbation of a request, or an empty text."""
        self.requests += 1
        if not self.faults or self.faults[0][0] > self.requests:
            return ""
        kind = self.faults[0][1]
        fits = method in KINDS[kind]
        if kind in ("conflict", "ignored-condition"):
            fits = fits and conditional
        if kind == "stale-list":
            fits = fits and "list-type" in path
        if not fits:
            return ""
        self.faults.pop(0)
        self.applied.append(kind)
        return kind


class StorageProxy:
    """Forwards requests to a server on the loopback interface.

    Parameters
    ----------
    port
        The port of the server.
    """

    def __init__(self, port: int) -> None:
        self.plan = Plan()
        proxy, lock = self, threading.Lock()

        class Handler(ForwardingHandler):
            def act(self) -> None:
                conditional = "If-None-Match" in self.headers
                with lock:
                    plan = proxy.plan
                    fault = plan.next(self.command, self.path, conditional=conditional)
                body = self.body()
                if fault == "overlap":
                    plan.overlap()
                if fault == "slow":
                    time.sleep(_SLOW_SECONDS)
                if fault in _ERRORS:
                    return self.refuse(*_ERRORS[fault])
                if fault == "kill-before-write":
                    return plan.kill()
                if fault == "ignored-condition":  # its header is signed: it cannot be left out
                    plan.put(self.path, body)
                    return self.answer(200, {"ETag": '"x"'}, b"", 0)
                reply, data = self.forward(body)
                if fault == "kill-after-write":
                    return plan.kill()
                if fault == "lost-reply":
                    return self.connection.close()
                length = len(data)
                if fault == "stale-list":
                    data = _NEWEST.sub(b"", data)
                    length = len(data)
                if fault == "short-read":
                    data = data[: len(data) // 2]
                if self.command == "HEAD":
                    length = int(reply.headers.get("Content-Length", 0))
                return self.answer(reply.status, dict(reply.headers), data, length)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    return  # the client was killed

        Handler.port = port
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()
