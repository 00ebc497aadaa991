"""Applies `spec.podTemplate` to the pod that selfemo builds, and finds forbidden settings. Pure.

Lists whose entries have names (`env`, `volumes`, `volumeMounts`, `imagePullSecrets`) are merged by
name, as a strategic merge patch does: an entry of the same name replaces the operator's entry.
`tolerations` are added. Maps are merged. All other fields are replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplates
from selfemo_api.stages import Stage

Json = dict[str, Any]

#: The fields of `securityContext` that apply to the container. The others apply to the pod.
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
#: The annotation that sets AppArmor profiles in versions of Kubernetes without the field.
_APPARMOR = "container.apparmor.security.beta.kubernetes.io"
#: Fields of the template that are copied into the pod's spec.
_COPIED = (
    "affinity",
    "priority_class_name",
    "scheduler_name",
    "runtime_class_name",
    "service_account_name",
)


def templates_of(templates: PodTemplates, stage: Stage) -> list[tuple[str, PodTemplate]]:
    """Return the templates of a stage with the names of their fields, the shared template first."""
    own: PodTemplate | None = getattr(templates, _FIELD[stage])
    named = (("shared", templates.shared), (PodTemplates.model_fields[_FIELD[stage]].alias, own))
    return [(str(name), template) for name, template in named if template is not None]


def apply_templates(pod: Json, templates: PodTemplates, stage: Stage) -> Json:
    """Return a copy of a pod template with the templates of a stage applied.

    Parameters
    ----------
    pod
        The pod template that selfemo builds: `metadata`, and a `spec` with one container. It is
        not changed.
    templates
        The value of `spec.podTemplate`.
    stage
        The stage of the pod.
    """
    for _, template in templates_of(templates, stage):
        pod = _merge(pod, template)
    return pod


def _merge(pod: Json, template: PodTemplate) -> Json:
    fields = template.model_dump(mode="json", by_alias=False, exclude_none=True)
    metadata, spec = dict(pod["metadata"]), dict(pod["spec"])
    container = dict(spec["containers"][0])
    for name in ("labels", "annotations"):
        # the operator's own entries win: it finds its pods and their configuration by them
        metadata[name] = {**fields.get(name, {}), **metadata.get(name, {})}
    for name in _COPIED:
        if name in fields:
            spec[_camel_case(name)] = fields[name]
    if "node_selector" in fields:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **fields["node_selector"]}
    spec["tolerations"] = [*spec.get("tolerations", []), *fields.get("tolerations", [])]
    spec["volumes"] = _merge_by_name(spec.get("volumes", []), fields.get("volumes", []))
    spec["imagePullSecrets"] = _merge_by_name(
        spec.get("imagePullSecrets", []), fields.get("image_pull_secrets", [])
    )
    container["env"] = _merge_by_name(container.get("env", []), fields.get("env", []))
    container["volumeMounts"] = _merge_by_name(
        container.get("volumeMounts", []), fields.get("volume_mounts", []), key="mountPath"
    )
    if "image" in fields:
        container["image"] = fields["image"]
    if "image_pull_policy" in fields:
        container["imagePullPolicy"] = fields["image_pull_policy"]
    container["resources"] = _merge_maps(
        container.get("resources", {}), fields.get("resources", {})
    )
    _merge_security(spec, container, fields.get("security_context", {}))
    return {"metadata": metadata, "spec": {**spec, "containers": [container]}}


def _merge_security(spec: Json, container: Json, context: Json) -> None:
    inner = {k: v for k, v in context.items() if k in _CONTAINER_SECURITY}
    outer = {k: v for k, v in context.items() if k not in _CONTAINER_SECURITY}
    spec["securityContext"] = {**spec.get("securityContext", {}), **outer}
    container["securityContext"] = {**container.get("securityContext", {}), **inner}


def _merge_by_name(base: list[Json], entries: list[Json], key: str = "name") -> list[Json]:
    remaining = {item.get(key): item for item in entries}
    merged = [remaining.pop(item.get(key), item) for item in base]
    return [*merged, *remaining.values()]


def _merge_maps(base: Json, changes: Json) -> Json:
    """Return two maps merged, down to their second level."""
    merged = {**base, **changes}
    for name in base.keys() & changes.keys():
        if isinstance(base[name], dict) and isinstance(changes[name], dict):
            merged[name] = {**base[name], **changes[name]}
    return merged


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def host_access_error(templates: PodTemplates, stages: tuple[Stage, ...]) -> str | None:
    """Return an error message if a template needs access to the node, or None.

    Every user who may create an EmotionEvolution may run pods in its namespace. Access to the node
    stays forbidden unless the installation allows it, even in a namespace where Pod Security does
    not forbid it.

    Parameters
    ----------
    templates
        The value of `spec.podTemplate`.
    stages
        The stages whose templates are checked.
    """
    for stage in stages:
        for name, template in templates_of(templates, stage):
            for field in _host_access(template):
                return (
                    f"`podTemplate.{name}.{field}` needs access to the node: remove it, or have "
                    "the operator installed with `jobs.allowHostAccess`"
                )
    return None


def _host_access(template: PodTemplate) -> Iterator[str]:
    """Yield the fields of a template that need access to the node."""
    for volume in template.volumes or []:
        if "hostPath" in volume:
            yield f"volumes[{volume.get('name', '')}].hostPath"
    security = template.security_context or {}
    if any(name.startswith(_APPARMOR) for name in template.annotations or {}):
        yield f"annotations[{_APPARMOR}]"
    if security.get("privileged") or security.get("allowPrivilegeEscalation"):
        yield "securityContext"
    if _as_map(security.get("capabilities")).get("add"):
        yield "securityContext.capabilities.add"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "securityContext.runAsUser"
    if security.get("procMount", "Default") != "Default":
        yield "securityContext.procMount"
    for profile in ("seccompProfile", "appArmorProfile"):
        if _as_map(security.get(profile)).get("type") == "Unconfined":
            yield f"securityContext.{profile}"
    if _as_map(security.get("seLinuxOptions")).keys() & {"type", "user", "role"}:
        yield "securityContext.seLinuxOptions"
    if security.get("sysctls") or security.get("windowsOptions"):
        yield "securityContext"


def _as_map(value: Any) -> Json:
    """Return a value if it is a map, otherwise an empty map: the API server rejects other types."""
    return value if isinstance(value, dict) else {}
