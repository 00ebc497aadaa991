"""`storage.whenDeleted`: a run's data goes with its evolution where the spec says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions, Json
from tests.integration.operator.pods import Pods
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

DELETE = {"uri": "s3://bucket/runs", "whenDeleted": "Delete"}


def _purges(evolutions: Evolutions) -> list[Json]:
    jobs = evolutions.jobs()
    return [j for j in jobs if j["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE]


def _delete(kube: KubeClient, evolutions: Evolutions) -> str:
    """Delete the evolution; return its run's folder."""
    item = evolutions.get()
    uid = item["metadata"]["uid"]
    kube.delete(names.evolution_path((evolutions.namespace, "demo")), uid)
    return f"{evolutions.namespace}/demo-{uid[:8]}"


def test_data_goes_once_the_pods_have_ended(
    operator: OperatorProcess, evolutions: Evolutions, pods: Pods, kube: KubeClient
) -> None:
    pods.hold.set()
    evolutions.create(storage=DELETE)
    wait_for(lambda: len(evolutions.jobs()) == 2, "a stage's Job and the one that waits")
    (waiting,) = _purges(evolutions)
    assert waiting["spec"]["suspend"] is True
    assert "ownerReferences" not in waiting["metadata"]
    folder = _delete(kube, evolutions)
    pods.hold.clear()
    wait_for(lambda: pods.purged == [folder], "the removal")
    wait_for(lambda: not evolutions.jobs(), "no Job")


def test_data_goes_though_no_operator_saw_the_deletion(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    pods: Pods,
    kube: KubeClient,
) -> None:
    first = make_operator()
    evolutions.create(storage=DELETE, evolution={"maxGenerations": 1})
    evolutions.wait_end()
    first.kill()
    folder = _delete(kube, evolutions)
    wait_for(lambda: len(evolutions.jobs()) == 1, "the stage Jobs to be collected")
    evolutions.create(evolution={"maxGenerations": 1})  # another of its name keeps its own
    make_operator()
    wait_for(lambda: pods.purged == [folder], "the removal")
    assert evolutions.wait_end()["status"]["phase"] == "Succeeded"
    wait_for(lambda: not _purges(evolutions), "the Job to be gone")
    assert pods.purged == [folder]


def test_an_edit_decides_anew(
    operator: OperatorProcess, evolutions: Evolutions, pods: Pods, kube: KubeClient
) -> None:
    evolutions.create(storage=DELETE, evolution={"maxGenerations": 1})
    evolutions.wait_end()
    assert _purges(evolutions)
    evolutions.edit(storage={"whenDeleted": "Retain"})
    wait_for(lambda: not _purges(evolutions), "no Job that removes data")
    evolutions.edit(storage={"whenDeleted": "Delete", "endpoint": "http://moved"})
    (job,) = wait_for(lambda: _purges(evolutions), "the Job again")
    text = job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_CONFIG]
    assert "http://moved" in text
    evolutions.edit(storage={"whenDeleted": "Retain"})
    wait_for(lambda: not _purges(evolutions), "no Job that removes data")
    _delete(kube, evolutions)
    wait_for(lambda: not evolutions.jobs(), "no Job")
    assert pods.purged == []
