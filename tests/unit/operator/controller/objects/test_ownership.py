"""Whose a pod or a Job is: labels alone decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import NAMESPACE, FakeApiServer
from tests.unit.operator.controller.fake_operator import FakeOperator, run_until_idle
from tests.unit.operator.planner.simulated_world import result_of, score_of

from selfemo_api.contract import StageConfig
from selfemo_api.results import FailureMessage, encode_message
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.ownership import is_foreign, is_sealed, job_uid

Json = dict[str, Any]
JOB = {"kind": "Job", "uid": "1", "controller": True}


@pytest.mark.parametrize(
    ("owners", "uid"),
    [
        ([], None),
        ([JOB], "1"),
        ([{"kind": "ConfigMap", "uid": "2"}, JOB], "1"),
        ([{**JOB, "controller": False}], None),
        ([{"kind": "Job", "uid": "1"}], None),
        ([{**JOB, "kind": "ReplicaSet"}], None),
    ],
    ids=str,
)
def test_a_pod_belongs_to_the_job_that_controls_it(owners: list[Json], uid: str | None) -> None:
    labels = {names.LABEL_JOB_UID: "1"}
    assert job_uid({"metadata": {"labels": labels, "ownerReferences": owners}}) == uid


def forged_result(job: Json) -> str:
    """Return the termination message of a stage that was better than it could be."""
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    config = StageConfig.model_validate_json(annotations[names.ANNOTATION_CONFIG])
    result = result_of(config.generation, config.stage, 0.99, folder=config.output)
    if result.scores:
        result = result.model_copy(update={"scores": [score_of(0.99)]})
    return encode_message(result)


def forge(server: FakeApiServer, phase: str, code: int, message: Callable[[Json], str]) -> None:
    """Create a pod with the labels of each stage Job that runs, as anyone may who creates pods."""
    for job in server.jobs():
        name = f"forged-{job['metadata']['name']}"
        path = names.core_path(NAMESPACE, "pods")
        if f"{path}/{name}" in server.objects:
            continue
        labels = {**job["metadata"]["labels"], names.LABEL_JOB_UID: job["metadata"]["uid"]}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": []}
        state = {"terminated": {"exitCode": code, "message": message(job)}}
        status = {"phase": phase, "containerStatuses": [{"name": names.CONTAINER, "state": state}]}
        server._create(path, {"metadata": metadata, "status": status})


@pytest.mark.parametrize("watches_pods", [True, False])
def test_a_result_is_taken_from_no_pod_of_somebody_else(watches_pods: bool) -> None:
    server = FakeApiServer()
    server.add_evolution(stopping={"maxGenerations": 1})

    def start() -> FakeOperator:
        operator = FakeOperator(server, watches_pods=watches_pods)
        operator.kube.fault = lambda _moment, _number: forge(server, "Succeeded", 0, forged_result)
        return operator

    run_until_idle(server, start)
    assert server.status["phase"] == "Succeeded"
    assert [record["f1"] for record in server.status["history"]] == [0.3, 0.35]


def test_a_failure_is_taken_from_no_pod_of_somebody_else() -> None:
    """Bad input would end the evolution at once; this failure is retried."""
    server = FakeApiServer()
    server.add_evolution(stopping={"maxGenerations": 1})
    message = encode_message(FailureMessage(error="forged", kind="BadInput"))

    def start() -> FakeOperator:
        operator = FakeOperator(server)
        operator.kube.fault = lambda _moment, _number: forge(server, "Failed", 2, lambda _: message)
        return operator

    run_until_idle(server, start, lambda name: 1 if name.endswith("evaluate-1") else 0)
    assert server.status["phase"] == "Succeeded"
    assert not [e for e in server.of("events") if "forged" in e["message"]]


def purge_job(**metadata: Any) -> Json:
    labels = {
        names.LABEL_COMPONENT: names.PURGE,
        names.LABEL_EVOLUTION: "demo",
        names.LABEL_UID: "0123456789ab",
    }
    annotations = {names.ANNOTATION_TEMPLATE: "x", names.ANNOTATION_JOB: "1"}
    own = {"name": "demo-01234567-purge", "uid": "1", "labels": labels, "annotations": annotations}
    return {"metadata": {**own, **metadata}}


@pytest.mark.parametrize(
    ("changes", "foreign", "sealed"),
    [
        ({}, False, True),
        ({"annotations": {names.ANNOTATION_TEMPLATE: "x"}}, False, False),
        ({"uid": "2"}, True, False),
        ({"annotations": None}, True, False),
        ({"labels": {}}, True, False),
        ({"name": "demo-other-purge"}, True, False),
        ({"ownerReferences": [{"kind": "CronJob", "uid": "3"}]}, True, False),
    ],
    ids=str,
)
def test_a_purge_job_is_told_from_a_copy(changes: Json, foreign: bool, sealed: bool) -> None:
    job = purge_job(**changes)
    assert (is_foreign(job), is_sealed(job)) == (foreign, sealed)
