"""The chart on a real API server: installation, rights, and the objects that are kept.

The CRD may be installed already, and it is never deleted, because other tests or users may use it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.integration.chart.helm import CHART, ROOT, VALUES, Helm, HelmError
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.chart,
    pytest.mark.cluster,
    pytest.mark.xdist_group("operator"),  # with Helm 3 in `make e2e`
]

api: Any = client  # their types want objects where JSON does
#: Verb, API group and resource of rights that the operator has in a namespace that it serves.
ALLOWED = (
    ("list", "selfemo.dev", "emotionevolutions"),
    ("delete", "selfemo.dev", "emotionevolutions"),
    ("update", "selfemo.dev", "emotionevolutions/status"),
    ("update", "selfemo.dev", "emotionevolutions/finalizers"),
    ("create", "batch", "jobs"),
    ("list", "", "pods"),
    ("watch", "", "pods"),
    ("create", "", "services"),
    ("create", "", "events"),
)
FORBIDDEN = (
    ("create", "selfemo.dev", "emotionevolutions"),
    ("update", "selfemo.dev", "emotionevolutions"),
    ("get", "", "secrets"),
    ("create", "", "pods"),
    ("create", "", "pods/exec"),
    ("get", "", "pods/log"),
    ("delete", "", "services"),
    ("create", "", "serviceaccounts/token"),
    ("get", "apiextensions.k8s.io", "customresourcedefinitions"),
)


@dataclass
class Release:
    """A release of the chart in a cluster."""

    helm: Helm
    cluster: Cluster
    namespace: str
    name: str

    def run(self, command: str, *arguments: str) -> str:
        place = ["--namespace", self.namespace]
        return self.helm.run(
            command, self.name, *arguments, *place, kubeconfig=self.cluster.kubeconfig
        )

    def is_allowed(
        self, account: str, verb: str, group: str, resource: str, namespace: str
    ) -> bool:
        """Return whether a service account has a right."""
        resource, _, below = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        if below:
            attributes["subresource"] = below
        user = {"user": account, "resourceAttributes": attributes}
        with self.cluster.client() as connection:
            review = api.AuthorizationV1Api(connection).create_subject_access_review({"spec": user})
        return bool(review.status.allowed)

    def install(self, *options: str) -> str:
        # the release takes over the CRD that other tests use: its removal must keep it
        kept = ("--set", "crds.keep=true")
        return self.run("install", str(CHART), "--take-ownership", *options, *kept)

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}-selfemo"


@pytest.fixture
def release(
    helm: Helm, control_plane: Cluster, make_namespace: Callable[..., str]
) -> Iterator[Release]:
    """A release that is not installed; it is uninstalled after the test."""
    release = Release(
        helm, control_plane, make_namespace(control_plane), f"r{secrets.token_hex(3)}"
    )
    yield release
    release.run("uninstall", "--ignore-not-found")


@pytest.mark.parametrize("name", [p.stem for p in sorted(VALUES.glob("*.yaml"))])
def test_the_api_server_admits_the_objects(release: Release, name: str) -> None:
    options = ["--values", str(VALUES / f"{name}.yaml")]
    if name == "monitoring":  # the types of the Prometheus operator are not installed
        with pytest.raises(HelmError, match="is on, but the cluster does not serve "):
            release.install(*options, "--dry-run=server")
        options += ["--set", "renderMode=SkipIfMissing"]
    if name in ("scoped", "evolution", "stages"):  # its namespaces do not exist
        options += ["--set", f"watchNamespaces={{{release.namespace}}}"]
    if name == "extras":
        options += ["--set", f"jobs.serviceAccount.namespaces={{{release.namespace}}}"]
    release.install(*options, "--dry-run=server")
    notes = release.install(*options)
    skipped = "the cluster lacks the CRDs for metrics.serviceMonitor, metrics.podMonitor, "
    assert (skipped in notes) == (name == "monitoring")


def test_the_pods_are_admitted_under_the_restricted_standard(release: Release) -> None:
    release.install()
    selector = f"app.kubernetes.io/instance={release.name}"
    with release.cluster.client() as connection:
        core = api.CoreV1Api(connection)
        for _ in range(100):  # the controller manager creates them
            pods = core.list_namespaced_pod(release.namespace, label_selector=selector).items
            if len(pods) == 2:
                break
            time.sleep(0.1)
    assert len(pods) == 2


def test_rights_in_all_namespaces(release: Release, make_namespace: Callable[..., str]) -> None:
    elsewhere = make_namespace(release.cluster)
    release.install()
    assert [x for x in ALLOWED if not release.is_allowed(release.account, *x, elsewhere)] == []
    assert [x for x in FORBIDDEN if release.is_allowed(release.account, *x, elsewhere)] == []
    lease = ("update", "coordination.k8s.io", "leases")
    assert not release.is_allowed(release.account, *lease, release.namespace)  # only its own Lease
    assert not release.is_allowed(release.account, *lease, elsewhere)


def test_rights_in_named_namespaces_only(
    release: Release, make_namespace: Callable[..., str]
) -> None:
    served, elsewhere = make_namespace(release.cluster), make_namespace(release.cluster)
    release.install("--set", f"watchNamespaces={{{served}}}")
    assert [x for x in ALLOWED if not release.is_allowed(release.account, *x, served)] == []
    assert [x for x in FORBIDDEN if release.is_allowed(release.account, *x, served)] == []
    assert [x for x in ALLOWED if release.is_allowed(release.account, *x, elsewhere)] == []
    jobs = f"system:serviceaccount:{served}:{release.name}-selfemo-jobs"
    assert [x for x in ALLOWED + FORBIDDEN if release.is_allowed(jobs, *x, served)] == []


@pytest.mark.parametrize(
    ("role", "reads", "creates"),
    [("view", True, False), ("edit", True, True), ("admin", True, True)],
)
def test_the_clusters_roles_include_evolutions(
    release: Release, role: str, reads: bool, creates: bool
) -> None:
    release.install()
    account = f"system:serviceaccount:{release.namespace}:someone"
    binding = {
        "metadata": {"name": "someone"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "someone", "namespace": release.namespace}],
    }
    with release.cluster.client() as connection:
        rbac = api.RbacAuthorizationV1Api(connection)
        rbac.create_namespaced_role_binding(release.namespace, binding)
    what = ("selfemo.dev", "emotionevolutions", release.namespace)
    deadline = time.monotonic() + 60
    # The controller manager aggregates the roles, and the API server's cache of roles follows.
    while release.is_allowed(account, "list", *what) is not reads:
        assert time.monotonic() < deadline, f"{role} has not got the right to list evolutions"
        time.sleep(0.1)
    assert release.is_allowed(account, "create", *what) is creates
    assert not release.is_allowed(
        account, "update", "selfemo.dev", "emotionevolutions/status", what[2]
    )


def test_evolutions_outlive_the_release(release: Release) -> None:
    release.install()
    evolution = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())
    place = ("selfemo.dev", "v1alpha1", release.namespace, "emotionevolutions")
    with release.cluster.client() as connection:
        custom = api.CustomObjectsApi(connection)
        custom.create_namespaced_custom_object(*place, evolution)
        release.run("upgrade", str(CHART), "--set", "replicas=1")
        release.run("uninstall")
        assert custom.get_namespaced_custom_object(*place, "demo")["spec"]["seed"] == 1
        release.run("install", str(CHART))  # the kept CRD belongs to this release
        custom.delete_namespaced_custom_object(*place, "demo")
