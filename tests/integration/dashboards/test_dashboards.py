"""The dashboards, by the published rules, by promtool, and against what the operator shows."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.dashboards.__main__ import FOLDER
from tools.dashboards.expressions import RULES as RULE_FILES
from tools.dashboards.expressions import expressions, resolved

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.metrics.reference import page
from tests.integration.dashboards.linter import EXCLUDED, RULES, panels, problems
from tests.support.cluster.fixtures import program_or_skip
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
FILES = sorted(FOLDER.glob("*.json"))
CHOICES = {"namespace": "team", "name": "demo"}
every_board = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> Json:
    board: Json = json.loads(path.read_text())
    return board


def test_there_are_three() -> None:
    assert [path.stem for path in FILES] == ["evolution", "fleet", "operator"]
    assert len({read(path)["uid"] for path in FILES}) == 3


@every_board
def test_the_published_rules_hold(path: Path) -> None:
    assert problems(read(path)) == []


def _set(board: Json, *place: Any, to: Any) -> None:
    *way, last = place
    node: Any = board
    for step in way:
        node = node[step]
    node[last] = to


BROKEN: dict[str, Callable[[Json], None]] = {
    "template-datasource": lambda b: _set(b, "templating", "list", 0, "name", to="ds"),
    "template-on-time-change-reload": lambda b: _set(b, "templating", "list", 1, "refresh", to=1),
    "panel-datasource": lambda b: _set(panels(b)[0], "datasource", "uid", to="mine"),
    "panel-title-description": lambda b: _set(panels(b)[0], "description", to=""),
    "panel-units": lambda b: _set(panels(b)[0], "fieldConfig", "defaults", "unit", to="furlong"),
    "panel-no-targets": lambda b: _set(panels(b)[0], "targets", to=[]),
    "target-rate-interval": lambda b: _set(
        panels(b)[0], "targets", 0, "expr", to='rate(selfemo_x_total{namespace="$namespace"}[5m])'
    ),
    "uneditable-dashboard": lambda b: _set(b, "editable", to=True),
    "panel-links": lambda b: _set(panels(b)[0], "links", to=[]),
    "target-chosen": lambda b: _set(panels(b)[0], "targets", 0, "expr", to="selfemo_evolution_f1"),
    "legends": lambda b: _set(panels(b)[0], "targets", 0, "legendFormat", to=""),
}


@pytest.mark.parametrize("rule", sorted(RULES.keys() - EXCLUDED.keys()))
def test_each_rule_finds_its_fault(rule: str) -> None:
    board = copy.deepcopy(read(FOLDER / "evolution.json"))
    BROKEN[rule](board)
    assert {found.partition(":")[0] for found in problems(board)} == {rule}


def test_what_is_excluded_would_be_found() -> None:
    found = problems(read(FOLDER / "evolution.json"), excluded=False)
    assert {text.partition(":")[0] for text in found} == {"target-counter-agg"}


def test_every_expression_is_promql(tmp_path: Path) -> None:
    promtool = program_or_skip("promtool", "SELFEMO_PROMTOOL")
    rules = [
        {"record": f"n{number}", "expr": resolved(found.expr, CHOICES)}
        for number, found in enumerate(expressions())
    ]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    command = [str(promtool), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_list_of_expressions_is_whole() -> None:
    """It is made from the code; the files that are shipped say the same."""
    shipped = [
        target["expr"]
        for path in FILES
        for panel in panels(read(path))
        for target in panel["targets"]
    ]
    shipped += [
        note["expr"] for path in FILES for note in read(path)["annotations"].get("list", [])
    ]
    for path in RULE_FILES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            shipped += [rule["expr"] for rule in group["rules"]]
    listed = [found.expr for found in expressions() if "/ variable " not in found.place]
    assert sorted(listed) == sorted(shipped)
    assert sum("/ variable " in found.place for found in expressions()) == 4


def test_every_metric_that_is_asked_for_is_exported_and_documented() -> None:
    view = Cache()
    view.store_evolution(evolution_after())
    metrics = OperatorMetrics(view, lambda: 1.0, lambda: 0)
    metrics.on_response("GET", 200)
    metrics.on_reconciled(("team", "demo"), "done", 0.1)
    text = metrics.text().decode()
    exported = set(re.findall(r"^((?:selfemo|process)_\w+)", text, re.MULTILINE))
    exported |= set(re.findall(r"^# TYPE (selfemo_\w+) ", text, re.MULTILINE))
    recorded = {e.place.removeprefix("record ") for e in expressions() if "record " in e.place}
    asked: set[str] = set()
    for found in expressions():
        plain = re.sub(r'"[^"]*"', '""', found.expr)
        asked |= set(re.findall(r"\b(?:selfemo|process)_\w+", re.sub(r"\b\w+:\w+:\w+", "", plain)))
        assert set(re.findall(r"\b\w+:\w+:\w+", plain)) <= recorded, found.place
    assert len(asked) > 40
    assert asked <= exported, asked - exported
    told = page()
    ours = {n for n in exported if n.startswith("selfemo")}
    assert (
        not {n for n in ours if f"`{re.sub('_(sum|count)$', '_bucket', n)}`" not in told}
        - {n for n in ours if f"`{re.sub('_(bucket|sum|count)$', '', n)}`" in told}
        - {"selfemo_evolution_reward"}
    )


def test_links_lead_to_dashboards_that_are_there() -> None:
    there = {read(path)["uid"] for path in FILES}
    text = "".join(path.read_text() for path in (*FILES, *RULE_FILES.glob("*.yaml")))
    named = set(re.findall(r"/d/([\w-]+)", text))
    assert named == there
