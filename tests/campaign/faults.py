"""The faults that are armed at a moment: what happens to a request, a response or a watch event.

A fault applies to a number of requests or events, or for some seconds. :meth:`Faults.heal` ends
them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.campaign.requests import Cut, Reply, Request, failure_status, refusal

Matcher = Callable[[Request], bool]
#: Resources whose lists may be answered from an old snapshot.
_LISTED = ("emotionevolutions", "jobs")


def any_request(request: Request) -> bool:
    """Match each request that is not about the Lease."""
    return not request.is_about_lease


def is_about_lease(request: Request) -> bool:
    """Match the requests about the Lease."""
    return request.is_about_lease


@dataclass
class Window:
    """A fault of requests.

    Attributes
    ----------
    effect
        What happens: `refuse`, `cut`, `slow`, `stale`, or `no-events` (a watch ends at once).
    matches
        The requests that it applies to.
    until
        The time at which it ends (monotonic).
    left
        The number of requests that it still applies to.
    label
        The perturbation that it belongs to.
    """

    effect: str
    matches: Matcher
    until: float
    left: int = 10**9
    code: int = 0
    seconds: float = 0.0
    retry_after: int | None = None
    label: str = ""


@dataclass
class StreamFault:
    """A fault of watch events: `drop`, `twice`, `delay`, `mute`, `bookmarks`, `gone`, `error` or
    `close`."""

    effect: str
    until: float
    resource: str = ""
    left: int = 10**9
    seconds: float = 0.0
    code: int = 0
    label: str = ""


@dataclass
class Faults:
    """All armed faults. Thread-safe."""

    before_write: Callable[[int], None] = lambda _: None
    """Called with the number of each write before it is forwarded. It may raise Cut."""
    after_write: Callable[[int], None] = lambda _: None
    """Called after the server has processed a write. It may raise Cut: the reply is lost."""
    windows: list[Window] = field(default_factory=list)
    streams: list[StreamFault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often each effect took place."""
    took_place: list[str] = field(default_factory=list)
    """The label of each fault that took place at least once."""
    writes: list[tuple[float, str, str]] = field(default_factory=list)
    """The time, method and path of each write that was forwarded."""
    requests: list[tuple[float, str]] = field(default_factory=list)
    """The time and the path of each request."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: dict[str, list[bytes]] = {}
        self._number = 0

    def heal(self) -> None:
        """End all faults."""
        with self._lock:
            self.windows.clear()
            self.streams.clear()

    def add(self, window: Window) -> None:
        """Arm a fault of requests."""
        with self._lock:
            self.windows.append(window)

    def add_stream(self, fault: StreamFault) -> None:
        """Arm a fault of watch events."""
        with self._lock:
            self.streams.append(fault)

    def number(self, request: Request) -> int | None:
        """Return the number of a write, and count it; None for other requests."""
        with self._lock:
            now = time.monotonic()
            if request.is_about_lease:
                return None
            self.requests.append((now, request.path))
            if request.method in ("GET", "HEAD"):
                return None
            self.writes.append((now, request.method, request.path))
            self._number += 1
            return self._number - 1

    def before(self, request: Request) -> Reply | None:
        """Return a response instead of the server's, or None; wait if a request is slow.

        Raises
        ------
        Cut
            If the connection is to be closed.
        """
        if request.write is not None:
            self.before_write(request.write)
        for window in self._taken(request):
            if window.effect == "stale" and not self._oldest(request):
                continue
            if window.effect == "no-events" and not request.is_watch:
                continue
            self._note(window)
            match window.effect:
                case "slow":
                    time.sleep(window.seconds)
                case "cut":
                    raise Cut
                case "refuse":
                    text = f"{request.method} {request.path}: refused by the campaign"
                    return refusal(window.code, text, window.retry_after)
                case "stale":
                    return Reply(200, self._oldest(request) or b"")
                case "no-events":
                    return Reply(200, b"")
        return None

    def after(self, request: Request, status: int, body: bytes) -> None:
        """Note a response; raise Cut if it is to be lost."""
        if request.is_list and request.resource in _LISTED and status == 200:
            with self._lock:
                kept = self._snapshots.setdefault(self._list_key(request), [])
                kept.append(body)
                del kept[1:-6]  # the first one, and the last ones
        if request.write is not None:
            self.after_write(request.write)

    def event(self, request: Request, line: bytes) -> list[bytes]:
        """Return the lines that a watch event becomes.

        Raises
        ------
        Cut
            If the stream is to be closed.
        """
        fault = self._stream_fault(request, line)
        if fault is None:
            return [line]
        self._note(fault)
        match fault.effect:
            case "twice":
                return [line, line]
            case "delay":
                time.sleep(min(fault.seconds, max(0.0, fault.until - time.monotonic())))
                return [line]
            case "close":
                raise Cut
            case "gone":
                return [_error_event(410, "too old resource version")]
            case "error":
                return [_error_event(fault.code, "an error in the stream")]
        return []  # drop, mute, bookmarks

    def _note(self, fault: Window | StreamFault) -> None:
        """Count an effect; its perturbation has taken place."""
        with self._lock:
            self.counts[fault.effect] += 1
            if fault.label:
                self.took_place.append(fault.label)
                fault.label = ""

    def _stream_fault(self, request: Request, line: bytes) -> StreamFault | None:
        now = time.monotonic()
        bookmark = b'"type":"BOOKMARK"' in line[:60]
        with self._lock:
            self.streams = [f for f in self.streams if f.until > now and f.left > 0]
            for fault in self.streams:
                if fault.resource not in ("", request.resource):
                    continue
                if bookmark and fault.effect != "mute":
                    continue
                fault.left -= 1
                return fault
        return None

    def _taken(self, request: Request) -> list[Window]:
        now = time.monotonic()
        with self._lock:
            self.windows = [w for w in self.windows if w.until > now and w.left > 0]
            taken = [window for window in self.windows if window.matches(request)]
            for window in taken:
                window.left -= 1
        return taken

    def _oldest(self, request: Request) -> bytes | None:
        if not request.is_list or request.resource not in _LISTED:
            return None
        with self._lock:
            kept = self._snapshots.get(self._list_key(request))
        return kept[0] if kept else None

    @staticmethod
    def _list_key(request: Request) -> str:
        return f"{request.path}?{sorted(request.query.items())}"


def _error_event(code: int, message: str) -> bytes:
    event = {"type": "ERROR", "object": failure_status(code, message)}
    return json.dumps(event).encode()
