"""Judges a whole pod by the restricted Pod Security standard, more strictly than it requires. Pure.

The judge reads the pod as it would be created, not the settings from which it was made. Whatever
it does not know is refused: a volume source or a security setting that a later version of
Kubernetes adds could give access to the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from selfemo_operator.controller.objects.names import CONTAINER

Json = dict[str, Any]

#: The start of annotations that set AppArmor and seccomp profiles in versions of Kubernetes without
#: the fields.
_PROFILE_ANNOTATIONS = (
    "container.apparmor.security.beta.kubernetes.io",
    "container.seccomp.security.alpha.kubernetes.io",
    "seccomp.security.alpha.kubernetes.io",
)
#: The sources of volumes that are allowed. The standard also allows inline `csi` volumes. Here they
#: are refused: what they reach depends on the driver, and a claim gives the same.
ALLOWED_VOLUMES = (
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
_HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
#: The fields of a container whose requests may not name a host: from the node, they would reach
#: what a pod cannot reach.
_HANDLERS = {
    "livenessProbe": (),
    "readinessProbe": (),
    "startupProbe": (),
    "lifecycle": ("postStart", "preStop"),
}


def without_nulls(value: Any) -> Any:
    """Return a JSON value without the nulls in its maps and lists, at any depth.

    Examples
    --------
    >>> without_nulls({"a": None, "b": [{"c": None}, None]})
    {'b': [{}]}
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def as_map(value: Any) -> Json:
    """Return a value if it is a map, otherwise an empty map: the API server rejects other types."""
    return value if isinstance(value, dict) else {}


def violations(pod: Json) -> Iterator[str]:
    """Yield the fields of a pod that go beyond the restricted standard.

    Parameters
    ----------
    pod
        A pod, or the template of a pod: its `metadata` and its `spec`. Fields of the stage's
        container are named as in `spec.podTemplate`, without the container.

    Examples
    --------
    >>> list(violations({"spec": {"hostPID": True, "volumes": [{"name": "v", "nfs": {}}]}}))
    ['hostPID', 'volumes[v].nfs', 'securityContext.runAsNonRoot', 'securityContext.seccompProfile']
    """
    pod = without_nulls(pod)
    spec, metadata = as_map(pod.get("spec")), as_map(pod.get("metadata"))
    yield from (name for name in _HOST_NAMESPACES if spec.get(name, False) is not False)
    for volume in _maps(spec.get("volumes")):
        for source in sorted(volume.keys() - set(ALLOWED_VOLUMES) - {"name"}):
            yield f"volumes[{volume.get('name', '')}].{source}"
    for prefix in _PROFILE_ANNOTATIONS:
        if any(name.startswith(prefix) for name in as_map(metadata.get("annotations"))):
            yield f"annotations[{prefix}]"
    context = as_map(spec.get("securityContext"))
    yield from _settings(context, _POD_SETTINGS)
    yield from _missing(context, _REQUIRED_OF_POD)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in _maps(spec.get(kind)):
            name = container.get("name", "")
            place = "" if kind == "containers" and name == CONTAINER else f"{kind}[{name}]."
            yield from (f"{place}{field}" for field in _container_violations(container))


def _container_violations(container: Json) -> Iterator[str]:
    """Yield the fields of a container that go beyond the standard."""
    context = as_map(container.get("securityContext"))
    yield from _settings(context, _CONTAINER_SETTINGS)
    yield from _missing(context, _REQUIRED_OF_CONTAINER)
    if any(port.get("hostPort", 0) != 0 for port in _maps(container.get("ports"))):
        yield "ports.hostPort"
    for name, moments in _HANDLERS.items():
        outer = as_map(container.get(name))
        for handler in [outer, *(as_map(outer.get(moment)) for moment in moments)]:
            for action in ("httpGet", "tcpSocket"):
                if as_map(handler.get(action)).get("host", "") != "":
                    yield f"{name}.{action}.host"


def _settings(context: Json, allowed: Mapping[str, Callable[[Any], bool]]) -> Iterator[str]:
    """Yield the settings of a security context that are unknown, or have a value not allowed."""
    for name, value in context.items():
        if name == "capabilities":
            if as_map(value).get("add", []) != []:
                yield "securityContext.capabilities.add"
        elif name not in allowed or not allowed[name](value):
            yield f"securityContext.{name}"


def _missing(context: Json, required: Mapping[str, Callable[[Json], bool]]) -> Iterator[str]:
    """Yield the settings that the standard requires and a security context does not have."""
    for name, is_met in required.items():
        if not is_met(context):
            yield f"securityContext.{name}"


def _maps(value: Any) -> list[Json]:
    """Return the maps of a list. Other entries, and other types, are rejected by the API server."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_profile(value: Any) -> bool:
    return as_map(value).get("type") in ("RuntimeDefault", "Localhost")


def _is_user(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_any(_: Any) -> bool:
    return True


#: The values that are allowed in the security context of a pod and of a container.
_SHARED_SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    "runAsUser": _is_user,
    "runAsGroup": _is_any,
    "runAsNonRoot": lambda value: value is True,
    "seccompProfile": _is_profile,
    "appArmorProfile": _is_profile,
    "seLinuxOptions": lambda value: isinstance(value, dict) and value.keys() <= {"level"},
    "windowsOptions": lambda value: value == {},
}
_POD_SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    **_SHARED_SETTINGS,
    "fsGroup": _is_any,
    "fsGroupChangePolicy": _is_any,
    "seLinuxChangePolicy": _is_any,
    "supplementalGroups": _is_any,
    "supplementalGroupsPolicy": _is_any,
    "sysctls": lambda value: value == [],
}
_CONTAINER_SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    **_SHARED_SETTINGS,
    "allowPrivilegeEscalation": lambda value: value is False,
    "privileged": lambda value: value is False,
    "procMount": lambda value: value == "Default",
    "readOnlyRootFilesystem": _is_any,
}
#: What must be set. A container inherits the settings of the pod, and cannot weaken them.
_REQUIRED_OF_POD: Mapping[str, Callable[[Json], bool]] = {
    "runAsNonRoot": lambda context: "runAsNonRoot" in context,
    "seccompProfile": lambda context: "seccompProfile" in context,
}
_REQUIRED_OF_CONTAINER: Mapping[str, Callable[[Json], bool]] = {
    "allowPrivilegeEscalation": lambda context: "allowPrivilegeEscalation" in context,
    "capabilities.drop": lambda context: _drops_all(context.get("capabilities")),
}


def _drops_all(capabilities: Any) -> bool:
    dropped = as_map(capabilities).get("drop")
    return isinstance(dropped, list) and "ALL" in dropped
