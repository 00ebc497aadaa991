"""A server for this machine refuses the requests of foreign pages, and those without its key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from selfemo_jobs.use_commands.request_checks import (
    ENV_HOSTS,
    ENV_KEY,
    OPEN_PATHS,
    KnownHosts,
    OwnPages,
    RequiredKey,
)

HERE = "http://localhost:7860"
EVIL = "http://evil.example:7860"


def client_of(kind: Any, base: str = HERE) -> TestClient:
    async def answer(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("ANSWER")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("ANSWER")

    paths = ("/", "/v1/models", "/invocations", "/tokenize", *OPEN_PATHS)
    routes = [Route(path, answer, methods=["GET", "POST"]) for path in paths]
    app = Starlette(routes=[*routes, WebSocketRoute("/ws", talk)], middleware=[Middleware(kind)])
    return TestClient(app, base_url=base)


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "127.8.8.8:1", "[::1]:7860"])
def test_this_machine_is_answered(host: str) -> None:
    for kind in (KnownHosts, OwnPages):
        assert client_of(kind).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:7860", "10.0.0.8", "", "["]
)
def test_another_name_is_refused(host: str) -> None:
    for kind in (KnownHosts, OwnPages):
        response = client_of(kind).post("/invocations", headers={"host": host})
        assert response.status_code == 403
        assert "--allow-host" in response.text


def test_a_page_of_another_origin_is_refused() -> None:
    client = client_of(OwnPages)
    origins = (HERE, EVIL, "http://localhost:3000", "null", "http://[")
    statuses = [client.post("/", headers={"origin": origin}).status_code for origin in origins]
    assert statuses == [200, 403, 403, 403, 403]
    assert client_of(KnownHosts).post("/", headers={"origin": EVIL}).status_code == 200


def test_a_name_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_HOSTS, "Models.example:443, evil.example")
    assert client_of(OwnPages, EVIL).get("/").status_code == 200
    assert client_of(OwnPages).get("/", headers={"origin": EVIL}).status_code == 200
    assert client_of(OwnPages, "http://models.example").get("/").status_code == 200


def test_a_web_socket_of_another_page_is_closed() -> None:
    client = client_of(OwnPages)
    with client.websocket_connect("/ws", headers={"host": "localhost:7860"}) as socket:
        assert socket.receive_text() == "ANSWER"
    for headers in ({"host": "evil.example"}, {"host": "localhost", "origin": EVIL}):
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/ws", headers=headers),
        ):
            pass


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/tokenize"])
def test_each_path_requires_the_key(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_KEY, "secret")
    client = client_of(RequiredKey)
    given = (None, "Bearer wrong", "Basic secret", "Bearer secret", "bearer secret")
    statuses = [
        client.post(path, headers={} if key is None else {"authorization": key}).status_code
        for key in given
    ]
    assert statuses == [401, 401, 401, 200, 200]


def test_probes_and_metrics_have_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_KEY, "secret")
    client = client_of(RequiredKey)
    assert [client.get(path).status_code for path in OPEN_PATHS] == [200, 200]
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
        pass


def test_vllm_applies_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of vLLM is not started: its own function builds what is around the routes."""
    pytest.importorskip("vllm")
    from fastapi import FastAPI
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from selfemo_jobs.use_commands.serve import _access_arguments

    monkeypatch.setenv(ENV_KEY, "secret")
    words = _access_arguments("127.0.0.1", os.environ)
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    app = FastAPI()
    app.post("/invocations")(lambda: "ANSWER")
    init_entrypoints_middleware(parsed, app, ())
    client, key = TestClient(app, base_url=HERE), {"authorization": "Bearer secret"}
    assert client.post("/invocations").status_code == 401
    assert client.post("/invocations", headers={**key, "host": "evil.example"}).status_code == 403
    answered = client.post("/invocations", headers={**key, "origin": EVIL})
    assert answered.status_code == 200
    assert "access-control-allow-origin" not in answered.headers


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page of Gradio that is started as the playground's is."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio")
    from selfemo_jobs.playground.page import launch_options
    from selfemo_jobs.use_commands.playground import _reach_this_machine_directly

    _reach_this_machine_directly(os.environ)
    with gradio.Blocks(analytics_enabled=False) as blocks:
        box, shown = gradio.Textbox("text"), gradio.Textbox()
        gradio.Button("read").click(lambda text: f"READ {text}", box, shown, api_name="read")
    _app, url, _share = blocks.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        share=False,
        app_kwargs={"middleware": [Middleware(OwnPages, names=[])]},
        **launch_options(),
    )
    yield url.rstrip("/")
    blocks.close(verbose=False)


def status_of(url: str, data: bytes | None = None, **headers: str) -> int:
    request = Request(url, data, {name.replace("_", "-"): text for name, text in headers.items()})
    try:
        with urlopen(request, timeout=60) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def test_foreign_pages_do_not_use_the_playground(page: str) -> None:
    call, body = f"{page}/gradio_api/call/read", json.dumps({"data": ["hi"]}).encode()
    kind = "application/json"
    assert status_of(page) == 200
    assert status_of(call, body, Content_Type=kind, Origin=page) == 200
    assert status_of(call, body, Content_Type=kind, Host="evil.example", Origin=EVIL) == 403
    assert status_of(call, body, Content_Type="text/plain", Origin=EVIL) == 403
    assert status_of(f"{page}/gradio_api/info", Host="evil.example:7860") == 403
    form = (
        b'--B\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n--B--\r\n'
    )
    multipart = "multipart/form-data; boundary=B"
    assert status_of(f"{page}/gradio_api/upload", form, Content_Type=multipart, Origin=EVIL) == 403
