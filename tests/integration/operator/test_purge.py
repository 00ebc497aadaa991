"""`storage.whenDeleted: Delete`: the data of a run is removed with its evolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions, Json
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

DELETE = {"uri": "s3://bucket/runs", "whenDeleted": "Delete"}


def _purge_jobs(evolutions: Evolutions) -> list[Json]:
    jobs = evolutions.jobs()
    return [j for j in jobs if j["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE]


def _delete(kube: KubeClient, evolutions: Evolutions) -> str:
    """Delete the evolution; return the folder of its run."""
    item = evolutions.get()
    uid = item["metadata"]["uid"]
    kube.delete(names.evolution_path((evolutions.namespace, "demo")), uid)
    return f"{evolutions.namespace}/demo-{uid[:8]}"


def test_data_is_removed_once_the_pods_have_ended(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet, kube: KubeClient
) -> None:
    kubelet.hold.set()
    evolutions.create(storage=DELETE)
    wait_for(lambda: len(evolutions.jobs()) == 2, "a stage Job and the purge Job")
    (waiting,) = _purge_jobs(evolutions)
    assert waiting["spec"]["suspend"] is True
    assert "ownerReferences" not in waiting["metadata"]
    assert waiting["metadata"]["annotations"][names.ANNOTATION_JOB] == waiting["metadata"]["uid"]
    folder = _delete(kube, evolutions)
    kubelet.hold.clear()
    wait_for(lambda: kubelet.purged == [folder], "the removal")
    wait_for(lambda: not evolutions.jobs(), "no Job")


def test_data_is_removed_after_a_deletion_without_an_operator(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
) -> None:
    first = make_operator()
    evolutions.create(storage=DELETE, stopping={"maxGenerations": 1})
    evolutions.wait_end()
    first.kill()
    folder = _delete(kube, evolutions)
    wait_for(lambda: len(evolutions.jobs()) == 1, "the stage Jobs to be collected")
    evolutions.create(
        stopping={"maxGenerations": 1}
    )  # an evolution of the same name, whose data stays
    make_operator()
    wait_for(lambda: kubelet.purged == [folder], "the removal")
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded"
    wait_for(lambda: not _purge_jobs(evolutions), "the purge Job to be deleted")
    assert kubelet.purged == [folder]


def test_an_edit_replaces_or_deletes_the_purge_job(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet, kube: KubeClient
) -> None:
    evolutions.create(storage=DELETE, stopping={"maxGenerations": 1})
    evolutions.wait_end()
    assert _purge_jobs(evolutions)
    evolutions.edit(storage={"whenDeleted": "Retain"})
    wait_for(lambda: not _purge_jobs(evolutions), "no purge Job")
    evolutions.edit(storage={"whenDeleted": "Delete", "endpoint": "http://moved"})
    (job,) = wait_for(lambda: _purge_jobs(evolutions), "the new purge Job")
    text = job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_CONFIG]
    assert "http://moved" in text
    evolutions.edit(storage={"whenDeleted": "Retain"})
    wait_for(lambda: not _purge_jobs(evolutions), "no purge Job")
    _delete(kube, evolutions)
    wait_for(lambda: not evolutions.jobs(), "no Job")
    assert kubelet.purged == []


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_an_edit_just_before_the_deletion_decides(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    stopped: bool,
) -> None:
    """Whether the operator runs meanwhile, or starts afterwards."""
    operator = make_operator()
    evolutions.create(storage=DELETE, stopping={"maxGenerations": 1})
    evolutions.wait_end()
    assert _purge_jobs(evolutions)
    if stopped:
        operator.kill()
    evolutions.edit(storage={"whenDeleted": "Retain"})
    _delete(kube, evolutions)
    if stopped:
        make_operator()
    wait_for(lambda: not evolutions.jobs(), "no Job")
    assert kubelet.purged == []


def test_a_purge_job_of_somebody_else_is_left_alone(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet, kube: KubeClient
) -> None:
    """Restored from a backup, it is never started; started by hand, its pod removes nothing."""
    evolutions.create(storage=DELETE, stopping={"maxGenerations": 1})
    evolutions.wait_end()
    (own,) = _purge_jobs(evolutions)
    copied = _restored(own)
    folder = _delete(kube, evolutions)
    wait_for(lambda: kubelet.purged == [folder], "the removal")
    wait_for(lambda: not evolutions.jobs(), "no Job")
    path = names.jobs_path(evolutions.namespace)
    uid = kube.create(path, copied)["metadata"]["uid"]
    events = names.core_path(evolutions.namespace, "events")

    def reported() -> bool:
        query = {"fieldSelector": f"involvedObject.uid={uid},reason=PurgeRefused"}
        return bool(kube.get(events, query)["items"])

    wait_for(reported, "an Event about the copy")
    job = names.job_path((evolutions.namespace, copied["metadata"]["name"]))
    assert kube.get(job)["spec"]["suspend"] is True
    kube.patch(job, {"spec": {"suspend": False}})
    wait_for(lambda: kube.get(job)["status"].get("failed"), "the Job to fail")
    assert kubelet.purged == [folder]


def _restored(job: Json) -> Json:
    """Return a Job as a backup tool creates it again: without what the API server has set."""
    labels = job["metadata"]["labels"]
    template = job["spec"]["template"]
    set_by_server = ("batch.kubernetes.io/", "controller-uid", "job-name")
    own = {
        name: value
        for name, value in template["metadata"]["labels"].items()
        if not name.startswith(set_by_server)
    }
    kept = {name: job["metadata"][name] for name in ("name", "annotations")}
    metadata = {**kept, "labels": labels}
    spec = {name: value for name, value in job["spec"].items() if name != "selector"}
    template = {**template, "metadata": {**template["metadata"], "labels": own}}
    return {**job, "metadata": metadata, "spec": {**spec, "template": template}, "status": {}}
