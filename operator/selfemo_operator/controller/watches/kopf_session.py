"""The HTTP session through which kopf reads evolutions. kopf sees their identities alone.

kopf parses each object that it lists or watches. Whoever may create an EmotionEvolution decides how
large and how deeply nested it is. So this session asks for metadata, and cuts each object down to
its name, namespace, uid and version before kopf parses it. It also makes a pause before a watch
whose predecessor ended at once, which kopf does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import kopf
from pydantic_core import to_json
from yarl import URL

from selfemo_api.api_model import API_VERSION
from selfemo_operator.controller.caches.evolution_text import (
    METADATA_EVENT,
    METADATA_LIST,
    Identity,
    identities,
    identity_in,
    identity_object,
    parse_event,
)
from selfemo_operator.controller.kube.backoff import backoff_seconds
from selfemo_operator.controller.kube.list_watch import (
    FIRST_BACKOFF,
    MAX_BACKOFF,
    SHORT_STREAM_SECONDS,
)
from selfemo_operator.controller.objects.names import PLURAL

Json = dict[str, Any]

#: Bytes of a watch that are read at a time.
_CHUNK_BYTES = 64 * 2**10
#: The code with which kopf lists the objects again. It ends after an ERROR event with another one.
_GONE = 410


class Backoffs:
    """The pauses between the attempts of a request, in seconds. They never end.

    kopf ends the process after its last attempt. A namespace without rights must not do that.
    """

    def __iter__(self) -> Iterator[float]:
        """Yield the pause before each further attempt."""
        for failures in count(1):
            yield backoff_seconds(failures, FIRST_BACKOFF, MAX_BACKOFF)


@dataclass
class StreamHealth:
    """What the requests of one watch have shown."""

    report: Callable[[str], None]
    """A function that is called with the present problem of the watch; empty: there is none."""
    on_response: Callable[[str, int], None] = lambda _verb, _status: None
    """A function that is called with the verb and status of each request; 0: no response."""
    started: float = float("-inf")
    """The start of the last stream (monotonic)."""
    short_streams: int = 0
    """The number of streams in a row that ended too early."""
    traces: aiohttp.TraceConfig = field(default_factory=aiohttp.TraceConfig)
    """The hooks of the session that these requests belong to."""

    def __post_init__(self) -> None:
        self.traces.on_request_start.append(self._before)
        self.traces.on_request_end.append(self._after)
        self.traces.on_request_exception.append(self._failed)

    async def _before(self, _session: aiohttp.ClientSession, _context: Any, request: Any) -> None:
        if not _is_evolutions(request.url):
            return
        if not _is_watch(request.url):
            request.headers["Accept"] = METADATA_LIST
            return
        request.headers["Accept"] = METADATA_EVENT
        early = time.monotonic() - self.started < SHORT_STREAM_SECONDS
        self.short_streams = self.short_streams + 1 if early else 0
        if early:
            await asyncio.sleep(backoff_seconds(self.short_streams, FIRST_BACKOFF, MAX_BACKOFF))
        self.started = time.monotonic()

    async def _after(self, _session: aiohttp.ClientSession, _context: Any, request: Any) -> None:
        self.on_response(_verb(request.url), request.response.status)
        if _is_evolutions(request.url):
            status = request.response.status
            self.report("" if status == 200 else f"{status} {request.response.reason}")

    async def _failed(self, _session: aiohttp.ClientSession, _context: Any, request: Any) -> None:
        error = request.exception
        if isinstance(error, asyncio.CancelledError):
            return  # the watch was stopped
        self.on_response(_verb(request.url), 0)
        if _is_evolutions(request.url):
            self.report(" ".join(f"{type(error).__name__}: {error}".split()))


class IdentityStream:
    """The lines of a watch, of which each has the identity of its object alone.

    Parameters
    ----------
    content
        The content of the response.
    report
        A function that is called with the message of an ERROR event.
    is_news
        A function that returns whether kopf must see a version. Of the others it sees a bookmark.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        report: Callable[[str], None],
        is_news: Callable[[Identity], bool],
    ) -> None:
        self._content = content
        self._report = report
        self._is_news = is_news

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the content, which aiohttp uses when the response is closed."""
        return getattr(self._content, name)

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        """Yield lines. kopf joins and splits them again.

        Parameters
        ----------
        _size
            The bytes that kopf would read at a time.
        """
        buffer = bytearray()
        async for chunk in self._content.iter_chunked(_CHUNK_BYTES):
            searched = len(buffer)
            buffer += chunk
            while (end := buffer.find(b"\n", searched)) >= 0:
                line, searched = bytes(buffer[:end]), 0
                del buffer[: end + 1]
                if line:
                    yield self._reduced(line)

    def _reduced(self, line: bytes) -> bytes:
        try:
            event = parse_event(line)
        except ValueError as error:
            raise aiohttp.ClientPayloadError(f"a line of the watch is not JSON: {error}") from error
        if event["type"] == "ERROR":
            problem = event["object"]
            if problem.get("code") != _GONE:
                self._report(
                    f"{problem.get('code')} {problem.get('reason')}: {problem.get('message')}"
                )
            event = {"type": "ERROR", "object": {**problem, "code": _GONE}}
        elif event["type"] in ("ADDED", "MODIFIED") and not self._is_news(
            identity_in(event["object"])
        ):
            event = {**event, "type": "BOOKMARK"}  # kopf continues from its version
        return to_json(event) + b"\n"


def session_for(
    info: kopf.ConnectionInfo,
    health: StreamHealth,
    is_news: Callable[[Identity], bool] = lambda _: True,
) -> kopf.AiohttpSession:
    """Return the session of one watch. It must be called in the event loop of the watch.

    Parameters
    ----------
    info
        The address of the API server, and the credentials.
    health
        The object that observes the requests.
    is_news
        A function that returns whether kopf must see a version of an evolution in a watch. kopf
        takes a millisecond for each, and most are those that the operator writes itself.
    """

    class Response(aiohttp.ClientResponse):
        """A response in which evolutions are identities."""

        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.status == 200 and _is_evolutions(self.url) and _is_watch(self.url):
                stream = IdentityStream(self.content, health.report, is_news)
                self.content = stream  # type: ignore[assignment]
            return self

        async def json(self, **options: Any) -> Any:
            if self.status != 200 or not _is_evolutions(self.url):
                return await super().json(**options)
            return _identity_list(await self.read())

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        trace_configs=[health.traces],
        response_class=Response,
    )
    return kopf.AiohttpSession(
        server=info.server,
        priority=info.priority,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
        aiohttp_session=session,
    )


def _identity_list(text: bytes) -> Json:
    """Return a list with the identities of its objects. Raises ClientPayloadError."""
    try:
        items, version, token = identities(text)
    except (ValueError, KeyError, RecursionError) as error:
        raise aiohttp.ClientPayloadError(f"the list cannot be read: {error}") from error
    return {
        "apiVersion": API_VERSION,
        "kind": "EmotionEvolutionList",
        "metadata": {"resourceVersion": version, "continue": token},
        "items": [identity_object(item) for item in items],
    }


def _is_evolutions(url: URL) -> bool:
    return url.path.endswith(f"/{PLURAL}")


def _is_watch(url: URL) -> bool:
    return "watch" in url.query


def _verb(url: URL) -> str:
    return "WATCH" if _is_watch(url) else "GET"
