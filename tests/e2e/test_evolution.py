"""`helm install` and `kubectl apply`: whole runs with real pods, real stages and a real S3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from tests.e2e.conftest import Json, Kubectl, owned, wait_status
from tests.integration.operator.api import wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.xdist_group("pods-1"),
]


def _wait(kubectl: Kubectl, seconds: int) -> Json:
    return wait_status(kubectl, lambda status: status.get("completionTime"), "the end", seconds)


def _describe(kubectl: Kubectl) -> str:
    return kubectl("describe", "emo", "small")


def _log(kubectl: Kubectl, job: str) -> str:
    return kubectl("logs", "--selector", f"batch.kubernetes.io/job-name={job}", "--tail=-1")


@pytest.mark.smoke
def test_three_generations_and_a_deletion_without_remains(
    install: Callable[..., Any],
    kubectl: Kubectl,
    evolution: Callable[..., Json],
    admin: KubeClient,
    namespace: str,
) -> None:
    install({})
    kubectl.apply(evolution())
    status = _wait(kubectl, 1500)
    assert status["phase"] == "Succeeded", _describe(kubectl)
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    assert all(0.0 <= g["f1"] <= 1.0 for g in status["history"])
    assert status["history"][1]["kept"] > 0
    kubectl("wait", "--for=condition=Succeeded", "emo/small", "--timeout=5s")
    columns = kubectl("get", "emo").splitlines()
    assert columns[0].split() == [
        "NAME",
        "PHASE",
        "GENERATION",
        "STAGE",
        "REWARD",
        "F1",
        "BEST",
        "AGE",
    ]
    assert columns[1].split()[:4] == ["small", "Succeeded", "2", "Publish"]
    assert "GenerationBaseline" in _describe(kubectl)
    kubectl("delete", "emo", "small")
    wait_for(lambda: owned(admin, namespace) == [], "all objects to be deleted")


def test_vllm_with_two_shards_and_training_with_two_pods(
    install: Callable[..., Any], kubectl: Kubectl, evolution: Callable[..., Json]
) -> None:
    install({})
    document = evolution(
        selfPlay={"engine": "VLLM", "shards": 2, "batchPrompts": 8},
        evaluation={"engine": "Transformers"},
        training={"batchSize": 16, "microBatchSize": 8},
        resources={"nodes": 2},
        stopping={"maxGenerations": 1},
    )
    kubectl.apply(document)
    assert _wait(kubectl, 1800)["phase"] == "Succeeded", _describe(kubectl)
    jobs = {j["metadata"]["name"]: j for j in kubectl.get("jobs")["items"]}
    assert jobs["small-g001-selfplay-1"]["status"]["succeeded"] == 2
    assert jobs["small-g001-train-1"]["status"]["succeeded"] == 2
    log = _log(kubectl, "small-g001-train-1")
    ready = [json.loads(x) for x in log.splitlines() if "the engine is ready" in x]
    assert ready
    assert all(line["worldSize"] == 2 for line in ready)
    assert "vllm" in _log(kubectl, "small-g001-selfplay-1").lower()
