"""The rules and alerts, tested with Prometheus' promtool."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from tests.integration.rules.cases import CASES, RECORDED, Case, Series
from tests.support.cluster.fixtures import program_or_skip
from tests.unit.operator.controller.evolved import evolution_after

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "helm" / "selfemo" / "files" / "rules").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"


@pytest.fixture(scope="session")
def promtool() -> Path:
    return program_or_skip("promtool", "SELFEMO_PROMTOOL")


def alerts() -> dict[str, Json]:
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _rules() -> Iterator[Json]:
    for path in FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def run(promtool: Path, *arguments: str, text: str | None = None) -> str:
    result = subprocess.run(
        [str(promtool), *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_tests(promtool: Path, folder: Path, tests: list[Json]) -> None:
    file = folder / "test.yaml"
    suite = {"rule_files": [str(f) for f in FILES], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(suite))
    run(promtool, "test", "rules", str(file))


def _input(series: Series) -> list[Json]:
    return [{"series": name, "values": values} for name, values in series.items()]


def _test(case: Case, series: Series, at: str, *, fires: bool) -> Json:
    rule = alerts()[case.alert]
    labels = case.labeled(rule["labels"]["severity"])
    texts = {name: _expected_text(text, case) for name, text in rule["annotations"].items()}
    expected = [{"exp_labels": labels, "exp_annotations": texts}] if fires else []
    return {
        "interval": "1m",
        "input_series": _input(series),
        "alert_rule_test": [{"eval_time": at, "alertname": case.alert, "exp_alerts": expected}],
    }


def _expected_text(text: str, case: Case) -> str:
    """Return an annotation as Prometheus renders it; each label must exist."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda m: case.labels[m[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", case.value or "NO VALUE", text)


def test_rules_are_well_formed(promtool: Path) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires_when_it_should(promtool: Path, tmp_path: Path, case: Case) -> None:
    tests = [_test(case, case.fires, case.at, fires=True)]
    if case.before:
        tests.append(_test(case, case.fires, case.before, fires=False))
    run_tests(promtool, tmp_path, tests)


@pytest.mark.parametrize(
    ("case", "series"),
    [pytest.param(c, q, id=f"{c.alert}-{why}") for c in CASES for why, q in c.quiet.items()],
)
def test_alert_does_not_fire(promtool: Path, tmp_path: Path, case: Case, series: Series) -> None:
    run_tests(promtool, tmp_path, [_test(case, series, case.at, fires=False)])


@pytest.mark.parametrize(("series", "expression", "value"), RECORDED)
def test_recording_rules(
    promtool: Path, tmp_path: Path, series: Series, expression: str, value: float
) -> None:
    expectation = {
        "expr": f"sum({expression})",
        "eval_time": "5m",
        "exp_samples": [{"value": value}],
    }
    test = {"interval": "1m", "input_series": _input(series), "promql_expr_test": [expectation]}
    run_tests(promtool, tmp_path, [test])


def test_the_tests_can_fail(promtool: Path, tmp_path: Path) -> None:
    """Promtool ignores tests that it does not understand, so check that a wrong test fails."""
    wrong = copy.deepcopy(_test(CASES[1], CASES[1].fires, CASES[1].at, fires=False))
    with pytest.raises(AssertionError, match="BadInput"):
        run_tests(promtool, tmp_path, [wrong])


def test_every_alert_has_a_case_and_a_runbook() -> None:
    rules = alerts()
    assert {case.alert for case in CASES} == set(rules)
    assert all(case.quiet for case in CASES)
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        texts = rule["annotations"]
        assert set(texts) == {"summary", "description", "dashboard_url", "runbook_url"}
        assert texts["runbook_url"] == f"docs/runbooks/{name}.md"
        page = (RUNBOOKS / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        assert "\n## What to look at\n" in page
        assert "\n## What to do\n" in page
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(rules)


def test_the_operators_metrics_pass_promtools_linter(promtool: Path) -> None:
    cache = Cache()
    cache.store_evolution(evolution_after(sources=("dev", "test")))
    metrics = OperatorMetrics(cache, lambda: 1.0, lambda: 0)
    metrics.on_response("GET", 200)
    metrics.on_reconciled(("team", "demo"), "done", 0.1)
    run(promtool, "check", "metrics", text=metrics.text().decode())
