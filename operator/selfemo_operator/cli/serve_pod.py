"""What the pods of a server have in common with those of the stage Evaluate. Pure.

The defaults of the installation (`jobs.podTemplate` of the chart) are in a ConfigMap beside the
operator, which users need not be allowed to read. But they are in each Job of their evolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import CONFIG_FOLDER, CONFIG_VOLUME, JOB_VARIABLES
from selfemo_operator.controller.objects.pod_security import violations
from selfemo_operator.controller.objects.pod_template import apply_templates
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.local.state import RunnerError

Json = dict[str, Any]

#: Fields of the pod: where it runs, and what it needs there.
_POD = (
    "affinity",
    "dnsConfig",
    "hostAliases",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "tolerations",
    "volumes",
)
_CONTAINER = ("env", "envFrom", "volumeMounts")
#: The resources that are copied. The number of GPUs follows from the evolution.
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def evaluation_template(jobs: Sequence[Json]) -> tuple[PodTemplateEntry, ...]:
    """Return what the newest Job of the stage Evaluate has beyond a plain pod, as a template.

    Parameters
    ----------
    jobs
        The stage Jobs of the evolution.

    Returns
    -------
    tuple of PodTemplateEntry
        One entry, or none if there is no such Job any more.
    """
    of_evaluation = [
        job
        for job in jobs
        if job["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == Stage.EVALUATE.slug
    ]
    if not of_evaluation:
        return ()
    newest = max(of_evaluation, key=lambda job: str(job["metadata"].get("creationTimestamp", "")))
    pod = newest["spec"]["template"]["spec"]
    container = pod["containers"][0]
    fields = {name: pod[name] for name in _POD if pod.get(name)}
    fields |= {name: container[name] for name in _CONTAINER if container.get(name)}
    kept: dict[str, Callable[[Json], bool]] = {
        "volumes": lambda entry: entry["name"] != CONFIG_VOLUME,
        "volumeMounts": lambda entry: entry["mountPath"] != CONFIG_FOLDER,
        "env": lambda entry: entry["name"] not in JOB_VARIABLES,
    }
    for name, condition in kept.items():
        fields[name] = [entry for entry in fields.get(name, []) if condition(entry)]
    fields["resources"] = {
        part: {name: value for name, value in values.items() if name in _RESOURCES}
        for part, values in container.get("resources", {}).items()
        if part in ("requests", "limits")
    }
    return (PodTemplateEntry(template=PodTemplate.model_validate(fields)),)


def pod_where_evaluate_runs(
    pod: Json, settings: JobSettings, entries: Sequence[PodTemplateEntry]
) -> Json:
    """Return a pod with what a Job of Evaluate has, and with the evolution's templates.

    It is judged as the operator judges the pods of stages
    (:mod:`selfemo_operator.controller.objects.pod_gate`). The user who applies it may have more
    rights than the author of the evolution, and the operator does not see it.

    Parameters
    ----------
    pod
        The pod template of the server: `metadata`, and a `spec` with one container.
    settings
        The settings of the Job: its templates (see `evaluation_template`), and whether the pod may
        have access to the node.
    entries
        The value of `spec.podTemplate`, which wins.

    Raises
    ------
    RunnerError
        If the pod goes beyond the restricted Pod Security standard, and it may not.
    """
    merged = _merged(pod, settings.pod_template, entries)
    fields = _violations(merged)
    if fields and not settings.host_access:
        place = _place(pod, settings.pod_template, entries, fields)
        raise RunnerError(
            f"{place} exceeds the restricted Pod Security Standard: remove it, or add "
            "--allow-host-access if the server pods may use it"
        )
    if tolerations := merged["spec"].get("tolerations"):
        # those of the evolution are in its Job too
        unique = [x for i, x in enumerate(tolerations) if x not in tolerations[:i]]
        merged["spec"]["tolerations"] = unique
    return merged


def _merged(
    pod: Json, of_job: Sequence[PodTemplateEntry], entries: Sequence[PodTemplateEntry]
) -> Json:
    return apply_templates(apply_templates(pod, of_job, None), entries, Stage.EVALUATE)


def _violations(pod: Json) -> list[str]:
    """Return the fields beyond the restricted standard, as `spec.podTemplate` names them."""
    container = f"containers[{pod['spec']['containers'][0]['name']}]."
    return [field.removeprefix(container) for field in violations(pod)]


def _place(
    pod: Json,
    of_job: Sequence[PodTemplateEntry],
    entries: Sequence[PodTemplateEntry],
    fields: Sequence[str],
) -> str:
    """Return the field of the entry that brings a violation, or of the Job of Evaluate."""
    for i in range(len(entries)):
        for field in _violations(_merged(pod, of_job[:0], entries[: i + 1])):
            if field in fields:
                return f"`podTemplate[{i}].template.{field}`"
    return f"`{fields[0]}` of the Job of the last evaluation"
