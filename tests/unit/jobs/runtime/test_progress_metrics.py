"""Live progress: from a log line to a scrape."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

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
    logger.addHandler(ProgressGauges(Stage.TRAIN, registry))
    fields = {"done": 1, "total": 8, "gradNorm": 0.5, "word": "no number"}
    logger.info("progress", extra={"fields": fields})
    logger.info("progress", extra={"fields": {**fields, "done": 2}})
    logger.info("found %s", "the manifest", extra={"fields": {"done": 9}})
    assert shown(registry) == [
        'selfemo_stage_done{stage="Train"} 2.0',
        'selfemo_stage_total{stage="Train"} 8.0',
        'selfemo_stage_grad_norm{stage="Train"} 0.5',
    ]
    assert "selfemo_stage_progress_timestamp_seconds{" in generate_latest(registry).decode()


STAGE = """
import logging
from urllib.request import urlopen
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.logging_setup import configure_logging

configure_logging("SelfPlay")
serve_progress(Stage.SELF_PLAY)
logging.getLogger("selfemo_jobs.runtime.program").info("progress", extra={"fields": {"done": 3}})
print(urlopen("http://127.0.0.1:PORT/metrics", timeout=5).read().decode())
"""


def test_it_is_served_by_the_process(tmp_path: Path) -> None:
    port = str(free_port())
    done = subprocess.run(
        [sys.executable, "-c", STAGE.replace("PORT", port)],
        env={**os.environ, ENV_METRICS_PORT: port},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert 'selfemo_stage_done{stage="SelfPlay"} 3.0' in done.stdout


@pytest.mark.parametrize("port", ["many", "99999999", "-1"])
def test_a_bad_port_ends_no_stage(
    port: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENV_METRICS_PORT, port)
    serve_progress(Stage.SCORE)
    assert "no metrics are served" in caplog.text


def test_nothing_is_served_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_METRICS_PORT, raising=False)
    before = list(logging.getLogger().handlers)
    serve_progress(Stage.SCORE)
    assert logging.getLogger().handlers == before
