"""kopf gets the identities of evolutions alone, at a bounded pace."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from tests.unit.operator.controller.test_evolution_text import IDENTITY, PARTIAL

from selfemo_operator.controller.caches.evolution_text import (
    METADATA_EVENT,
    METADATA_LIST,
    Identity,
    identity_object,
)
from selfemo_operator.controller.kube.list_watch import MAX_BACKOFF
from selfemo_operator.controller.watches.evolution_watch import kopf_settings
from selfemo_operator.controller.watches.kopf_session import Backoffs, StreamHealth, session_for

Json = dict[str, Any]
PATH = "/apis/selfemo.dev/v1alpha1/namespaces/team/emotionevolutions"
PAGE = (
    b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",'
    b'"metadata":{"resourceVersion":"9"},"items":[' + PARTIAL + b"]}"
)
EVENT = b'{"type":"MODIFIED","object":' + PARTIAL + b"}\n"
ERROR = b'{"type":"ERROR","object":{"code":500,"reason":"InternalError","message":"etcd"}}\n'

Work = Callable[[aiohttp.ClientSession, str], Any]


def with_server(
    handle: Callable[[web.Request], Any],
    work: Work,
    is_news: Callable[[Identity], bool] = lambda _: True,
) -> tuple[Any, list[str]]:
    """Run something with a session to a server; return its result, and what was reported."""
    problems: list[str] = []

    async def run() -> Any:
        application = web.Application()
        application.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        info = kopf.ConnectionInfo(server=f"http://{host}:{port}", token="t")
        session = session_for(info, StreamHealth(problems.append), is_news).aiohttp_session
        try:
            return await work(session, info.server)
        finally:
            await session.close()
            await runner.cleanup()

    return asyncio.run(run()), problems


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    async for line in response.content.iter_chunked(2**20):
        yield json.loads(line)


def test_a_list_has_identities_alone_however_deep_the_fields_of_a_user_are() -> None:
    accepted: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        accepted.append(request.headers["Accept"])
        assert request.headers["Authorization"] == "Bearer t"
        return web.Response(body=PAGE, content_type="application/json")

    async def work(session: aiohttp.ClientSession, server: str) -> Any:
        async with await session.get(server + PATH + "?limit=25") as response:
            return await response.json()

    with pytest.raises(RecursionError):
        json.loads(PAGE)
    listed, problems = with_server(handle, work)
    assert listed["items"] == [identity_object(IDENTITY)]
    assert listed["metadata"] == {"resourceVersion": "9", "continue": ""}
    assert (accepted, problems) == ([METADATA_LIST], [""])


def test_a_watch_has_identities_alone_and_an_error_means_a_new_list() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept"] == METADATA_EVENT
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (EVENT[:100], EVENT[100:] + b"\n" + EVENT, ERROR):
            await response.write(part)
            await asyncio.sleep(0.01)
        return response

    async def work(session: aiohttp.ClientSession, server: str) -> list[Json]:
        async with await session.get(server + PATH + "?watch=true") as response:
            return [event async for event in lines(response)]

    events, problems = with_server(handle, work)
    changed = {"type": "MODIFIED", "object": identity_object(IDENTITY)}
    assert events[:2] == [changed, changed]
    assert events[2]["type"] == "ERROR"
    assert events[2]["object"]["code"] == 410, "kopf lists again"
    assert problems == ["", "500 InternalError: etcd"]


def test_of_a_version_that_is_known_kopf_sees_a_bookmark() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(EVENT + EVENT.replace(b"MODIFIED", b"DELETED"))
        return response

    async def work(session: aiohttp.ClientSession, server: str) -> list[Json]:
        async with await session.get(server + PATH + "?watch=true") as response:
            return [event async for event in lines(response)]

    seen: list[Identity] = []

    def record_only(item: Identity) -> bool:
        seen.append(item)
        return False

    (bookmark, deleted), _ = with_server(handle, work, record_only)
    assert seen == [IDENTITY], "a deletion is never left out"
    assert (bookmark["type"], deleted["type"]) == ("BOOKMARK", "DELETED")
    assert bookmark["object"]["metadata"]["resourceVersion"] == IDENTITY.version


def test_other_resources_are_passed_on_and_refusals_are_told() -> None:
    async def handle(request: web.Request) -> web.Response:
        if request.path.endswith("/emotionevolutions"):
            return web.json_response({"message": "no"}, status=403)
        return web.json_response({"resources": []})

    async def work(session: aiohttp.ClientSession, server: str) -> Any:
        async with await session.get(server + PATH) as refused:
            assert await refused.json() == {"message": "no"}
        async with await session.get(server + "/apis/selfemo.dev/v1alpha1") as response:
            return await response.json()

    assert with_server(handle, work) == ({"resources": []}, ["403 Forbidden"])


def test_a_stream_that_ends_at_once_is_opened_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"")

    async def work(session: aiohttp.ClientSession, server: str) -> None:
        for _ in range(9):
            async with await session.get(server + PATH + "?watch=true") as response:
                assert [event async for event in lines(response)] == []

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    with_server(handle, work)
    waits = [pause for pause in pauses if pause >= 1.0]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_BACKOFF, MAX_BACKOFF, MAX_BACKOFF]


def test_attempts_never_end_and_nothing_kills_the_process() -> None:
    settings = kopf_settings()
    assert isinstance(settings.networking.error_backoffs, Backoffs)
    pauses = list(islice(settings.networking.error_backoffs, 50))
    assert len(pauses) == 50
    assert max(pauses) <= MAX_BACKOFF
    assert settings.process.ultimate_exiting_timeout is None
    assert settings.posting.enabled is False
