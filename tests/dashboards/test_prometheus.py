"""Each expression against a real Prometheus that scrapes the operator's own server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from tools.dashboards.expressions import RULES, Expression, expressions, resolved

from selfemo_operator.cluster.metrics import OperatorMetrics
from selfemo_operator.cluster.pages import PageServer, metrics_page
from selfemo_operator.cluster.view import View
from tests.cluster.fixtures import program_or_skip
from tests.operator.process import free_port
from tests.unit.selfemo_operator.cluster.evolved import evolved

Json = dict[str, Any]
pytestmark = pytest.mark.slow  # where Prometheus must be built first

JOB, NAMESPACE = "selfemo-metrics", "selfemo-system"
#: Rules that follow from others need some evaluations.
SECONDS = 60.0


@pytest.fixture(scope="module")
def operator() -> Iterator[PageServer]:
    """An operator's metrics, with passes and requests that go on."""
    view = View()
    spec: Json = {"evolution": {"goal": {"f1": 0.7}}, "training": {"gpusPerNode": 1}}
    view.put_evolution(evolved(sources=("dev", "test"), **spec))
    shown = OperatorMetrics(view, lambda: 3.0, lambda: 1)
    shown.leader.set(1)

    def text() -> bytes:
        shown.ended_pass(("team", "demo"), "done", 0.02)
        shown.answered("GET", 200)
        return shown.text()

    server = PageServer(0, {"/metrics": metrics_page(text)})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def prometheus(operator: PageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the shipped rules; its address."""
    program = program_or_skip("prometheus", "SELFEMO_PROMETHEUS")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = {"targets": [f"127.0.0.1:{operator.port}"], "labels": {"namespace": NAMESPACE}}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in RULES.glob("*.yaml")],
        "scrape_configs": [{"job_name": JOB, "honor_labels": True, "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [str(program), f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield _ready(f"http://127.0.0.1:{port}", process, folder / "log")
        finally:
            process.terminate()
            process.wait(30)


def _ready(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until it has recorded what it records last."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            if query(address, "namespace_job:selfemo_operator_reconcile_duration_seconds:p99_10m"):
                return address
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"Prometheus records nothing: {log.read_text()[-2000:]}")


def query(address: str, expr: str) -> list[Json]:
    try:
        with urlopen(f"{address}/api/v1/query?{urlencode({'query': expr})}", timeout=10) as answer:
            found: list[Json] = json.load(answer)["data"]["result"]
    except HTTPError as error:
        raise AssertionError(f"{expr}: {error.read().decode()}") from None
    return found


def _resolved(found: Expression) -> str:
    own = found.place.startswith("dashboard selfemo / Operator")
    return resolved(found.expr, {"namespace": NAMESPACE if own else "team", "name": "demo"})


def test_every_expression_has_an_answer(prometheus: str) -> None:
    empty = [
        found.place
        for found in expressions()
        if not query(prometheus, _resolved(found)) and not found.optional
    ]
    assert empty == []


def test_states_are_told_right(prometheus: str) -> None:
    phase, stage = (
        next(e for e in expressions() if e.place == f"dashboard selfemo / Fleet / panel {name}")
        for name in ("Phase", "Stage")
    )
    (running,) = query(prometheus, _resolved(phase))
    (training,) = query(prometheus, _resolved(stage))
    assert (running["value"][1], training["value"][1]) == ("2", "3")


def test_no_alert_fires_but_what_should(prometheus: str) -> None:
    """The made-up evolution has stood still since long ago, and nothing else is wrong with it."""
    found = query(prometheus, "ALERTS")
    names = {series["metric"]["alertname"] for series in found}
    assert names == {"SelfemoEvolutionStalled"}
