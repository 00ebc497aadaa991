"""The command lines of etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cluster import binaries, settings
from tests.support.cluster.locks import replace_text
from tests.support.cluster.probes import Api, answers
from tests.support.cluster.processes import Component
from tests.support.cluster.state import State

APISERVER, ETCD = "kube-apiserver", "etcd"
_ISSUER = f"https://kubernetes.default.svc.{settings.DOMAIN}"


def components(state: State) -> list[Component]:
    """Return the components of the control plane in the order of their start."""
    state.authority.make()
    state.authority.kubeconfig(state.kubeconfig, state.server, "admin", "system:masters")
    return [etcd(state), apiserver(state), _controller_manager(state), _scheduler(state)]


def etcd(state: State) -> Component:
    """Return etcd."""
    client = f"http://{settings.LOOPBACK}:{state.ports['etcd']}"
    peer = f"http://{settings.LOOPBACK}:{state.ports['etcd-peer']}"
    return Component(
        ETCD,
        (
            str(binaries.program("etcd")),
            "--name=selfemo",
            f"--data-dir={state.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=selfemo={peer}",
            "--unsafe-no-fsync",  # the data survives a killed process, which is enough for tests
            "--log-level=warn",
        ),
        ready=lambda: answers(f"{client}/readyz"),
    )


def apiserver(state: State) -> Component:
    """Return the API server, with admission and authorization as in a real cluster."""
    names = ["DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default"]
    names += ["DNS:kubernetes.default.svc", f"DNS:kubernetes.default.svc.{settings.DOMAIN}"]
    addresses = (settings.LOOPBACK, settings.HOST, settings.API_SERVICE)
    authority = state.authority
    certificate, key = authority.serving("apiserver", [*names, *(f"IP:{ip}" for ip in addresses)])
    kubelet_user = authority.client("apiserver-kubelet", "apiserver-kubelet", "system:masters")
    # Without a node, the Service of the API is not used, and loopback cannot be its endpoint.
    reconciler = "lease" if state.nodes else "none"
    api = Api(state.server, authority)
    policy = _audit_policy(state)
    return Component(
        APISERVER,
        (
            str(binaries.program("kube-apiserver")),
            f"--etcd-servers=http://{settings.LOOPBACK}:{state.ports['etcd']}",
            f"--bind-address={state.host}",
            f"--advertise-address={state.host}",
            f"--secure-port={state.ports['apiserver']}",
            f"--endpoint-reconciler-type={reconciler}",
            f"--service-cluster-ip-range={settings.SERVICES}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority.certificate}",
            f"--kubelet-client-certificate={kubelet_user[0]}",
            f"--kubelet-client-key={kubelet_user[1]}",
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={_ISSUER}",
            f"--service-account-key-file={authority.account_key}",
            f"--service-account-signing-key-file={authority.account_key}",
            "--authorization-mode=Node,RBAC",
            # the last one is part of OpenShift: it needs a right for `blockOwnerDeletion`
            "--enable-admission-plugins=NodeRestriction,PodSecurity,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={state.audit_log}",
            "--audit-log-format=json",
            "--audit-log-maxsize=4096",  # tests count its lines, so it must not be rotated
            "--profiling=false",
        ),
        ready=api.ready,
        files=(certificate, authority.certificate, authority.account_key, policy),
    )


def _audit_policy(state: State) -> Path:
    """Write the audit policy: one entry without bodies for each request; return its path."""
    probes = {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]}
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [probes, {"level": "Metadata"}],
    }
    path = state.data / "audit-policy.json"
    replace_text(path, json.dumps(policy))
    return path


def _controller_manager(state: State) -> Component:
    authority = state.authority
    return _controller(
        state,
        "controller-manager",
        f"--root-ca-file={authority.certificate}",
        f"--cluster-signing-cert-file={authority.certificate}",
        f"--cluster-signing-key-file={authority.key}",
        f"--service-account-private-key-file={authority.account_key}",
        # the controller manager creates this folder
        f"--flex-volume-plugin-dir={state.data / 'volume-plugins'}",
        "--use-service-account-credentials=true",
    )


def _scheduler(state: State) -> Component:
    return _controller(state, "scheduler")


def _controller(state: State, short: str, *flags: str) -> Component:
    """Return a component with controllers, with the common flags."""
    name, port = f"kube-{short}", state.ports[short]
    kubeconfig = state.authority.kubeconfig(
        state.data / f"{short}.kubeconfig", state.server, f"system:{name}"
    )
    return Component(
        name,
        (
            str(binaries.program(name)),
            f"--kubeconfig={kubeconfig}",
            f"--bind-address={settings.LOOPBACK}",
            f"--secure-port={port}",
            f"--cert-dir={state.data / short}",
            *flags,
            # the defaults (20 and 50 requests per second) would limit a benchmark
            "--kube-api-qps=300",
            "--kube-api-burst=600",
            "--leader-elect=false",
            "--profiling=false",
        ),
        ready=lambda: answers(f"https://{settings.LOOPBACK}:{port}/healthz"),
        files=(kubeconfig,),
    )
