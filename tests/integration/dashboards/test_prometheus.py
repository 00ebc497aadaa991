"""Each expression on a real Prometheus that scrapes the operator's HTTP server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tools.dashboards.__main__ import FOLDER
from tools.dashboards.board_types import Kind, Panel
from tools.dashboards.boards import BOARDS
from tools.dashboards.expressions import Expression, expressions, resolved

from selfemo_api.stages import Stage
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from tests.integration.dashboards.running_stages import SECONDS_BETWEEN_LINES, served_by
from tests.integration.operator.api import wait_for
from tests.support.cluster.errors import ClusterError
from tests.support.cluster.fixtures import program_or_skip
from tests.support.grafana import packages, transformed
from tests.support.prometheus import Prometheus, prometheus
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
pytestmark = pytest.mark.slow  # Prometheus may have to be built first

NAMESPACE = "selfemo-system"
LAST = "namespace_job:selfemo_operator_reconcile_duration_seconds:p99_10m"
#: How long the evolution stays in each state: a few scrapes.
SECONDS = 2.5


#: The states of the evolution: after each, some stages have run.
HISTORY = (
    (0, Stage.EVALUATE),
    (1, Stage.SCORE),
    (1, Stage.EVALUATE),
    (2, Stage.TRAIN),
    (2, Stage.EVALUATE),
    (3, Stage.FLYWHEEL),
)


def evolution_at(until: tuple[int, Stage]) -> Json:
    """Return the evolution, whose metrics depend on the generation that they are from."""
    spec: Json = {"stopping": {"goal": 0.9}, "resources": {"gpusPerNode": 1}}
    version = HISTORY.index(until) + 1
    item = evolution_after(sources=("dev", "test"), until=until, version=version, **spec)
    for totals in item["status"]["stages"]:
        if "rewardMean" in totals["metrics"]:
            totals["metrics"]["rewardMean"] = totals["generation"] / 10
        if "lossMean" in totals["metrics"]:
            totals["metrics"]["lossMean"] = totals["generation"] / 100
    return item


@dataclass(frozen=True)
class World:
    """A Prometheus that has scraped the operator and the pods of running stages."""

    server: Prometheus
    began: float
    """The time before the first scrape."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Prometheus with the chart's rules, after the evaluation of all of them."""
    program = program_or_skip("prometheus", "SELFEMO_PROMETHEUS")
    cache = Cache()
    metrics = OperatorMetrics(cache, lambda: 3.0, lambda: 1, problems=lambda: {"team": ""})
    metrics.leader.set(1)

    def text() -> bytes:
        metrics.on_reconciled(("team", "demo"), "done", 0.02)
        metrics.on_response("GET", 200)
        return metrics.text()

    training, playing = (served_by(stage).encode() for stage in (Stage.TRAIN, Stage.SELF_PLAY))
    with ExitStack() as stack:
        operator = stack.enter_context(_serving(text))
        stages = [
            stack.enter_context(_serving(lambda: training)),
            stack.enter_context(_serving(lambda: playing)),
        ]
        folder = tmp_path_factory.mktemp("prometheus")
        began = time.time()
        running = stack.enter_context(
            prometheus(program, folder, [operator], NAMESPACE, dict.fromkeys(stages, "team"))
        )
        wait_for(lambda: running.healthy() == 3, "the first scrapes")
        for until in HISTORY:
            cache.store_evolution(evolution_at(until))
            time.sleep(SECONDS)
        wait_for(lambda: running.query(LAST), "the rules that use other rules", seconds=60)
        yield World(running, began)


@contextmanager
def _serving(text: Callable[[], bytes]) -> Iterator[str]:
    """Serve metrics; the value is the address."""
    server = HttpServer(0, {"/metrics": metrics_handler(lambda: [text()])})
    server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()


@pytest.fixture
def server(world: World) -> Prometheus:
    return world.server


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


def test_live_figures_are_those_of_the_running_stages(server: Prometheus) -> None:
    def value(panel: str) -> float:
        place = f"dashboard selfemo / Evolution / panel {panel}"
        (expression,) = (e for e in expressions() if e.place == place)
        (series,) = server.query(_resolved(expression))
        return float(series["value"][1])

    assert value("Tokens per second") == 5000.0
    assert 0 < SECONDS_BETWEEN_LINES * 2 - value("Time left") < 120, "it counts down"
    progress = "dashboard selfemo / Evolution / panel Progress"
    (expression,) = (e for e in expressions() if e.place == progress)
    shares = {s["metric"]["stage"]: s["value"][1] for s in server.query(_resolved(expression))}
    assert shares == {"Train": "0.5", "SelfPlay": "0.125"}


