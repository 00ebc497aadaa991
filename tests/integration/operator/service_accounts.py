"""A service account with the operator's rights, namespace by namespace."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from selfemo_operator.controller.kube.client import ApiError, KubeClient

Json = dict[str, Any]
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
NAME = "operator"
#: The rights that the chart gives the operator in each namespace.
RULES: list[Json] = [
    {
        "apiGroups": ["selfemo.dev"],
        "resources": ["emotionevolutions"],
        "verbs": ["get", "list", "watch", "delete"],
    },
    {
        "apiGroups": ["selfemo.dev"],
        "resources": ["emotionevolutions/status", "emotionevolutions/finalizers"],
        "verbs": ["update"],
    },
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    },
]


class ServiceAccount:
    """The service account `operator` of one namespace.

    Parameters
    ----------
    kube
        An administrator's client.
    namespace
        The namespace of the account.
    """

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        kube.create(path, {"metadata": {"name": NAME}})
        request = {"spec": {"expirationSeconds": 3600}}
        self.token: str = kube.create(f"{path}/{NAME}/token", request)["status"]["token"]

    def kubeconfig(self, administrator: Path, to: Path) -> Path:
        """Write a kubeconfig with the account's token; return its path."""
        config = yaml.safe_load(administrator.read_text())
        for user in config["users"]:
            user["user"] = {"token": self.token}
        to.write_text(yaml.safe_dump(config))
        return to

    def allow(self, namespace: str) -> None:
        """Give the account the operator's rights in a namespace."""
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
        subject = {"kind": "ServiceAccount", "name": NAME, "namespace": self._namespace}
        path = f"{_RBAC}/namespaces/{namespace}"
        with contextlib.suppress(ApiError):  # it exists already
            self._kube.create(f"{path}/roles", {"metadata": {"name": NAME}, "rules": RULES})
        binding = {"metadata": {"name": NAME}, "roleRef": role, "subjects": [subject]}
        self._kube.create(f"{path}/rolebindings", binding)

    def forbid(self, namespace: str) -> None:
        """Take the rights in a namespace away."""
        path = f"{_RBAC}/namespaces/{namespace}/rolebindings/{NAME}"
        self._kube.delete(path, self._kube.get(path)["metadata"]["uid"])
