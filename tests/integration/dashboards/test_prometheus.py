"""Each expression on a real Prometheus that scrapes the operator's HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tools.dashboards.expressions import Expression, expressions, resolved

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from tests.integration.operator.api import wait_for
from tests.support.cluster.fixtures import program_or_skip
from tests.support.prometheus import Prometheus, prometheus
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
pytestmark = pytest.mark.slow  # Prometheus may have to be built first

NAMESPACE = "selfemo-system"
LAST = "namespace_job:selfemo_operator_reconcile_duration_seconds:p99_10m"


@pytest.fixture(scope="module")
def operator() -> Iterator[HttpServer]:
    """The metrics of an operator, with reconciles and requests at each scrape."""
    cache = Cache()
    spec: Json = {"stopping": {"goal": 0.7}, "resources": {"gpusPerNode": 1}}
    cache.store_evolution(evolution_after(sources=("dev", "test"), **spec))
    metrics = OperatorMetrics(cache, lambda: 3.0, lambda: 1)
    metrics.leader.set(1)

    def text() -> bytes:
        metrics.on_reconciled(("team", "demo"), "done", 0.02)
        metrics.on_response("GET", 200)
        return metrics.text()

    server = HttpServer(0, {"/metrics": metrics_handler(text)})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(operator: HttpServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the chart's rules, after the evaluation of all of them."""
    program = program_or_skip("prometheus", "SELFEMO_PROMETHEUS")
    folder, target = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{operator.port}"
    with prometheus(program, folder, [target], NAMESPACE) as running:
        wait_for(lambda: running.query(LAST), "the rules that use other rules", seconds=60)
        yield running


def _resolved(expression: Expression) -> str:
    own = expression.place.startswith("dashboard selfemo / Operator")
    return resolved(expression.expr, {"namespace": NAMESPACE if own else "team", "name": "demo"})


def test_every_expression_has_a_result(server: Prometheus) -> None:
    empty = [
        expression.place
        for expression in expressions()
        if not server.query(_resolved(expression)) and not expression.optional
    ]
    assert empty == []


def test_states_have_the_right_codes(server: Prometheus) -> None:
    phase, stage = (
        next(e for e in expressions() if e.place == f"dashboard selfemo / Fleet / panel {name}")
        for name in ("Phase", "Stage")
    )
    (running,) = server.query(_resolved(phase))
    (training,) = server.query(_resolved(stage))
    assert (running["value"][1], training["value"][1]) == ("2", "5")


def test_only_the_expected_alert_fires(server: Prometheus) -> None:
    """The test's evolution has made no progress for years, and has no other problem."""
    names = {series["metric"]["alertname"] for series in server.query("ALERTS")}
    assert names == {"SelfemoEvolutionStalled"}
