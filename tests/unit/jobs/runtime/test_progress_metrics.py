"""Live progress: from a log line to a scrape."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.integration.operator.process import free_port

from selfemo_api.contract import ENV_METRICS_PORT
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.progress_metrics import ProgressGauges, serve_progress


def shown(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode().splitlines()
    return [line for line in text if not line.startswith("#") and "timestamp" not in line]


def test_a_progress_line_becomes_gauges() -> None:
    registry, logger = CollectorRegistry(), logging.Logger("stage")
    times = iter([100.0, 130.0])
    logger.addHandler(ProgressGauges(Stage.TRAIN, "demo", registry, lambda: next(times)))
    fields = {"done": 1, "total": 8, "gradNorm": 0.5, "anotherField": 3, "word": "no number"}
    logger.info("progress", extra={"fields": fields})
    logger.info("progress", extra={"fields": {**fields, "done": 2}})
    logger.info("found %s", "the manifest", extra={"fields": {"done": 9}})
    assert shown(registry) == [
        'selfemo_stage_done{name="demo",stage="Train"} 2.0',
        'selfemo_stage_total{name="demo",stage="Train"} 8.0',
        'selfemo_stage_grad_norm{name="demo",stage="Train"} 0.5',
        'selfemo_stage_another_field{name="demo",stage="Train"} 3.0',
        'selfemo_stage_remaining_seconds{name="demo",stage="Train"} 180.0',
    ]
    assert "selfemo_stage_progress_timestamp_seconds{" in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("lines", "remaining"),
    [
        ([(0, 4)], None),
        ([(0, 4), (1, 4)], 30.0),
        ([(300, 400), (310, 400)], 90.0),  # continued: its start is not 0
        ([(0, 4), (1, 4), (4, 4)], 0.0),
        ([(3, 3)], 0.0),
        ([(5, 8), (6, 8), (1, 8), (2, 8)], 60.0),  # it began again
        ([(1, 2), (2, 9)], None),  # another amount of work
        ([(1, 9), (1, 9)], None),  # no rate yet
    ],
)
def test_the_remaining_time_follows_the_mean_rate(
    lines: list[tuple[int, int]], remaining: float | None
) -> None:
    """The lines are ten seconds apart."""
    registry, logger = CollectorRegistry(), logging.Logger("stage")
    now = 0.0
    logger.addHandler(ProgressGauges(Stage.TRAIN, "demo", registry, lambda: now))
    for done, total in lines:
        logger.info("progress", extra={"fields": {"done": done, "total": total}})
        now += 10.0
    labels = {"name": "demo", "stage": "Train"}
    assert registry.get_sample_value("selfemo_stage_remaining_seconds", labels) == remaining


STAGE = """
import logging
from urllib.request import urlopen
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.logging_setup import configure_logging

configure_logging("SelfPlay")
serve_progress(Stage.SELF_PLAY, "demo")
logging.getLogger("selfemo_jobs.runtime.program").info("progress", extra={"fields": {"done": 3}})
print(urlopen("http://HOST:PORT/metrics", timeout=5).read().decode())
"""


NO_IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=NO_IPV6)])
def test_it_is_served_by_the_process(host: str) -> None:
    port = str(free_port())
    done = subprocess.run(
        [sys.executable, "-c", STAGE.replace("PORT", port).replace("HOST", host)],
        env={**os.environ, ENV_METRICS_PORT: port},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert 'selfemo_stage_done{name="demo",stage="SelfPlay"} 3.0' in done.stdout


#: The scrape is accepted after all half-open requests: the server has seen all of them.
HALF_OPEN = """
import socket, threading, time
from urllib.request import urlopen
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.progress_metrics import serve_progress

serve_progress(Stage.SELF_PLAY, "demo")
before = threading.active_count()
clients = []
for _ in range(400):
    client = socket.create_connection(("127.0.0.1", PORT))
    client.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: ")
    clients.append(client)
assert urlopen("http://127.0.0.1:PORT/metrics", timeout=30).status == 200
deadline = time.monotonic() + 3  # the threads of closed connections are ending
while threading.active_count() > before + 40 and time.monotonic() < deadline:
    time.sleep(0.02)
print(threading.active_count() - before)
"""


def test_half_open_requests_take_few_threads_and_a_scrape_is_answered() -> None:
    port = str(free_port())
    done = subprocess.run(
        [sys.executable, "-c", HALF_OPEN.replace("PORT", port)],
        env={**os.environ, ENV_METRICS_PORT: port},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) <= 40


@pytest.mark.parametrize("port", ["many", "99999999", "-1"])
def test_a_bad_port_ends_no_stage(
    port: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENV_METRICS_PORT, port)
    serve_progress(Stage.SCORE, "demo")
    assert "no metrics are served" in caplog.text


def test_nothing_is_served_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_METRICS_PORT, raising=False)
    before = list(logging.getLogger().handlers)
    serve_progress(Stage.SCORE, "demo")
    assert logging.getLogger().handlers == before
