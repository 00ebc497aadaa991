"""What happens in one namespace does not slow or stop the operator in another."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from selfemo_operator.controller.caches.evolution_text import MAX_SPEC_BYTES, METADATA_EVENT
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import create_namespace, delete_namespace, document, wait_for
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.service_accounts import ServiceAccount
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

Json = dict[str, Any]
WATCHED = "selfemo_operator_namespace_watched"


@pytest.fixture
def other(kube: KubeClient, namespace: str) -> Iterator[str]:
    """A second namespace. What is in it may be too hostile for the clean-up of other tests."""
    name = create_namespace(kube, f"{namespace[:50]}-o")
    yield name
    delete_namespace(kube, name)


def start(kubeconfig: Path, folder: Path, *options: str) -> OperatorProcess:
    process = OperatorProcess(
        kubeconfig, folder / "operator.log", ("--resync-seconds", "2", *options)
    )
    process.start()
    return process


def readiness(process: OperatorProcess) -> Json:
    url = f"http://127.0.0.1:{process.health_port}/readyz"
    try:
        with urlopen(url, timeout=5) as response:
            body: Json = json.load(response)
    except HTTPError as error:
        body = json.load(error)
    return body


def watched(process: OperatorProcess) -> dict[str, float]:
    """Return the series of the watched namespaces. The label `namespace` is the namespace's."""
    with urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = re.findall(rf'^{WATCHED}{{namespace="([^"]*)"}} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_namespace_without_rights_stops_no_other(
    cluster: Cluster,
    kube: KubeClient,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    namespace: str,
    other: str,
    tmp_path: Path,
) -> None:
    account = ServiceAccount(kube, namespace)
    account.allow(namespace)
    kubeconfig = account.kubeconfig(cluster.kubeconfig, tmp_path / "kubeconfig")
    lease = ("--lease-namespace", namespace)
    process = start(kubeconfig, tmp_path, "--namespace", other, "--namespace", namespace, *lease)
    theirs = Evolutions(kube, other)
    try:
        evolutions.create(stopping={"maxGenerations": 1})
        theirs.create()
        evolutions.wait_end()  # without rights in the other one from the start
        assert process.get("/readyz") == process.get("/livez") == 200
        assert "403 Forbidden" in readiness(process)["unwatched"][other]
        assert watched(process) == {other: 0.0, namespace: 1.0}

        account.allow(other)
        theirs.wait(lambda s: s.get("phase"), "its status, once there are rights", seconds=60)
        wait_for(lambda: watched(process) == {other: 1.0, namespace: 1.0}, "both to be watched")

        account.forbid(other)  # in mid-run; streams that are open go on
        wait_for(lambda: watched(process)[other] == 0.0, "the loss to be noticed")
        evolutions.create("second", stopping={"maxGenerations": 1})
        evolutions.wait_end("second")
        theirs.edit(suspend=True)
        time.sleep(2)
        account.allow(other)
        theirs.wait(lambda s: s.get("phase") == "Suspended", "the edit", seconds=60)

        assert process.stop() == 0
        holder = kube.get(names.lease_path(namespace, "selfemo-operator"))["spec"]
        assert not holder.get("holderIdentity"), "the Lease was not released"
    finally:
        process.kill()
    assert "Traceback" not in process.text()


def nested(depth: int) -> str:
    return '{"a":' * depth + "{}" + "}" * depth


#: Specs that cost an operator most: deep, wide, and large.
HOSTILE = {
    "deep": nested(900),
    "deepest": nested(5000),
    "wide": '{"x":[' + ",".join(["{}"] * 100_000) + "]}",
    "large": '{"x":"' + "y" * 1_300_000 + '"}',
    "disguised": '{"x":["' + "y" * 200_000 + '"],"z":{"status":{"phase":"Running"}}}',
}


def create_text(kube: KubeClient, namespace: str, name: str, arguments: str) -> None:
    """Create an evolution whose engine arguments are a JSON text."""
    body = document(name, selfPlay={"engineArgs": "HERE"})
    text = json.dumps(body).replace('"HERE"', arguments)
    pool = kube._client.rest_client.pool_manager
    response = pool.request(
        "POST",
        kube.host + names.evolutions_path(namespace),
        body=text.encode(),
        headers={"Content-Type": "application/json"},
    )
    assert response.status == 201, response.data[:500]


def conditions_of(text: bytes) -> dict[str, tuple[str, str]]:
    """Return the status and the message of each condition in the text of a hostile evolution."""
    status = json.loads(b"{" + text[text.rindex(b',"status":{"') + 1 :])["status"]
    return {c["type"]: (c["status"], c["message"]) for c in status["conditions"]}


