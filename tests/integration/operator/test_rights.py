"""The rights of the chart: each is needed, and together they are enough.

The operator starts without any right. The API server's audit log has each request that was denied;
the test then grants this one right, if the chart has it. At the end an evolution has completed its
whole life, and the operator has missed every right of the chart once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from tests.integration.chart.helm import Helm, find, find_helm4
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("operator")]

ROLES = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNT = "operator"
LEASE = "selfemo"
#: Seconds for the whole life. Each missing right costs a retry of the operator.
SECONDS = 400.0


class Right(NamedTuple):
    """One verb on one resource."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def rule(self) -> dict[str, Any]:
        rule = {"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]}
        return {**rule, "resourceNames": [self.name]} if self.name else rule


#: Needed where the API server checks `blockOwnerDeletion`, which is a check of admission.
FINALIZERS = Right("selfemo.dev", "emotionevolutions/finalizers", "update")


def rights_of_the_chart(namespace: str) -> set[Right]:
    """Return the rights that the chart gives the operator in a namespace and for its Lease."""
    objects = Helm(find_helm4()).template({"watchNamespaces": [namespace]})
    rules = find(objects, "Role", "selfemo")["rules"]
    rules += find(objects, "Role", "selfemo-lease")["rules"]
    assert not [
        o
        for o in objects
        if o["kind"] == "ClusterRole" and not o["metadata"]["name"].endswith(("-view", "-edit"))
    ]
    return {
        Right(group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


@pytest.fixture
def account(cluster: Cluster, kube: KubeClient, namespace: str, tmp_path: Path) -> Path:
    """Create a service account with an empty role; return a kubeconfig with its token."""
    core = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube.create(core, {"metadata": {"name": ACCOUNT}})
    token = kube.create(
        f"{core}/{ACCOUNT}/token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        },
    )["status"]["token"]
    path = f"{ROLES}/namespaces/{namespace}"
    kube.create(f"{path}/roles", {"metadata": {"name": ACCOUNT}, "rules": []})
    kube.create(
        f"{path}/rolebindings",
        {
            "metadata": {"name": ACCOUNT},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": ACCOUNT,
            },
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        },
    )
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{**user, "user": {"token": token}} for user in config["users"]]
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


class Rights:
    """The rights of the operator's account, which grow with its denied requests.

    Parameters
    ----------
    kube
        A client with an administrator's rights.
    namespace
        The namespace of the account.
    audit_log
        The audit log of the API server.
    chart
        The rights that may be granted.
    """

    def __init__(
        self, kube: KubeClient, namespace: str, audit_log: Path, chart: set[Right]
    ) -> None:
        self._kube, self._chart = kube, chart
        self._user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
        self._role = f"{ROLES}/namespaces/{namespace}/roles/{ACCOUNT}"
        self._file = audit_log.open("rb")
        self._file.seek(0, 2)
        self._rest = b""
        self.granted: set[Right] = set()
        self.beyond: set[Right] = set()
        """What the operator has requested and the chart does not grant."""

    def close(self) -> None:
        self._file.close()

    def update(self) -> None:
        """Grant the rights that the operator has missed since the last call."""
        missed = set(self._missed())
        self.beyond |= missed - self._chart
        new = missed & self._chart - self.granted
        if new:
            self.granted |= new
            rules = [right.rule() for right in sorted(self.granted)]
            self._kube.patch(self._role, {"rules": rules})

    def _missed(self) -> Iterator[Right]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            if self._user.encode() not in line:
                continue
            entry = json.loads(line)
            if entry["user"]["username"] != self._user or entry["responseStatus"]["code"] != 403:
                continue
            if "blockOwnerDeletion" in entry["responseStatus"].get("message", ""):
                yield FINALIZERS
                continue
            target = entry["objectRef"]
            resource = target["resource"]
            if "subresource" in target:
                resource += f"/{target['subresource']}"
            right = Right(target.get("apiGroup", ""), resource, entry["verb"])
            named = right._replace(name=target.get("name", ""))
            yield named if named in self._chart else right


def test_each_right_of_the_chart_is_needed_and_they_are_enough(
    cluster: Cluster,
    kube: KubeClient,
    evolutions: Evolutions,
    kubelet: FakeKubelet,
    account: Path,
    namespace: str,
    make_operator: Callable[..., OperatorProcess],
) -> None:
    if cluster.audit_log is None:
        pytest.skip("this cluster has no audit log")
    chart = rights_of_the_chart(namespace)
    rights = Rights(kube, namespace, cluster.audit_log, chart)
    options = ("--lease-namespace", namespace, "--lease-name", LEASE)
    # the schema of the CRD, which `/readyz` waits for, is open to every account
    operator = make_operator(*options, kubeconfig=account)
    evolutions.create(
        resources={"gpusPerNode": 0, "nodes": 2},
        storage={"uri": "s3://bucket/runs", "whenDeleted": "Delete"},
        ttlSecondsAfterFinished=1,
        training={"microBatchSize": 4},  # for two processes
        overrides={
            "training": {"precision": "Float32"},
            "failurePolicy": {"backoffSeconds": 0},
        },
    )

    def is_over() -> bool:
        """Whether the evolution has run, and was deleted with its data and its purge Job."""
        rights.update()
        assert "BadInput" not in operator.text(), operator.text()[-2000:]
        if operator.process is not None and operator.process.poll() is not None:
            operator.start()  # a pod's container would be restarted, too
        return bool(kubelet.purged) and not evolutions.jobs() and _is_gone(evolutions)

    begin = time.monotonic()
    try:
        wait_for(is_over, "the end of the evolution and of its data", seconds=SECONDS, every=0.2)
    finally:
        rights.close()
        missing = ", ".join(sorted(f"{r.verb} {r.resource}" for r in chart - rights.granted))
        print(f"{len(rights.granted)} rights in {time.monotonic() - begin:.0f} s; not: {missing}")
    assert chart - rights.granted <= set(), "rights of the chart that the operator does not need"
    assert not [r for r in rights.beyond if r.group in ("selfemo.dev", "batch")], rights.beyond
    generations = {generation for generation, _, code in kubelet.ended if code == 0}
    assert generations == {0, 1, 2}


def _is_gone(evolutions: Evolutions) -> bool:
    try:
        evolutions.get()
    except ApiError as error:
        return error.status == 404
    return False
