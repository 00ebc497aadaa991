"""Jobs that are changed while they run, and pods without their Job, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

Json = dict[str, Any]


def first_job(evolutions: Evolutions) -> Json:
    """Return the Job of the first stage, once its pod runs."""

    def running() -> Json | None:
        jobs = evolutions.jobs()
        return jobs[0] if jobs and jobs[0].get("status", {}).get("ready") else None

    job: Json = wait_for(running, "the first Job to run")
    return job


def test_a_running_job_follows_an_edited_deadline(
    kube: KubeClient, operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.seconds = 600
    evolutions.create(deadlines={"stageActiveSeconds": 3000})
    job = first_job(evolutions)
    path = names.job_path((evolutions.namespace, job["metadata"]["name"]))
    assert job["spec"]["activeDeadlineSeconds"] == 3060
    for seconds, expected in ((9000, 9060), (2000, 2060), (None, None)):
        evolutions.edit(deadlines={"stageActiveSeconds": seconds})
        wait_for(
            lambda expected=expected: (
                kube.get(path)["spec"].get("activeDeadlineSeconds") == expected
            ),
            f"the deadline {expected}",
        )
    assert kube.get(path)["metadata"]["uid"] == job["metadata"]["uid"], "it is the same Job"
    # the API server changes a Job only under the uid that a patch names
    with pytest.raises(ApiError) as refused:
        kube.patch(path, {"metadata": {"uid": "another"}, "spec": {"suspend": True}})
    assert refused.value.status in (409, 422)
    assert not kube.get(path)["spec"].get("suspend")
    assert operator.text().count("Traceback") == 0


def test_a_job_waits_for_the_pod_of_one_that_was_deleted_by_hand(
    kube: KubeClient, operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet
) -> None:
    kubelet.seconds = 600
    evolutions.create(stopping={"maxGenerations": 1})
    job = first_job(evolutions)
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    path = names.job_path((evolutions.namespace, name))
    options = {"propagationPolicy": "Orphan", "preconditions": {"uid": uid}}
    kube._request("DELETE", path, None, options)
    evolutions.wait(
        lambda _: "of an earlier attempt has not ended" in _message(evolutions), "a message"
    )
    assert evolutions.jobs() == []
    kubelet.seconds = 0
    pods = names.core_path(evolutions.namespace, "pods")
    for pod in kube.get(pods)["items"]:
        kube._request(
            "DELETE", f"{pods}/{pod['metadata']['name']}", None, {"gracePeriodSeconds": 0}
        )
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded"
    assert operator.text().count("Traceback") == 0


def _message(evolutions: Evolutions) -> str:
    return str(evolutions.condition("Progressing").get("message", ""))
