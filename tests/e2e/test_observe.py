"""A real Prometheus watches a real run: what the manifests say, and every expression shipped."""

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
"""What a gain cost in GPU-hours: the run has none."""


def test_prometheus_sees_what_the_manifests_say(
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
        began = time.time()
        made = evolution(evolution={"maxGenerations": GENERATIONS, "goal": {"f1": 0.99}})
        kubectl.apply(made)
        status = wait_status(kubectl, lambda s: s.get("completionTime"), "the end", 1500)
        assert status["phase"] == "Succeeded", status
        time.sleep(5)  # the last scrapes, and two evaluations of the rules
        _figures_equal(server, node_cluster, status, began)
        _every_expression_answers(server, namespace, began)
        assert [r["lastError"] for r in server.rules() if r["health"] != "ok"] == []
        kubectl("delete", "emo", "small")
        wait_for(lambda: not server.query('{__name__=~"selfemo_evolution_.+"}'), "no series")


def _figures_equal(server: Prometheus, cluster: Cluster, status: Json, began: float) -> None:
    """Each generation's F1, reward and kept candidates were seen as its manifests have them."""
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

    def seen(metric: str) -> set[float]:
        found = server.values(f"max by (namespace, name) (selfemo_evolution_{metric})", began, now)
        assert len(found) == 1, found
        return next(iter(found.values()))

    assert seen("weighted_f1_ratio") == f1
    assert seen("reward_mean") == rewards
    assert seen("kept_candidates") == kept
    assert seen("generation") == set(range(GENERATIONS + 1))
    assert max(seen("best_f1_ratio")) == status["best"]["f1"]


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
    assert len(keys) == 1 + 5 * GENERATIONS, keys
    return [json.loads(client.get_object(Bucket=bucket, Key=k)["Body"].read()) for k in keys]


def _every_expression_answers(server: Prometheus, namespace: str, began: float) -> None:
    """None errs, and each that must have data has had it during the run."""
    wrong = []
    now = time.time()
    for expression in expressions():
        expr = resolved(expression.expr, {"namespace": namespace, "name": "small"})
        try:
            found = server.values(expr, began, now)
        except QueryError as error:
            wrong.append(f"{expression.place}: {error}")
            continue
        absent = expression.optional or NO_GPU in expression.place + expr
        if not found and not absent:
            wrong.append(f"{expression.place}: no data: {expr}")
    assert not wrong, "\n".join(wrong)
