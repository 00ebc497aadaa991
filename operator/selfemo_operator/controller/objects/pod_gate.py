"""The gate through which every pod template leaves the operator. Pure.

Every user who may create an EmotionEvolution may run pods in its namespace. Access to the node
stays forbidden unless the installation allows it, even in a namespace where Pod Security does not
forbid it. So the pods of stages and of the purge Job are built by :func:`gated_pod` alone, which
judges the merged pod. The defaults of the installation are judged with it: a volume of the defaults
can be mounted by every evolution, so a default that reaches the node would let every user reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.base_pod import restricted_container, restricted_pod
from selfemo_operator.controller.objects.names import CONTAINER
from selfemo_operator.controller.objects.pod_layers import layered_pod
from selfemo_operator.controller.objects.pod_security import violations
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]


class PodRejected(Exception):
    """A template makes a pod that goes beyond the restricted Pod Security standard."""


def gated_pod(
    pod: Json, entries: Sequence[PodTemplateEntry], stage: Stage | None, settings: JobSettings
) -> Json:
    """Return the pod template of a stage or of the purge Job, merged and judged.

    Parameters
    ----------
    pod
        The pod template that selfemo builds: `metadata`, and a `spec` with one container.
    entries
        The value of `spec.podTemplate`.
    stage
        The stage of the pod. None: the pod is that of the purge Job.
    settings
        The settings of the operator's Jobs.

    Raises
    ------
    PodRejected
        If the merged pod goes beyond the restricted standard, and the installation does not allow
        it. The message names the field of `spec.podTemplate`.
    """
    merged = layered_pod(pod, settings.pod_template, entries, stage)
    if not settings.host_access and (fields := list(violations(merged))):
        raise PodRejected(_message(pod, settings.pod_template, entries, stage, fields))
    return merged


def refusal(evolution: EmotionEvolution, settings: JobSettings) -> str:
    """Return why no pod of an evolution may be created, or an empty text.

    An evolution is refused as a whole: a stage is not started if a later one, or the purge Job,
    could not be.

    Parameters
    ----------
    evolution
        The evolution, with its current spec.
    settings
        The settings of the operator's Jobs.
    """
    entries = evolution.spec.pod_template
    return _refusal(entries, settings) if entries else ""


def defaults_refusal(settings: JobSettings) -> str:
    """Return why no pod may be created with the defaults of the installation, or an empty text.

    Parameters
    ----------
    settings
        The settings of the operator's Jobs, with the defaults.
    """
    return _refusal((), settings)


def _refusal(entries: Sequence[PodTemplateEntry], settings: JobSettings) -> str:
    if settings.host_access:
        return ""
    container = restricted_container(CONTAINER, settings)
    pod = {"metadata": {}, "spec": restricted_pod(container, settings)}
    for stage in (None, *Stage):
        try:
            gated_pod(pod, entries, stage, settings)
        except PodRejected as error:
            return str(error)
    return ""


def pod_refusal(pod: Json, settings: JobSettings) -> str:
    """Return why the pod of a Job that exists may not be started, or an empty text.

    The Job may be older than a setting of the installation, or may have been changed.

    Parameters
    ----------
    pod
        The pod template of the Job, as the API server returns it.
    settings
        The settings of the operator's Jobs.
    """
    field = None if settings.host_access else next(violations(pod), None)
    return f"its pod has `{field}` beyond the restricted Pod Security standard" if field else ""


def _message(
    pod: Json,
    defaults: Sequence[PodTemplateEntry],
    entries: Sequence[PodTemplateEntry],
    stage: Stage | None,
    fields: Sequence[str],
) -> str:
    """Return the error message, with the entry of a template that brings a violation."""
    layers = [
        *((f"jobs.podTemplate[{i}]", defaults[: i + 1], entries[:0]) for i in range(len(defaults))),
        *((f"podTemplate[{i}]", defaults, entries[: i + 1]) for i in range(len(entries))),
    ]
    for place, below, above in layers:
        for field in violations(layered_pod(pod, below, above, stage)):
            if field in fields:
                return (
                    f"`{place}.template.{field}` is beyond the restricted Pod Security standard: "
                    "remove it, or have the operator installed with `jobs.allowHostAccess`"
                )
    return (
        f"`{fields[0]}` of the pod is beyond the restricted Pod Security standard: have the "
        "operator installed with `jobs.allowHostAccess`"
    )
