"""The dashboards: Grafana's linter rules, promtool, and the metrics of the operator."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from grafana_foundation_sdk.models import units
from tools.dashboards.__main__ import FOLDER
from tools.dashboards.expressions import RULES as RULE_FILES
from tools.dashboards.expressions import expressions, resolved

from selfemo_api.metrics import LIVE_GAUGES, LIVE_PREFIX
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.metrics.reference import page
from tests.integration.dashboards.linter import EXCLUDED, RULES, UNITS, panels, problems
from tests.integration.dashboards.running_stages import LINES, served_by
from tests.support.cluster.fixtures import program_or_skip
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
FILES = sorted(FOLDER.glob("*.json"))
VARIABLES = {"namespace": "team", "name": "demo"}
every_board = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> Json:
    board: Json = json.loads(path.read_text())
    return board


def test_there_are_three_dashboards() -> None:
    assert [path.stem for path in FILES] == ["evolution", "fleet", "operator"]
    assert len({read(path)["uid"] for path in FILES}) == 3


@every_board
def test_the_linter_finds_no_problem(path: Path) -> None:
    assert problems(read(path)) == []


def _set(board: Json, *place: Any, to: Any) -> None:
    *way, last = place
    node: Any = board
    for step in way:
        node = node[step]
    node[last] = to


BROKEN: dict[str, Callable[[Json], None]] = {
    "template-datasource": lambda b: _set(b, "templating", "list", 0, "label", to="Source"),
    "template-on-time-change-reload": lambda b: _set(b, "templating", "list", 2, "refresh", to=1),
    "panel-datasource": lambda b: _set(panels(b)[0], "datasource", "uid", to="mine"),
    "panel-title-description": lambda b: _set(panels(b)[0], "description", to=""),
    "panel-units": lambda b: _set(panels(b)[0], "fieldConfig", "defaults", "unit", to="furlong"),
    "panel-no-targets": lambda b: _set(panels(b)[0], "targets", to=[]),
    "target-rate-interval": lambda b: _set(
        panels(b)[0],
        *("targets", 0, "expr"),
        to='rate(selfemo_x_total{namespace="$namespace", cluster=~"$cluster"}[5m])',
    ),
    "uneditable-dashboard": lambda b: _set(b, "editable", to=True),
    "panel-links": lambda b: _set(panels(b)[0], "links", to=[]),
    "target-chosen": lambda b: _set(panels(b)[0], "targets", 0, "expr", to="selfemo_evolution_f1"),
    "target-cluster": lambda b: _set(
        panels(b)[0], "targets", 0, "expr", to='selfemo_evolution_f1{namespace="$namespace"}'
    ),
    "defined-variables": lambda b: _set(panels(b)[0], "title", to="Of $unknown"),
    "described-variables": lambda b: _set(b, "templating", "list", 1, "description", to=""),
    "legends": lambda b: _set(panels(b)[0], "targets", 0, "legendFormat", to=""),
}


@pytest.mark.parametrize("rule", sorted(RULES.keys() - EXCLUDED.keys()))
def test_each_rule_finds_a_violation(rule: str) -> None:
    board = copy.deepcopy(read(FOLDER / "evolution.json"))
    BROKEN[rule](board)
    assert {problem.partition(":")[0] for problem in problems(board)} == {rule}


def test_excluded_rules_would_find_violations() -> None:
    all_problems = problems(read(FOLDER / "evolution.json"), excluded=False)
    assert {problem.partition(":")[0] for problem in all_problems} == {"target-counter-agg"}


def test_every_expression_is_valid_promql(tmp_path: Path) -> None:
    promtool = program_or_skip("promtool", "SELFEMO_PROMTOOL")
    rules = [
        {"record": f"n{number}", "expr": resolved(expression.expr, VARIABLES)}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    command = [str(promtool), "check", "rules", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules)} rules found" in result.stdout


FAILURES = 'selfemo_evolution_stage_failures_total{namespace="team",name="demo",instance="%s",%s}'
TRAIN, SCORE = (f'stage="{stage}",reason="Disrupted"' for stage in ("Train", "Score"))


@pytest.mark.parametrize(
    ("minute", "train"),
    [(18, None), (20, 1), (22, 1), (28, 0), (39, 0), (42, 1), (50, 0)],
)
def test_failed_attempts_count_the_first_failure_of_a_reason(
    minute: int, train: int | None, tmp_path: Path
) -> None:
    """`Disrupted` has a series from its first failure on. Another operator leads from minute 21."""
    info = 'selfemo_evolution_info{namespace="team",name="demo",instance="%s"}'
    series = {
        info % "a": "1x20 stale",
        info % "b": "_x20 1x40",
        FAILURES % ("a", TRAIN): "_x19 1 stale",
        FAILURES % ("b", TRAIN): "_x20 1x19 2x20",
        FAILURES % ("a", SCORE): "3x20 stale",  # as old as the evolution: nothing is known
        FAILURES % ("b", SCORE): "_x20 3x40",
    }
    (panel,) = (
        p for p in panels(read(FOLDER / "evolution.json")) if p["title"] == "Failed attempts"
    )
    expected = [{"labels": f"{{{SCORE}}}", "value": 0}]
    expected += [] if train is None else [{"labels": f"{{{TRAIN}}}", "value": train}]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round({resolved(panel['targets'][0]['expr'], VARIABLES)})",
                "eval_time": f"{minute}m",
                "exp_samples": expected,
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    command = [str(program_or_skip("promtool", "SELFEMO_PROMTOOL")), "test", "rules", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_list_of_expressions_is_complete() -> None:
    """The list is made from the code; the files of the chart must contain the same expressions."""
    shipped = [
        target["expr"]
        for path in FILES
        for panel in panels(read(path))
        for target in panel["targets"]
    ]
    shipped += [
        mark["expr"] for path in FILES for mark in read(path)["annotations"].get("list", [])
    ]
    for path in RULE_FILES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            shipped += [rule["expr"] for rule in group["rules"]]
    listed = [e.expr for e in expressions() if "/ variable " not in e.place]
    assert sorted(listed) == sorted(shipped)
    assert sum("/ variable " in e.place for e in expressions()) == 7


def test_every_used_metric_is_exported_and_documented() -> None:
    cache = Cache()
    cache.store_evolution(evolution_after())
    metrics = OperatorMetrics(cache, lambda: 1.0, lambda: 0)
    metrics.on_response("GET", 200)
    metrics.on_reconciled(("team", "demo"), "done", 0.1)
    text = metrics.text().decode()
    exported = set(re.findall(r"^((?:selfemo|process)_\w+)", text, re.MULTILINE))
    exported |= set(re.findall(r"^# TYPE (selfemo_\w+) ", text, re.MULTILINE))
    live = "".join(served_by(stage) for stage in LINES)
    exported |= set(re.findall(r"^(selfemo_stage_\w+)", live, re.MULTILINE))
    recorded = {e.place.removeprefix("record ") for e in expressions() if "record " in e.place}
    used: set[str] = set()
    for expression in expressions():
        plain = re.sub(r'"[^"]*"', '""', expression.expr)
        used |= set(re.findall(r"\b(?:selfemo|process)_\w+", re.sub(r"\b\w+:\w+:\w+", "", plain)))
        assert set(re.findall(r"\b\w+:\w+:\w+", plain)) <= recorded, expression.place
    assert len(used) > 40
    assert used <= exported, used - exported
    reference = page()
    ours = {n for n in exported if n.startswith("selfemo")}
    assert (
        not {n for n in ours if f"`{re.sub('_(sum|count)$', '_bucket', n)}`" not in reference}
        - {n for n in ours if f"`{re.sub('_(bucket|sum|count)$', '', n)}`" in reference}
        - {"selfemo_evolution_reward"}
    )


def test_all_gauges_of_a_running_stage_are_known() -> None:
    """The lines of the tests have every field, and a pod serves no other gauge of selfemo."""
    served = "".join(served_by(stage) for stage in LINES)
    names = set(re.findall(r"^# TYPE (\w+) gauge$", served, re.MULTILINE))
    assert names == {LIVE_PREFIX + name for name, _ in LIVE_GAUGES.values()}


def test_a_share_over_the_pods_says_which_pods_it_counts() -> None:
    """A pod that has ended is no longer scraped: its share is in no sum."""
    shares = [
        panel
        for path in FILES
        for panel in panels(read(path))
        if any(f"{LIVE_PREFIX}done" in target["expr"] for target in panel["targets"])
    ]
    assert [panel["title"] for panel in shares] == ["Progress", "Progress over time", "Progress"]
    for panel in shares:
        assert re.search("over the pods that (run now|ran at that time)", panel["description"])
        assert "when a pod ends" in panel["description"]


def test_units_are_those_of_grafana() -> None:
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert set(UNITS) <= known


def test_links_to_logs_open_a_query_for_the_pods_of_the_evolution() -> None:
    board = read(FOLDER / "evolution.json")
    (link,) = (one for one in board["links"] if one["type"] == "link")
    values = {
        "${loki_datasource}": "loki-1",
        "$namespace": "team",
        "$name": "demo",
        "${__from}": "1000",
        "${__to}": "2000",
        "${__org.id}": "7",
    }
    url = link["url"]
    for variable, value in values.items():
        url = url.replace(variable, value)
    assert "$" not in url
    address = urlsplit(url)
    query = parse_qs(address.query, strict_parsing=True)
    assert (address.path, query["schemaVersion"], query["orgId"]) == ("/explore", ["1"], ["7"])
    pane = json.loads(query["panes"][0])["logs"]
    assert pane["datasource"] == pane["queries"][0]["datasource"]["uid"] == "loki-1"
    assert pane["range"] == {"from": "1000", "to": "2000"}
    selector = pane["queries"][0]["expr"]
    pods = re.fullmatch(r'\{namespace="team", pod=~"(.+)"\}', selector)
    assert pods is not None, selector
    assert re.fullmatch(pods[1], "demo-g001-selfplay-1-0-x2x4z")
    assert not re.fullmatch(pods[1], "demo-2-g001-selfplay-1-0-x2x4z")


def test_links_lead_to_existing_dashboards() -> None:
    uids = {read(path)["uid"] for path in FILES}
    text = "".join(path.read_text() for path in (*FILES, *RULE_FILES.glob("*.yaml")))
    named = set(re.findall(r"/d/([\w-]+)", text))
    assert named == uids
