"""Puts a pod together from its layers. Pure.

From the lowest to the highest layer: what the operator gives every pod, the defaults of the
installation (`jobs.podTemplate` of the chart), what the operator must set for this Job, and
`spec.podTemplate` of the evolution. A higher layer wins. Last come the requests for CPU and memory
that no layer mentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.base_pod import ENVIRONMENT
from selfemo_operator.controller.objects.pod_security import as_map
from selfemo_operator.controller.objects.pod_template import apply_templates, templates_of
from selfemo_operator.controller.objects.quantities import quantity

Json = dict[str, Any]

#: Requests of a container for which no template mentions the resource. There are no limits: a
#: limit of the CPU slows a stage down, and the memory that a stage needs follows from its model.
#:
#: - CPU: a quarter of a core. A stage uses all cores that are free; the request is its share where
#:   cores are scarce. The system pods of a node with two cores (kind, minikube, small cloud nodes)
#:   request about one, and three stage pods fit beside them.
#: - Memory: a process that has loaded torch, Transformers and a tiny model uses 0.9 GiB. Two pods
#:   fit on a node of 4 GiB. Where memory is scarce, pods that use more than they request end first.
DEFAULT_REQUESTS: Mapping[str, str] = {"cpu": "250m", "memory": "1Gi"}
_PARTS = ("requests", "limits")


def layered_pod(
    pod: Json,
    defaults: Sequence[PodTemplateEntry],
    entries: Sequence[PodTemplateEntry],
    stage: Stage | None,
) -> Json:
    """Return the pod template of a stage or of the purge Job, from all layers.

    Parameters
    ----------
    pod
        The pod template that selfemo builds: `metadata`, and a `spec` with one container. It is
        not changed.
    defaults
        The defaults of the installation.
    entries
        The value of `spec.podTemplate`.
    stage
        The stage of the pod. None: the pod is that of the purge Job.
    """
    lower = _with_own(apply_templates(pod, defaults, stage), pod)
    merged = apply_templates(lower, entries, stage)
    by_default = [template for _, template in templates_of(defaults, stage)]
    by_evolution = [template for _, template in templates_of(entries, stage)]
    resources = merged["spec"]["containers"][0].get("resources", {})
    resources = _settled(resources, _mentioned(by_evolution))
    resources = _with_requests(resources, _mentioned([*by_default, *by_evolution]))
    container = {**merged["spec"]["containers"][0], "resources": resources}
    return {**merged, "spec": {**merged["spec"], "containers": [container]}}


def _with_own(merged: Json, pod: Json) -> Json:
    """Return a pod with defaults, in which what the operator sets for this Job has come back.

    These are the variables without those of every pod, which a default may replace, and the number
    of devices. The defaults cannot contain more than that of what the operator sets: see
    :mod:`selfemo_operator.controller.pod_defaults`.
    """
    before, container = pod["spec"]["containers"][0], merged["spec"]["containers"][0]
    own = [e for e in before.get("env", []) if e["name"] not in ENVIRONMENT]
    names = {e["name"] for e in own}
    changed = {**container}
    if own:
        others = [e for e in container["env"] if e.get("name") not in names]
        changed["env"] = [*others, *own]
    if limits := as_map(as_map(before.get("resources")).get("limits")):
        resources = as_map(container.get("resources"))
        changed["resources"] = {
            **resources,
            "limits": {**as_map(resources.get("limits")), **limits},
        }
    return {**merged, "spec": {**merged["spec"], "containers": [changed]}}


def _mentioned(templates: Iterable[PodTemplate]) -> dict[str, set[str]]:
    """Return the resources that templates mention in their requests and in their limits.

    A null mentions a resource too, and a null in place of a whole map those with a default.
    """
    names: dict[str, set[str]] = {part: set() for part in _PARTS}
    for template in templates:
        for part, values in (template.resources or {}).items():
            if part in names:
                names[part] |= set(DEFAULT_REQUESTS if values is None else as_map(values))
    return names


def _settled(resources: Json, chosen: Mapping[str, set[str]]) -> Json:
    """Return resources in which no default contradicts a value that the evolution has chosen.

    A default request above the evolution's limit, or a default limit below the evolution's request,
    becomes the evolution's value. The API server would reject the pod otherwise.
    """
    requests, limits = (as_map(resources.get(part)) for part in _PARTS)
    changed = {"requests": dict(requests), "limits": dict(limits)}
    for name in requests.keys() & limits.keys():
        request, limit = quantity(requests[name]), quantity(limits[name])
        if request is None or limit is None or request <= limit:
            continue
        request_chosen, limit_chosen = (name in chosen[part] for part in _PARTS)
        if limit_chosen and not request_chosen:
            changed["requests"][name] = limits[name]
        elif request_chosen and not limit_chosen:
            changed["limits"][name] = requests[name]
    return {**resources, **{part: value for part, value in changed.items() if value}}


def _with_requests(resources: Json, mentioned: Mapping[str, set[str]]) -> Json:
    """Return resources with the default requests for what no template mentions.

    Kubernetes takes a limit as the request where there is no request, so a limit counts as well.
    """
    requests, names = resources.get("requests", {}), mentioned["requests"] | mentioned["limits"]
    defaults = {name: value for name, value in DEFAULT_REQUESTS.items() if name not in names}
    if not defaults or not isinstance(requests, dict):  # the API server rejects other types
        return resources
    return {**resources, "requests": {**defaults, **requests}}
