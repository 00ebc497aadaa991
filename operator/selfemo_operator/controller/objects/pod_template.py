"""Merges `spec.podTemplate` into the pod that selfemo builds, and refuses what it may not do. Pure.

Lists whose entries have names (`env`, `volumes`, `volumeMounts`, `imagePullSecrets`) are merged by
name, as a strategic merge patch does: an entry of the same name replaces ours. `tolerations` are
added. Maps are merged. All else is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplates
from selfemo_api.stages import Stage

Json = dict[str, Any]

#: Of a securityContext: what belongs to the container; the rest is the pod's.
_CONTAINER_SECURITY = (
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
)
_FIELD = {
    Stage.SELF_PLAY: "self_play",
    Stage.SCORE: "score",
    Stage.FLYWHEEL: "flywheel",
    Stage.TRAIN: "train",
    Stage.EVALUATE: "evaluate",
}
#: How AppArmor was switched off before it had a field.
_APPARMOR = "container.apparmor.security.beta.kubernetes.io"
#: Fields of the template that a pod has under the same name.
_PLAIN = (
    "affinity",
    "priority_class_name",
    "scheduler_name",
    "runtime_class_name",
    "service_account_name",
)


def templates_of(templates: PodTemplates, stage: Stage) -> list[tuple[str, PodTemplate]]:
    """Return the templates of a stage, the shared one first, each with its field's name."""
    own: PodTemplate | None = getattr(templates, _FIELD[stage])
    named = (("shared", templates.shared), (PodTemplates.model_fields[_FIELD[stage]].alias, own))
    return [(str(name), template) for name, template in named if template is not None]


def merged(pod: Json, templates: PodTemplates, stage: Stage) -> Json:
    """Return a pod template (`metadata` and `spec`, one container) with those of a stage merged in.

    Parameters
    ----------
    pod
        What selfemo builds; left as it is.
    """
    for _, template in templates_of(templates, stage):
        pod = _merge(pod, template)
    return pod


def _merge(pod: Json, template: PodTemplate) -> Json:
    said = template.model_dump(mode="json", by_alias=False, exclude_none=True)
    metadata, spec = dict(pod["metadata"]), dict(pod["spec"])
    container = dict(spec["containers"][0])
    for name in ("labels", "annotations"):
        # what selfemo finds its pods and its configuration by is not the user's to change
        metadata[name] = {**said.get(name, {}), **metadata.get(name, {})}
    for name in _PLAIN:
        if name in said:
            spec[_camel(name)] = said[name]
    if "node_selector" in said:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **said["node_selector"]}
    spec["tolerations"] = [*spec.get("tolerations", []), *said.get("tolerations", [])]
    spec["volumes"] = _by_name(spec.get("volumes", []), said.get("volumes", []))
    spec["imagePullSecrets"] = _by_name(
        spec.get("imagePullSecrets", []), said.get("image_pull_secrets", [])
    )
    container["env"] = _by_name(container.get("env", []), said.get("env", []))
    container["volumeMounts"] = _by_name(
        container.get("volumeMounts", []), said.get("volume_mounts", []), key="mountPath"
    )
    if "image" in said:
        container["image"] = said["image"]
    if "image_pull_policy" in said:
        container["imagePullPolicy"] = said["image_pull_policy"]
    container["resources"] = _deep(container.get("resources", {}), said.get("resources", {}))
    _merge_security(spec, container, said.get("security_context", {}))
    return {"metadata": metadata, "spec": {**spec, "containers": [container]}}


def _merge_security(spec: Json, container: Json, said: Json) -> None:
    inner = {k: v for k, v in said.items() if k in _CONTAINER_SECURITY}
    outer = {k: v for k, v in said.items() if k not in _CONTAINER_SECURITY}
    spec["securityContext"] = {**spec.get("securityContext", {}), **outer}
    container["securityContext"] = {**container.get("securityContext", {}), **inner}


def _by_name(ours: list[Json], theirs: list[Json], key: str = "name") -> list[Json]:
    replaced = {item.get(key): item for item in theirs}
    kept = [replaced.pop(item.get(key), item) for item in ours]
    return [*kept, *replaced.values()]


def _deep(ours: Json, theirs: Json) -> Json:
    both = {**ours, **theirs}
    for name in ours.keys() & theirs.keys():
        if isinstance(ours[name], dict) and isinstance(theirs[name], dict):
            both[name] = {**ours[name], **theirs[name]}
    return both


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def refusal(templates: PodTemplates, stages: tuple[Stage, ...]) -> str | None:
    """Return why a template may not be used where host access is off, or None.

    Whoever may create an EmotionEvolution may run pods in its namespace. What reaches the node
    itself stays refused unless the installation allows it, even where Pod Security would not.
    """
    for stage in stages:
        for name, template in templates_of(templates, stage):
            for what in _host_access(template):
                return (
                    f"`podTemplate.{name}.{what}` reaches the node: leave it out, or have the "
                    "operator installed with `jobs.allowHostAccess`"
                )
    return None


def _host_access(template: PodTemplate) -> Iterator[str]:
    for volume in template.volumes or []:
        if "hostPath" in volume:
            yield f"volumes[{volume.get('name', '')}].hostPath"
    security = template.security_context or {}
    if any(name.startswith(_APPARMOR) for name in template.annotations or {}):
        yield f"annotations[{_APPARMOR}]"
    if security.get("privileged") or security.get("allowPrivilegeEscalation"):
        yield "securityContext"
    if _map(security.get("capabilities")).get("add"):
        yield "securityContext.capabilities.add"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "securityContext.runAsUser"
    if security.get("procMount", "Default") != "Default":
        yield "securityContext.procMount"
    for profile in ("seccompProfile", "appArmorProfile"):
        if _map(security.get(profile)).get("type") == "Unconfined":
            yield f"securityContext.{profile}"
    if _map(security.get("seLinuxOptions")).keys() & {"type", "user", "role"}:
        yield "securityContext.seLinuxOptions"
    if security.get("sysctls") or security.get("windowsOptions"):
        yield "securityContext"


def _map(value: Any) -> Json:
    """Return a value that ought to be a map; what is none the API server refuses by itself."""
    return value if isinstance(value, dict) else {}
