"""Applies `spec.podTemplate` to the pod that selfemo builds. Pure.

Lists whose entries have a key (`env`, `volumes`, `volumeMounts`, …) are merged by that key, as a
strategic merge patch does: an entry of the same key replaces the earlier one. Other lists are
added. Maps are merged. All other fields are replaced.

`null` never undoes a security setting. Maps of a template are passed on unread, so the API server
keeps a null in them. It removes an entry of `resources`, and one of the three IDs in
`securityContext`, which the platform then assigns. Everywhere else it has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.pod_security import as_map, without_nulls

Json = dict[str, Any]

#: The security settings of each container: the restricted Pod Security standard, and a read-only
#: root file system.
RESTRICTED_CONTAINER: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

#: The fields of `securityContext` that apply to the container. The others apply to the pod.
_CONTAINER_SECURITY = (
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
)
#: The IDs that a platform such as OpenShift assigns if the pod has none. Without them the pod still
#: does not run as root, because of `runAsNonRoot`.
ASSIGNED_IDS = ("runAsUser", "runAsGroup", "fsGroup")
#: Fields that replace those of the pod.
_REPLACED = (
    "affinity",
    "dnsConfig",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
)
#: Lists of the pod and of its container, with the key by which they are merged. Without a key, the
#: entries are added.
_POD_LISTS = {
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "resourceClaims": "name",
    "tolerations": "",
    "topologySpreadConstraints": "",
    "volumes": "name",
}
_CONTAINER_LISTS = {"env": "name", "envFrom": "", "volumeMounts": "mountPath"}


def templates_of(
    entries: Sequence[PodTemplateEntry], stage: Stage | None
) -> list[tuple[str, PodTemplate]]:
    """Return the templates that apply to the pods of a stage, with their places in the spec.

    Parameters
    ----------
    entries
        The value of `spec.podTemplate`.
    stage
        The stage. None: the purge Job, which only the entries for all stages apply to.

    Examples
    --------
    >>> train = PodTemplateEntry(stages=[Stage.TRAIN], template=PodTemplate(image="cuda"))
    >>> every = PodTemplateEntry(template=PodTemplate(image="cpu"))
    >>> [place for place, _ in templates_of([train, every], Stage.TRAIN)]
    ['podTemplate[0].template', 'podTemplate[1].template']
    >>> [place for place, _ in templates_of([train, every], None)]
    ['podTemplate[1].template']
    """
    return [
        (f"podTemplate[{index}].template", entry.template)
        for index, entry in enumerate(entries)
        if entry.stages is None or stage in entry.stages
    ]


def apply_templates(pod: Json, entries: Sequence[PodTemplateEntry], stage: Stage | None) -> Json:
    """Return a copy of a pod template with the templates of a stage applied in order.

    Parameters
    ----------
    pod
        The pod template that selfemo builds: `metadata`, and a `spec` with one container. It is
        not changed.
    entries
        The value of `spec.podTemplate`.
    stage
        The stage of the pod. None: the pod is that of the purge Job.
    """
    for _, template in templates_of(entries, stage):
        pod = _merge(pod, template)
    return pod


def _merge(pod: Json, template: PodTemplate) -> Json:
    fields: Json = without_nulls(template.to_json())
    metadata, spec = dict(pod["metadata"]), dict(pod["spec"])
    container = dict(spec["containers"][0])
    for name in ("labels", "annotations"):
        # the operator's own entries win: it finds its pods and their configuration by them
        metadata[name] = {**fields.get(name, {}), **metadata.get(name, {})}
    spec |= {name: fields[name] for name in _REPLACED if name in fields}
    if "nodeSelector" in fields:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **fields["nodeSelector"]}
    _merge_lists(spec, fields, _POD_LISTS)
    _merge_lists(container, fields, _CONTAINER_LISTS)
    container |= {name: fields[name] for name in ("image", "imagePullPolicy") if name in fields}
    container["resources"] = _merge_resources(
        container.get("resources", {}), template.resources or {}
    )
    if "initContainers" in spec:
        spec["initContainers"] = [_restricted(inner) for inner in spec["initContainers"]]
    context = template.security_context or {}
    inner = {name: value for name, value in context.items() if name in _CONTAINER_SECURITY}
    outer = {name: value for name, value in context.items() if name not in _CONTAINER_SECURITY}
    spec["securityContext"] = _merge_security(spec.get("securityContext", {}), outer)
    container["securityContext"] = _merge_security(container.get("securityContext", {}), inner)
    return {"metadata": metadata, "spec": {**spec, "containers": [container]}}


def _restricted(container: Json) -> Json:
    """Return an init container that is restricted wherever it has no setting of its own."""
    context = _merge_security(RESTRICTED_CONTAINER, as_map(container.get("securityContext")))
    return {**container, "securityContext": context}


def _merge_security(base: Json, changes: Json) -> Json:
    """Return a security context with changes. A null or an empty map undoes no setting."""
    merged = dict(base)
    for name, value in without_nulls(changes).items():
        if name == "capabilities" and isinstance(value, dict):
            merged[name] = _merge_capabilities(as_map(base.get(name)), value)
        elif value != {}:
            merged[name] = value
    for name in ASSIGNED_IDS:
        if name in changes and changes[name] is None:
            merged.pop(name, None)
    return merged


def _merge_capabilities(base: Json, changes: Json) -> Json:
    """Return capabilities with changes. What was dropped before stays dropped."""
    merged, dropped = {**base, **changes}, changes.get("drop")
    if isinstance(dropped, list):
        before = base.get("drop", [])
        merged["drop"] = [*before, *(name for name in dropped if name not in before)]
    return merged


def _merge_resources(base: Json, changes: Json) -> Json:
    """Return resources with changes: claims by name, other maps to their second level."""
    merged = dict(base)
    for name, value in changes.items():
        before = base.get(name, {})
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name] = without_nulls({**before, **value})
        elif name == "claims" and _is_list_of_maps(value) and _is_list_of_maps(before or []):
            merged[name] = _merge_by_key(before or [], without_nulls(value), "name")
        else:
            merged[name] = value
    cleaned: Json = without_nulls(merged)
    return cleaned


def _merge_lists(target: Json, fields: Json, keys: dict[str, str]) -> None:
    for name, key in keys.items():
        if fields.get(name):
            target[name] = _merge_by_key(target.get(name, []), fields[name], key)


def _merge_by_key(base: list[Json], entries: list[Json], key: str) -> list[Json]:
    """Return two lists merged. Entries without the key are added: the API server reports them."""
    merged = list(base)
    places = {entry[key]: i for i, entry in enumerate(base) if isinstance(entry.get(key), str)}
    for entry in entries:
        value = entry.get(key)
        if isinstance(value, str) and value in places:
            merged[places[value]] = entry
            continue
        if isinstance(value, str):
            places[value] = len(merged)
        merged.append(entry)
    return merged


def _is_list_of_maps(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
