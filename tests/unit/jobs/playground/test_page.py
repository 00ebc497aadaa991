"""The page of the real command, with a real model, in a browser that reaches nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect
from tests.support.browser import browser, open_page

from selfemo_jobs.playground.example_dialogues import EXAMPLES
from selfemo_jobs.use_commands.__main__ import main

__all__ = ["browser"]

pytest.importorskip("gradio", reason="the extra `playground` is not installed")

WIDE = {"width": 1240, "height": 900}
PHONE = {"width": 360, "height": 740}
#: Where a picture of the page is written; unset: nowhere.
PICTURE = os.environ.get("SELFEMO_PLAYGROUND_PICTURE")
#: The model of the picture, as a reference; unset: the tiny model.
MODEL = os.environ.get("SELFEMO_PLAYGROUND_MODEL")
#: Milliseconds until a model that was just loaded has answered, on a busy machine.
LOAD = 180_000


@dataclass
class Server:
    """The command as it runs."""

    process: subprocess.Popen[str]
    url: str


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    report = tmp_path_factory.mktemp("report") / "report.html"
    report.write_text("<!doctype html><title>The report</title><h1>The report</h1>")
    model = str(tiny_model)
    words = [model, "--labels", "neutral,joy,anger,sadness", "--compare", model]
    words += ["--report", str(report), "--port", "0"]
    if MODEL:
        words = [MODEL, "--port", "0"]
    command = [sys.executable, "-m", "selfemo_jobs.use_commands", "playground", *words]
    # a proxy that does not answer: this machine is reached without it
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "example.org"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield Server(process, process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["desk", "phone"])
def test_a_dialogue_is_read_and_answered_by_both_models(
    browser: Browser, server: Server, viewport: dict[str, int], scheme: str
) -> None:
    opened = open_page(browser, server.url, viewport, scheme)
    page = opened.page
    turns = len(next(iter(EXAMPLES.values())).splitlines())
    page.get_by_role("button", name="Recognize emotions").click()
    expect(page.locator(".turn")).to_have_count(2 * turns, timeout=LOAD)
    page.get_by_role("button", name="Write replies").click()
    expect(page.get_by_text("of 4 replies by Mia are classified").first).to_be_visible(timeout=LOAD)
    expect(page.locator(".turn")).to_have_count(2 * turns + 8)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    colors = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(int(part) for part in colors.split("(")[1].split(")")[0].split(",")[:3]) < 200
    assert dark is (scheme == "dark"), colors
    assert opened.messages == []
    assert {urlsplit(url).hostname for url in opened.requests} == {"127.0.0.1"}
    if PICTURE and viewport is WIDE and scheme == "light":
        page.screenshot(path=PICTURE, full_page=True)
    page.context.close()


def test_another_dialogue_can_be_picked_or_pasted(browser: Browser, server: Server) -> None:
    opened = open_page(browser, server.url, WIDE, "light")
    page = opened.page
    box = page.get_by_label("Or paste one, with one turn per line")
    page.get_by_label("Pick a dialogue").click()
    page.get_by_role("option", name="Good news").click()
    expect(box).to_have_value(EXAMPLES["Good news"])
    box.fill("Ann: <b>Hi</b>\nBo: & you?")
    page.get_by_role("button", name="Recognize emotions").click()
    expect(page.locator(".turn")).to_have_count(4, timeout=LOAD)
    assert page.locator(".turn").first.inner_text().startswith("Ann: <b>Hi</b>")
    box.fill("")
    page.get_by_role("button", name="Recognize emotions").click()
    expect(page.get_by_text("there are no turns").first).to_be_visible(timeout=LOAD)
    page.context.close()


def test_the_report_is_linked(browser: Browser, server: Server) -> None:
    if MODEL:
        pytest.skip("the report is that of the model's own run")
    opened = open_page(browser, server.url, WIDE, "light")
    link = opened.page.get_by_role("link", name="Report of the run")
    response = opened.page.goto(server.url.rstrip("/") + str(link.get_attribute("href")))
    assert response is not None
    assert response.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    expect(opened.page.get_by_role("heading", name="The report")).to_be_visible()
    opened.page.context.close()


def test_only_this_machine_reaches_the_page(server: Server) -> None:
    """The address is that of the loopback interface, whatever the environment says."""
    assert server.url.startswith("http://127.0.0.1:")


def test_ctrl_c_ends_the_command(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130


def test_a_port_of_another_process_is_named_before_a_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["playground", str(tmp_path / "no-model"), "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"selfemo playground: --port {port}: another process is using it: specify another port, "
        "or 0 for any free port\n"
    )
