"""The API server goes away for a minute, and nothing at all happens for a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions, administrator
from tests.integration.operator.pods import Pods, failing
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.proxy import Proxy
from tests.integration.operator.test_operator import IMAGE_WAIT, STAGES
from tests.support.cluster import Cluster
from tests.support.cluster.fixtures import fragile_control_plane

__all__ = ["fragile_control_plane"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("away"),
]

MINUTE = 60.0
QUEUED = "queued-g000-evaluate-1"


@pytest.fixture(scope="session")
def cluster(fragile_control_plane: Cluster) -> Cluster:
    """One of their own: other tests go on meanwhile."""
    return fragile_control_plane


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> KubeClient:
    # the usual one would be the other cluster's, where a test before has asked for it
    return administrator(cluster)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_the_api_server_is_away_for_a_minute(
    how: str, operator: OperatorProcess, evolutions: Evolutions, pods: Pods, cluster: Cluster
) -> None:
    pods.seconds = 1.0  # so that it is in the middle of a run
    evolutions.create()
    evolutions.wait(lambda s: s.get("generation") == 1, "generation 1")
    leave, back = {
        "refuses": (cluster.stop_apiserver, cluster.start_apiserver),
        "hangs": (cluster.pause_apiserver, cluster.resume_apiserver),
    }[how]
    leave()
    try:
        time.sleep(MINUTE)
    finally:
        back()
    status = evolutions.wait_end(seconds=150)["status"]
    assert status["phase"] == "Succeeded"
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    assert status["failures"] == status["disruptions"] == 0
    assert len(evolutions.jobs()) == STAGES
    assert len([key for *key, code in pods.ended if code == 0]) == STAGES
    assert operator.get("/livez") == 200


def test_a_minute_at_rest_takes_no_write(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    pods: Pods,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
) -> None:
    proxy = Proxy(kube)
    try:
        make_operator(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"))
        evolutions.create("succeeded", evolution={"maxGenerations": 1})
        evolutions.wait_end("succeeded")
        pods.ending = failing(2, "no such file")
        evolutions.create("failed")
        evolutions.wait_end("failed")
        evolutions.create("suspended", suspend=True)
        pods.hold.set()
        evolutions.create("queued", queue={"name": "nobody"})
        job = names.job_path((namespace, QUEUED))
        wait_for(lambda: any(j["metadata"]["name"] == QUEUED for j in evolutions.jobs()), "its Job")
        kube.patch(job, {"spec": {"suspend": True}})  # as Kueue does
        evolutions.create("running")
        evolutions.wait(lambda s: s.get("phase") == "Running", "a run", "running")
        evolutions.wait(lambda s: s.get("phase") == "Queued", "the queue", "queued")
        pods.waiting = IMAGE_WAIT
        evolutions.create("waiting")
        evolutions.wait(lambda s: "ImagePull" in str(s.get("conditions")), "the wait", "waiting")
        time.sleep(8)  # a young pod's wait is told after a while
        made = len(proxy.writes)
        time.sleep(MINUTE)
        assert proxy.writes[made:] == []
    finally:
        proxy.stop()
