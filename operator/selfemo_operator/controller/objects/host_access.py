"""Finds the settings of `spec.podTemplate` that the restricted Pod Security standard forbids. Pure.

Every user who may create an EmotionEvolution may run pods in its namespace. Access to the node
stays forbidden unless the installation allows it, even in a namespace where Pod Security does not
forbid it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_operator.controller.objects.pod_template import Json, as_map, without_nulls

#: The annotation that sets AppArmor profiles in versions of Kubernetes without the field.
_APPARMOR = "container.apparmor.security.beta.kubernetes.io"
#: The sources of volumes that the standard allows.
_VOLUMES = {
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
#: The fields of a container whose requests may not name a host: from the node, they would reach
#: what a pod cannot reach.
_HANDLERS = {
    "livenessProbe": (),
    "readinessProbe": (),
    "startupProbe": (),
    "lifecycle": ("postStart", "preStop"),
}


def host_access_error(entries: Sequence[PodTemplateEntry]) -> str | None:
    """Return an error message if a template goes beyond the standard, or None.

    Parameters
    ----------
    entries
        The value of `spec.podTemplate`.

    Examples
    --------
    >>> privileged = PodTemplate(security_context={"privileged": True})
    >>> host_access_error([PodTemplateEntry(template=privileged)])
    '`podTemplate[0].template.securityContext.privileged` is beyond the restricted Pod Security \
standard: remove it, or have the operator installed with `jobs.allowHostAccess`'
    """
    for index, entry in enumerate(entries):
        for field in _host_access(entry.template):
            return (
                f"`podTemplate[{index}].template.{field}` is beyond the restricted Pod Security "
                "standard: remove it, or have the operator installed with `jobs.allowHostAccess`"
            )
    return None


def _host_access(template: PodTemplate) -> Iterator[str]:
    """Yield the fields of a template that go beyond the standard."""
    for volume in without_nulls(template.volumes or []):
        for source in sorted(volume.keys() - _VOLUMES - {"name"}):
            yield f"volumes[{volume.get('name', '')}].{source}"
    if any(name.startswith(_APPARMOR) for name in template.annotations or {}):
        yield f"annotations[{_APPARMOR}]"
    yield from _privileges(without_nulls(template.security_context or {}))
    for container in without_nulls(template.init_containers or []):
        for field in _container_access(container):
            yield f"initContainers[{container.get('name', '')}].{field}"


def _container_access(container: Json) -> Iterator[str]:
    """Yield the fields of an init container that go beyond the standard."""
    yield from _privileges(as_map(container.get("securityContext")))
    ports = container.get("ports")
    if any(as_map(port).get("hostPort") for port in (ports if isinstance(ports, list) else [])):
        yield "ports.hostPort"
    for name, moments in _HANDLERS.items():
        outer = as_map(container.get(name))
        for handler in [outer, *(as_map(outer.get(moment)) for moment in moments)]:
            for action in ("httpGet", "tcpSocket"):
                if as_map(handler.get(action)).get("host"):
                    yield f"{name}.{action}.host"


def _privileges(security: Json) -> Iterator[str]:
    """Yield the fields of a security context that give more rights than the standard."""
    for name in ("privileged", "allowPrivilegeEscalation", "sysctls", "windowsOptions"):
        if security.get(name):
            yield f"securityContext.{name}"
    if as_map(security.get("capabilities")).get("add"):
        yield "securityContext.capabilities.add"
    if _is_zero(security.get("runAsUser")):
        yield "securityContext.runAsUser"
    if security.get("runAsNonRoot", True) is not True:
        yield "securityContext.runAsNonRoot"
    if security.get("procMount", "Default") != "Default":
        yield "securityContext.procMount"
    for profile in ("seccompProfile", "appArmorProfile"):
        if as_map(security.get(profile)).get("type") == "Unconfined":
            yield f"securityContext.{profile}"
    if as_map(security.get("seLinuxOptions")).keys() & {"type", "user", "role"}:
        yield "securityContext.seLinuxOptions"


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0
