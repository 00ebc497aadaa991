"""A real Prometheus during a real run: the values of the manifests, and every expression."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.dashboards.expressions import expressions, resolved

from tests.e2e.conftest import Json, Kubectl, s3_client, wait_status
from tests.integration.operator.api import wait_for
from tests.support.cluster import Cluster
from tests.support.cluster.fixtures import program_or_skip
from tests.support.prometheus import Prometheus, QueryError, prometheus

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.observe,
    pytest.mark.timeout(2400),
    pytest.mark.xdist_group("pods-2"),
]

GENERATIONS = 2
NO_GPU = "per_gpu_hour"
"""The end of the names of rules with GPU hours, which the run does not have."""


def test_prometheus_records_the_values_of_the_manifests(
    install: Callable[..., Any],
    kubectl: Kubectl,
    evolution: Callable[..., Json],
    node_cluster: Cluster,
    namespace: str,
    tmp_path: Path,
) -> None:
    program = program_or_skip("prometheus", "SELFEMO_PROMETHEUS")
    install({})
    selector = "app.kubernetes.io/component=operator"
    listed = kubectl("get", "pods", "--selector", selector, "--output", "json")
    addresses = [f"{pod['status']['podIP']}:8080" for pod in json.loads(listed)["items"]]
    assert len(addresses) == 2
    with prometheus(program, tmp_path, addresses, namespace) as server:
        wait_for(lambda: server.healthy() == 2, "both operators to be scraped")
        start = time.time()
        document = evolution(stopping={"maxGenerations": GENERATIONS, "goal": 0.99})
        kubectl.apply(document)
        status = wait_status(kubectl, lambda s: s.get("completionTime"), "the end", 1500)
        assert status["phase"] == "Succeeded", status
        time.sleep(5)  # the last scrapes, and two evaluations of the rules
        _check_values(server, node_cluster, status, start)
        _check_expressions(server, namespace, start)
        assert [r["lastError"] for r in server.rules() if r["health"] != "ok"] == []
        kubectl("delete", "emo", "small")
        wait_for(lambda: not server.query('{__name__=~"selfemo_evolution_.+"}'), "no series")


def _check_values(server: Prometheus, cluster: Cluster, status: Json, start: float) -> None:
    """Check that the F1, reward and kept candidates of each generation were recorded."""
    f1: set[float] = set()
    rewards: set[float] = set()
    kept: set[float] = set()
    for manifest in _manifests(cluster, status):
        match manifest["stage"]:
            case "Evaluate":
                f1.add(manifest["scores"][0]["weightedF1"])
            case "Score":
                rewards.add(manifest["metrics"]["rewardMean"])
            case "Flywheel":
                kept.add(manifest["rows"])
    now = time.time()

    def recorded(metric: str) -> set[float]:
        series = server.values(f"max by (namespace, name) (selfemo_evolution_{metric})", start, now)
        assert len(series) == 1, series
        return next(iter(series.values()))

    assert recorded("weighted_f1_ratio") == f1
    assert recorded("reward_mean") == rewards
    assert recorded("kept_candidates") == kept
    assert recorded("generation") == set(range(GENERATIONS + 1))
    assert max(recorded("best_f1_ratio")) == status["best"]["f1"]


def _manifests(cluster: Cluster, status: Json) -> list[Json]:
    """Return the manifests of all stages of the run."""
    s3 = cluster.s3
    assert s3 is not None
    client = s3_client(s3)
    model = status["history"][-1]["modelUri"]
    bucket, _, key = model.removeprefix("s3://").partition("/")
    folder = key.partition("/generations/")[0] + "/generations/"
    listed = client.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    keys = [o["Key"] for o in listed if o["Key"].endswith("/manifest.json")]
    assert len(keys) == 3 + 6 * GENERATIONS, keys
    return [json.loads(client.get_object(Bucket=bucket, Key=k)["Body"].read()) for k in keys]


def _check_expressions(server: Prometheus, namespace: str, start: float) -> None:
    """Check that no expression fails, and that each has had data during the run if required."""
    problems = []
    now = time.time()
    for expression in expressions():
        expr = resolved(expression.expr, {"namespace": namespace, "name": "small"})
        try:
            series = server.values(expr, start, now)
        except QueryError as error:
            problems.append(f"{expression.place}: {error}")
            continue
        # the pods of stages are not scraped here
        absent = expression.optional or expression.live or NO_GPU in expression.place + expr
        if not series and not absent:
            problems.append(f"{expression.place}: no data: {expr}")
    assert not problems, "\n".join(problems)
