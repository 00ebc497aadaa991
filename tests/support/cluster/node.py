"""The node: kubelet, kube-proxy, and the DNS and S3 servers of the cluster, all on the bridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.cluster import binaries, runtime, s3, settings
from tests.support.cluster.locks import replace_text
from tests.support.cluster.probes import Api, answers
from tests.support.cluster.processes import Component
from tests.support.cluster.state import State

_HOST = settings.HOST


def components(state: State) -> list[Component]:
    """Return the components of the node, without containerd."""
    return [_kubelet(state), _proxy(state), _dns(state), s3.component(state)]


def ready(state: State) -> bool:
    """Return whether the node accepts pods."""
    node = Api(state.server, state.authority).get(f"/api/v1/nodes/{settings.NODE}")
    conditions = node["status"].get("conditions", []) if node else []
    tainted = node is not None and node["spec"].get("taints")
    return not tainted and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def manifests() -> dict[str, dict[str, Any]]:
    """Return the objects with the rights of the DNS server, by their API paths."""
    rules = [
        {
            "apiGroups": [""],
            "resources": ["services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"}
    user = {"apiGroup": rbac, "kind": "User", "name": "system:coredns"}
    return {
        f"/apis/{rbac}/v1/clusterroles/system:coredns": {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        f"/apis/{rbac}/v1/clusterrolebindings/system:coredns": {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": role,
            "subjects": [user],
        },
    }


def dns_service(state: State) -> dict[str, dict[str, Any]]:
    """Return the Service of the DNS server and its endpoint, by their API paths."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    protocols = {"dns": "UDP", "dns-tcp": "TCP"}
    ports = [{"name": name, "port": 53, "protocol": kind} for name, kind in protocols.items()]
    endpoint_ports = [
        {"name": name, "port": state.ports["dns"], "protocol": kind}
        for name, kind in protocols.items()
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": settings.DNS_SERVICE, "ports": ports},
    }
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [_HOST]}],
        "ports": endpoint_ports,
    }
    system = "namespaces/kube-system"
    return {
        f"/api/v1/{system}/services/kube-dns": service,
        f"/apis/discovery.k8s.io/v1/{system}/endpointslices/kube-dns": slices,
    }


def _kubelet(state: State) -> Component:
    folder = state.data / "kubelet"
    user = f"system:node:{settings.NODE}"
    kubeconfig = state.authority.kubeconfig(
        state.data / "kubelet.kubeconfig", state.server, user, "system:nodes"
    )
    config = state.data / "kubelet.json"
    replace_text(config, json.dumps(_kubelet_configuration(state, folder), indent=1))
    port = state.ports["kubelet-health"]
    return Component(
        "kubelet",
        (
            str(binaries.program("kubelet")),
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={folder}",
            f"--cert-dir={folder / 'pki'}",
            f"--hostname-override={settings.NODE}",
            f"--node-ip={_HOST}",
        ),
        ready=lambda: answers(f"http://{settings.LOOPBACK}:{port}/healthz"),
        files=(config, kubeconfig),
    )


def _kubelet_configuration(state: State, folder: Path) -> dict[str, Any]:
    resolver = state.data / "resolv.conf"  # without the search domains of the machine
    replace_text(resolver, f"nameserver {settings.DNS_SERVICE}\n")
    certificate, key = state.authority.serving(
        "kubelet-serving", [f"IP:{_HOST}", f"DNS:{settings.NODE}"]
    )
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": _HOST,
        "port": state.ports["kubelet"],
        "healthzBindAddress": settings.LOOPBACK,
        "healthzPort": state.ports["kubelet-health"],
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(state.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{runtime.socket(state)}",
        "clusterDNS": [settings.DNS_SERVICE],
        "clusterDomain": settings.DOMAIN,
        "resolvConf": str(resolver),
        "podLogsDir": str(state.data / "pod-logs"),
        "volumePluginDir": str(state.data / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.CGROUP}",
        "failSwapOn": False,
        # it requires quotas and the usage of file systems, which small machines do not report
        "localStorageCapacityIsolation": False,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,  # a removed image could not be pulled again
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
    }


def _proxy(state: State) -> Component:
    kubeconfig = state.authority.kubeconfig(
        state.data / "kube-proxy.kubeconfig", state.server, "system:kube-proxy"
    )
    health = f"{settings.LOOPBACK}:{state.ports['proxy-health']}"
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": settings.NODE,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": settings.PODS,
        "healthzBindAddress": health,
        "metricsBindAddress": f"{settings.LOOPBACK}:{state.ports['proxy-metrics']}",
        "nodePortAddresses": [settings.PODS],
        # All pods are on one bridge: a response would bypass the address translation.
        "nftables": {"masqueradeAll": True},
        # do not change the limits and timeouts of the machine
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "oomScoreAdj": 0,
    }
    path = state.data / "kube-proxy.json"
    replace_text(path, json.dumps(config, indent=1))
    return Component(
        "kube-proxy",
        (str(binaries.program("kube-proxy")), f"--config={path}"),
        ready=lambda: answers(f"http://{health}/healthz"),
        files=(path, kubeconfig),
    )


def _dns(state: State) -> Component:
    kubeconfig = state.authority.kubeconfig(
        state.data / "coredns.kubeconfig", state.server, "system:coredns"
    )
    path = state.data / "Corefile"
    port, health = state.ports["dns"], f"{settings.LOOPBACK}:{state.ports['dns-health']}"
    # The cache is the same as with kubeadm. Names outside the cluster are not resolved.
    replace_text(
        path,
        f"""{settings.DOMAIN}:{port} in-addr.arpa:{port} ip6.arpa:{port} {{
    bind {_HOST}
    errors
    ready {health}
    kubernetes {settings.DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 30
    }}
    cache 30 {{
        disable success {settings.DOMAIN}
        disable denial {settings.DOMAIN}
    }}
}}
.:{port} {{
    bind {_HOST}
    template IN ANY . {{
        rcode NXDOMAIN
    }}
}}
""",
    )
    return Component(
        "coredns",
        (str(binaries.program("coredns")), f"-conf={path}"),
        ready=lambda: answers(f"http://{health}/ready"),
        files=(path, kubeconfig),
    )