def by_generation(world: World, panel: Panel) -> list[list[Json]]:
    """Return the series of each query of a panel over the time range."""
    variables = {"namespace": "team", "name": "demo"}
    return [
        world.server.series(resolved(query.expr, variables), world.began, time.time())
        for query in panel.queries
    ]


def test_points_are_grouped_by_generation(world: World) -> None:
    """Join and group them as the transformations of the table do; each row is one generation."""
    (table,) = (p for p in all_panels() if p.by_generation and p.kind is Kind.TABLE)
    titles = [title for title, _ in table.columns.values()]
    rows: dict[float, dict[str, float]] = {}
    for title, (series,) in zip(titles, by_generation(world, table), strict=True):
        for moment, value in series["values"]:
            rows.setdefault(moment, {})[title] = float(value)
    generations: dict[float, dict[str, float]] = {}
    for _, row in sorted(rows.items()):
        if "Generation" in row:
            group = generations.setdefault(row["Generation"], {})
            group.update({name: value for name, value in row.items() if name not in group})
    assert list(generations) == [0, 1, 2]
    for generation, row in generations.items():
        assert row["F1"] == pytest.approx(0.3 + 0.1 * generation)
    for generation in (1, 2):
        assert generations[generation]["Reward"] == pytest.approx(generation / 10)
        assert generations[generation]["Loss"] == pytest.approx(generation / 100)


def test_grafanas_own_code_makes_a_row_for_each_generation(world: World) -> None:
    try:
        packages("data")
    except ClusterError as error:
        pytest.skip(f"no code of Grafana: {error}")
    document = json.loads((FOLDER / "evolution.json").read_text())
    shown = {}
    for panel in (p for p in all_panels() if p.by_generation):
        (written,) = (
            w
            for w in document["panels"]
            if (w["title"], w["type"]) == (panel.title, panel.kind.value)
        )
        rows = transformed(written, by_generation(world, panel))
        assert [list(row) for row in rows] == [[title for title, _ in panel.columns.values()]] * 3
        shown[panel.title] = rows
    table = shown.pop("Generations")
    assert [row["Generation"] for row in table] == [0, 1, 2]
    assert [row["F1"] for row in table] == pytest.approx([0.3, 0.4, 0.5])
    assert [row["Reward"] for row in table][1:] == [0.1, 0.2]
    assert [row["Loss"] for row in table][1:] == [0.01, 0.02]
    assert len(shown) == 3
    for rows in shown.values():
        assert [row["Generation"] for row in rows] == ["0", "1", "2"], "bars need texts"
    assert [row["F1"] for row in shown["F1 by generation"]] == pytest.approx([0.3, 0.4, 0.5])


def test_costs_are_gpu_hours_times_the_price(server: Prometheus) -> None:
    place = "dashboard selfemo / Evolution / panel Cost"
    (cost,) = (e for e in expressions() if e.place == place)
    variables = {"namespace": "team", "name": "demo"}
    (seconds,) = server.query('namespace_name:selfemo_evolution_gpu_seconds:sum{namespace="team"}')
    for price in ("2.5", "10"):
        (series,) = server.query(resolved(cost.expr, {**variables, "gpu_hour_price": price}))
        expected = float(seconds["value"][1]) / 3600 * float(price)
        assert float(series["value"][1]) == pytest.approx(expected)
    assert not server.query(resolved(cost.expr, {**variables, "gpu_hour_price": "0"}))


def test_another_cluster_has_no_results(server: Prometheus) -> None:
    """The chosen cluster limits every panel; without a label `cluster`, all of them match."""
    expression = next(e for e in expressions() if "Evolution / panel Best F1" in e.place)
    variables = {"namespace": "team", "name": "demo"}
    assert server.query(resolved(expression.expr, {**variables, "cluster": ".*"}))
    assert not server.query(resolved(expression.expr, {**variables, "cluster": "other"}))


def test_states_have_the_right_codes(server: Prometheus) -> None:
    phase, stage = (
        next(e for e in expressions() if e.place == f"dashboard selfemo / Fleet / panel {name}")
        for name in ("Phase", "Stage")
    )
    (running,) = server.query(_resolved(phase))
    (training,) = server.query(_resolved(stage))
    assert (running["value"][1], training["value"][1]) == ("2", "5")


def all_panels() -> list[Panel]:
    """Return the panels of all dashboards."""
    return [panel for board in BOARDS for row in board.rows for panel in row.panels]


def test_only_the_expected_alert_fires(server: Prometheus) -> None:
    """The test's evolution has made no progress for years, and has no other problem."""
    names = {series["metric"]["alertname"] for series in server.query("ALERTS")}
    assert names == {"SelfemoEvolutionStalled"}
