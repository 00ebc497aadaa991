"""Each expression against a real Prometheus that scrapes the operator's own server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tools.dashboards.expressions import Expression, expressions, resolved

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from tests.integration.operator.api import wait_for
from tests.support.cluster.fixtures import program_or_skip
from tests.support.prometheus import Prometheus, prometheus
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
pytestmark = pytest.mark.slow  # where Prometheus must be built first

NAMESPACE = "selfemo-system"
LAST = "namespace_job:selfemo_operator_reconcile_duration_seconds:p99_10m"


@pytest.fixture(scope="module")
def operator() -> Iterator[HttpServer]:
    """An operator's metrics, with passes and requests that go on."""
    view = Cache()
    spec: Json = {"evolution": {"goal": {"f1": 0.7}}, "training": {"gpusPerNode": 1}}
    view.store_evolution(evolution_after(sources=("dev", "test"), **spec))
    shown = OperatorMetrics(view, lambda: 3.0, lambda: 1)
    shown.leader.set(1)

    def text() -> bytes:
        shown.on_reconciled(("team", "demo"), "done", 0.02)
        shown.on_response("GET", 200)
        return shown.text()

    server = HttpServer(0, {"/metrics": metrics_handler(text)})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(operator: HttpServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the shipped rules, which has recorded what it records last."""
    program = program_or_skip("prometheus", "SELFEMO_PROMETHEUS")
    folder, target = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{operator.port}"
    with prometheus(program, folder, [target], NAMESPACE) as found:
        wait_for(lambda: found.query(LAST), "rules that follow from others", seconds=60)
        yield found


def _resolved(found: Expression) -> str:
    own = found.place.startswith("dashboard selfemo / Operator")
    return resolved(found.expr, {"namespace": NAMESPACE if own else "team", "name": "demo"})


def test_every_expression_has_an_answer(server: Prometheus) -> None:
    empty = [
        found.place
        for found in expressions()
        if not server.query(_resolved(found)) and not found.optional
    ]
    assert empty == []


def test_states_are_told_right(server: Prometheus) -> None:
    phase, stage = (
        next(e for e in expressions() if e.place == f"dashboard selfemo / Fleet / panel {name}")
        for name in ("Phase", "Stage")
    )
    (running,) = server.query(_resolved(phase))
    (training,) = server.query(_resolved(stage))
    assert (running["value"][1], training["value"][1]) == ("2", "3")


def test_no_alert_fires_but_what_should(server: Prometheus) -> None:
    """The made-up evolution has stood still since long ago, and nothing else is wrong with it."""
    found = server.query("ALERTS")
    names = {series["metric"]["alertname"] for series in found}
    assert names == {"SelfemoEvolutionStalled"}