@pytest.mark.usefixtures("every_namespace")
def test_hostile_resources_slow_no_other(
    kube: KubeClient,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    namespace: str,
    other: str,
    tmp_path: Path,
) -> None:
    """The operator serves all namespaces: one list has the evolutions of everybody."""
    proxy = CountingProxy(kube)
    for name, arguments in HOSTILE.items():
        create_text(kube, other, name, arguments)
    process = start(proxy.kubeconfig(tmp_path / "kubeconfig"), tmp_path)
    try:
        evolutions.create(stopping={"maxGenerations": 1})
        evolutions.wait_end()
        for name in HOSTILE:
            path = names.evolution_path((other, name))
            wait_for(lambda p=path: b'"Stalled"' in kube.get_text(p), f"the status of {name}")
            conditions = conditions_of(kube.get_text(path))
            assert conditions["Stalled"][0] == "True"
            message = "nested too deeply" if "deep" in name else f"at most {MAX_SPEC_BYTES}"
            assert message in conditions["Stalled"][1]
        time.sleep(5)  # two resyncs
        writes = [path for _, path in proxy.writes if f"/{other}/" in path]
        assert sorted(writes) == sorted(
            names.evolution_path((other, name)) + "/status" for name in HOSTILE
        ), "each is told in one write"
        assert process.stop() == 0
    finally:
        process.kill()
        proxy.stop()
        for name in HOSTILE:
            remove(kube, other, name)
    assert "Traceback" not in process.text()


def remove(kube: KubeClient, namespace: str, name: str) -> None:
    """Delete an evolution whose text may be too deep for a client."""
    path = names.evolution_path((namespace, name))
    match = re.search(rb'"uid":"([^"]+)"', kube.get_text(path, accept=METADATA_EVENT))
    assert match is not None
    kube.delete(path, match[1].decode())


#: The chart's limit of the operator's memory.
LIMIT = 512 * 2**20


@pytest.mark.usefixtures("every_namespace")
@pytest.mark.parametrize(
    "count", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_evolutions_of_the_largest_size_stay_below_the_memory_limit(
    kube: KubeClient, namespace: str, other: str, tmp_path: Path, count: int
) -> None:
    """Half have the largest spec that is read, and half the largest that etcd stores."""
    read = '{"x":[' + ",".join(["{}"] * ((MAX_SPEC_BYTES - 4096) // 3)) + "]}"
    stored = HOSTILE["large"]
    for number in range(count):
        create_text(kube, other, f"e{number}", stored if number % 2 else read)
    process = start(kubeconfig_of(kube, tmp_path), tmp_path)
    try:
        process.wait_ready()
        for number in range(count):
            path = names.evolution_path((other, f"e{number}"))
            wait_for(lambda p=path: b'"conditions":[' in kube.get_text(p), "a status", seconds=600)
        time.sleep(5)  # two resyncs
        assert peak_memory(process) < LIMIT * (0.4 if count < 100 else 1.0)
        assert process.stop() == 0
    finally:
        process.kill()
        for number in range(count):
            remove(kube, other, f"e{number}")
    assert "Traceback" not in process.text()


def kubeconfig_of(kube: KubeClient, folder: Path) -> Path:
    return CountingProxy(kube).kubeconfig(folder / "kubeconfig")


def peak_memory(process: OperatorProcess) -> int:
    """Return the largest resident memory that a process has had, in bytes."""
    assert process.process is not None
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


def scrape(process: OperatorProcess, token: str | None) -> int:
    request = Request(f"http://127.0.0.1:{process.metrics_port}/metrics")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def test_metrics_are_given_to_accounts_that_may_get_them(
    cluster: Cluster, kube: KubeClient, namespace: str, other: str, tmp_path: Path
) -> None:
    prometheus, stranger = ServiceAccount(kube, namespace), ServiceAccount(kube, other)
    role = {"metadata": {"name": f"{namespace}-metrics"}}
    rule = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    kube.create(f"{rbac}/clusterroles", {**role, "rules": [rule]})
    kube.create(
        f"{rbac}/clusterrolebindings",
        {
            **role,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"{namespace}-metrics",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
        },
    )
    process = start(
        cluster.kubeconfig, tmp_path, "--namespace", namespace, "--metrics-authorization"
    )
    try:
        process.wait_ready()
        assert scrape(process, None) == 401
        assert scrape(process, "invented") == 401
        assert scrape(process, stranger.token) == 403
        assert scrape(process, prometheus.token) == 200
    finally:
        process.kill()
        for kind in ("clusterrolebindings", "clusterroles"):
            path = f"{rbac}/{kind}/{namespace}-metrics"
            kube.delete(path, kube.get(path)["metadata"]["uid"])
