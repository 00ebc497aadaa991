"""An outage of the API server, etcd restored from a backup, and an idle minute without a write."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions, administrator
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.fake_kubelet import FakeKubelet, failing
from tests.integration.operator.process import OperatorProcess
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
QUEUED = "queued-g000-check-1"


@pytest.fixture(scope="session")
def cluster(fragile_control_plane: Cluster) -> Cluster:
    """A cluster of its own: other tests run at the same time."""
    return fragile_control_plane


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> KubeClient:
    # the fixture of conftest.py may belong to the other cluster already
    return administrator(cluster)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_an_outage_of_the_api_server_of_a_minute(
    how: str,
    operator: OperatorProcess,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    cluster: Cluster,
) -> None:
    kubelet.seconds = 1.0  # so that the outage falls into the run
    evolutions.create()
    evolutions.wait(lambda s: s.get("generation") == 1, "generation 1")
    interrupt, restore = {
        "refuses": (cluster.stop_apiserver, cluster.start_apiserver),
        "hangs": (cluster.pause_apiserver, cluster.resume_apiserver),
    }[how]
    interrupt()
    try:
        time.sleep(MINUTE)
    finally:
        restore()
    status = evolutions.wait_end(seconds=150)["status"]
    assert status["phase"] == "Succeeded"
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    assert status["failures"] == status["disruptions"] == 0
    assert len(evolutions.jobs()) == STAGES
    assert len([key for *key, code in kubelet.ended if code == 0]) == STAGES
    assert operator.get("/livez") == 200


def test_a_restored_etcd_needs_no_restart_of_the_operator(
    operator: OperatorProcess,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    cluster: Cluster,
) -> None:
    """Resource versions go back: what the operator has cached is newer than all that follows."""
    evolutions.create()
    evolutions.wait(lambda s: s.get("generation") == 1, "generation 1")
    backup = cluster.back_up()
    evolutions.wait_end()
    evolutions.create("later")
    evolutions.wait(lambda s: s.get("phase") == "Running", "a run after the backup", "later")
    cluster.restore(backup)
    status = evolutions.wait_end(seconds=240)["status"]
    assert status["phase"] == "Succeeded"
    assert [g["generation"] for g in status["history"]] == [0, 1, 2]
    assert status["failures"] == 0
    assert "everything is listed again" in operator.text()
    assert operator.process is not None
    assert operator.process.poll() is None, "the same process"
    evolutions.create("new", stopping={"maxGenerations": 1})
    assert evolutions.wait_end("new")["status"]["phase"] == "Succeeded"
    with pytest.raises(ApiError, match="not found"):
        evolutions.get("later")


def test_nothing_is_written_in_an_idle_minute(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
) -> None:
    proxy = CountingProxy(kube)
    try:
        make_operator(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"))
        evolutions.create("succeeded", stopping={"maxGenerations": 1})
        evolutions.wait_end("succeeded")
        kubelet.ending = failing(2, "no such file")
        evolutions.create("failed")
        evolutions.wait_end("failed")
        evolutions.create("suspended", suspend=True)
        kubelet.hold.set()
        evolutions.create("queued", queue={"name": "unmanaged"})
        job = names.job_path((namespace, QUEUED))
        wait_for(lambda: any(j["metadata"]["name"] == QUEUED for j in evolutions.jobs()), "its Job")
        kube.patch(job, {"spec": {"suspend": True}})  # as Kueue does
        evolutions.create("running")
        evolutions.wait(lambda s: s.get("phase") == "Running", "a run", "running")
        evolutions.wait(lambda s: s.get("phase") == "Queued", "the queue", "queued")
        kubelet.waiting = IMAGE_WAIT
        evolutions.create("waiting")
        evolutions.wait(lambda s: "ImagePull" in str(s.get("conditions")), "the wait", "waiting")
        time.sleep(8)  # the reason why a pod waits is reported after a few seconds
        count = len(proxy.writes)
        time.sleep(MINUTE)
        assert proxy.writes[count:] == []
    finally:
        proxy.stop()
