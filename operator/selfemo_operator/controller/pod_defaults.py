"""Reads and checks the defaults of stage pods at the operator's start.

They are the value `jobs.podTemplate` of the chart, with the form of `spec.podTemplate`. A default
that is wrong would end every evolution. So it ends the start of the operator instead, with one line
that names the field: `helm upgrade` then leaves the operator that runs before in its place.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfemo_api.schema.error_messages import problems_of
from selfemo_api.schema.strict_yaml import PARSE_ERRORS, parse_yaml
from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import printable
from selfemo_api.text.formatting import shortened
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.base_pod import (
    ENVIRONMENT,
    restricted_container,
    restricted_pod,
    variables,
)
from selfemo_operator.controller.objects.jobs import CONFIG_FOLDER, CONFIG_VOLUME, JOB_VARIABLES
from selfemo_operator.controller.objects.pod_gate import defaults_refusal, gated_pod
from selfemo_operator.controller.objects.settings import JobSettings, Settings

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The value of the chart, by which messages name a field.
VALUE = "jobs.podTemplate"
#: The server checks everything, rejects unknown fields, and stores nothing.
_DRY_RUN = "?dryRun=All&fieldValidation=Strict"
#: The most problems in one message, and its longest length in characters.
_MOST, _LONGEST = 5, 1500
_OPERATORS = "the operator sets it for each Job"
#: The labels that the operator sets for each Job.
_LABELS = (
    names.LABEL_NAME,
    names.LABEL_COMPONENT,
    names.LABEL_MANAGED_BY,
    names.LABEL_EVOLUTION,
    names.LABEL_UID,
    names.LABEL_GENERATION,
    names.LABEL_ATTEMPT,
)


class InvalidDefaults(Exception):
    """The defaults of stage pods are wrong. The message has one line, and names the fields."""


def with_defaults(settings: Settings) -> Settings:
    """Return the settings with the defaults of stage pods that their file has.

    Parameters
    ----------
    settings
        The settings, with the file.

    Raises
    ------
    InvalidDefaults
        If the file cannot be read, or if a default is wrong.
    """
    path = settings.jobs.pod_template_file
    if not path:
        return settings
    try:
        entries = tuple(_entries(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefaults(f"{VALUE}: {path} cannot be read: {error}") from None
    problems = [problem for index, entry in enumerate(entries) for problem in _taken(index, entry)]
    if problems:
        raise _invalid(problems)
    jobs = dataclasses.replace(settings.jobs, pod_template=entries)
    if refused := defaults_refusal(jobs):
        raise InvalidDefaults(refused)
    return dataclasses.replace(settings, jobs=jobs)


def check_defaults(kube: KubeClient, settings: Settings) -> None:
    """Let the API server judge Jobs with the defaults, without creating them.

    Many fields of a template are passed on unread, such as tolerations and volumes. What the server
    cannot judge, because of missing rights or a quota, is logged and does no harm.

    Parameters
    ----------
    kube
        The client of the API server.
    settings
        The settings of the operator, with the defaults.

    Raises
    ------
    InvalidDefaults
        If the API server rejects a Job. The message has its reason, with the field.
    ApiError
        If the API server cannot be reached.
    """
    if not settings.jobs.pod_template:
        return
    namespace = (*settings.namespaces, settings.lease_namespace or "default")[0]
    for job in _distinct_jobs(namespace, settings.jobs):
        try:
            kube.create(names.jobs_path(namespace) + _DRY_RUN, job)
        except ApiError as error:
            if error.status == 0:
                raise
            if error.status not in (400, 422) or error.is_policy:
                log.warning("%s was not checked by the API server: %s", VALUE, error.message)
                return
            stage = job["metadata"]["labels"][names.LABEL_COMPONENT]
            problem = f"{VALUE}: the API server rejects a Job of {stage}: {error.message}"
            raise _invalid([problem]) from None


def _distinct_jobs(namespace: str, settings: JobSettings) -> Iterator[Json]:
    """Yield a Job for each different pod that the defaults make."""
    pods: list[Json] = []
    container = {
        **restricted_container(names.CONTAINER, settings),
        "env": variables(ENVIRONMENT),
    }
    spec = {"restartPolicy": "Never", **restricted_pod(container, settings)}
    for stage in (None, *Stage):
        metadata = {"labels": {names.LABEL_COMPONENT: stage.slug if stage else names.PURGE}}
        pod = gated_pod({"metadata": metadata, "spec": spec}, (), stage, settings)
        if pod["spec"] not in pods:
            pods.append(pod["spec"])
            yield {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "selfemo-defaults", "namespace": namespace, **metadata},
                "spec": {"template": pod},
            }


def _entries(text: str) -> Iterator[PodTemplateEntry]:
    """Yield the entries of the file. Raises InvalidDefaults with all problems of all entries."""
    try:
        content, _ = parse_yaml(text)
    except PARSE_ERRORS as error:
        raise InvalidDefaults(f"{VALUE}: this is not YAML: {_one_line(str(error))}") from None
    if not isinstance(content, list):
        raise InvalidDefaults(f"{VALUE}: must be a list of entries with `template` and `stages`")
    problems, entries = [], []
    for index, item in enumerate(content):
        place = f"{VALUE}[{index}]"
        if not isinstance(item, dict):
            problems.append(f"{place}: must be a map with `template` and `stages`")
            continue
        try:
            entries.append(PodTemplateEntry.model_validate(item))
        except ValidationError as error:
            problems += [f"{place}.{problem}" for problem in problems_of(error)]
    if problems:
        raise _invalid(problems)
    yield from entries


def _taken(index: int, entry: PodTemplateEntry) -> Iterator[str]:
    """Yield the fields of an entry that only the operator can set. They would have no effect."""
    for field in _taken_fields(entry.template):
        yield f"{VALUE}[{index}].template.{field}: {_OPERATORS}"


def _taken_fields(template: PodTemplate) -> Iterator[str]:
    for variable in template.env or []:
        if variable.get("name") in JOB_VARIABLES:
            yield f"env[{variable['name']}]"
    for volume in [*(template.volumes or []), *(template.volume_mounts or [])]:
        if volume.get("name") == CONFIG_VOLUME and "mountPath" not in volume:
            yield f"volumes[{CONFIG_VOLUME}]"
        if volume.get("mountPath") == CONFIG_FOLDER:
            yield f"volumeMounts[{CONFIG_FOLDER}]"
    yield from (f"labels[{name}]" for name in _LABELS if name in (template.labels or {}))
    if names.ANNOTATION_CONFIG in (template.annotations or {}):
        yield f"annotations[{names.ANNOTATION_CONFIG}]"


def _invalid(problems: list[str]) -> InvalidDefaults:
    """Return the error with the first problems, in one line."""
    more = [f"and {len(problems) - _MOST} more problems"] if len(problems) > _MOST else []
    return InvalidDefaults(_one_line("; ".join([*problems[:_MOST], *more])))


def _one_line(text: str) -> str:
    return shortened(printable(" ".join(text.split())), _LONGEST)
