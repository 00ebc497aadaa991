"""Checks the spec of a pod against the restricted Pod Security standard.

The rules are those of Kubernetes 1.34:
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
}
_SELINUX = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t", "")
_PROFILES = ("RuntimeDefault", "Localhost")


def violations(spec: Json) -> Iterator[str]:
    """Yield the violations of a pod's spec."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    for volume in spec.get("volumes", []):
        if other := volume.keys() - _VOLUMES:
            yield f"volume {volume['name']} is a {other.pop()}"
    pod = spec.get("securityContext", {})
    for sysctl in pod.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _either("the pod", pod)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            yield from _container(container, pod)


def _container(container: Json, pod: Json) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    yield from _either(name, context)
    if context.get("privileged"):
        yield f"{name} is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate privileges"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name} does not drop all capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if context.get("procMount", "Default") != "Default":
        yield f"{name} has procMount {context['procMount']}"
    if not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield f"{name} may run as root"
    if context.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in _PROFILES:
        yield f"{name} has no seccomp profile"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{name} has host port {port['hostPort']}"
    for moment in ("startupProbe", "livenessProbe", "readinessProbe"):
        if container.get(moment, {}).get("httpGet", {}).get("host"):
            yield f"{name}'s {moment} names a host"


def _either(name: str, context: Json) -> Iterator[str]:
    """Yield the violations that are the same in the context of a pod and of a container."""
    if context.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if context.get("runAsNonRoot") is False:
        yield f"{name} sets runAsNonRoot to false"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
        yield f"{name} is seccomp-unconfined"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name} is a host process"
    linux = context.get("seLinuxOptions", {})
    if linux.get("user") or linux.get("role") or linux.get("type", _SELINUX[0]) not in _SELINUX:
        yield f"{name} sets an SELinux user, role or type"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
        yield f"{name} is AppArmor-unconfined"
