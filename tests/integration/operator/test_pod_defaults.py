"""Defaults of stage pods on a real API server: quotas, limit ranges, wrong ones at the start."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_api.contract import ExitCode
from selfemo_api.spec import PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.pod_defaults import InvalidDefaults, check_defaults
from tests.integration.operator.api import wait_for
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster
from tests.unit.operator.controller.kube_objects import action_of, evolution_of

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

Json = dict[str, Any]
DRY_RUN = "?dryRun=All&fieldValidation=Strict"
#: The values that the guide names for a quota of limits.
SIZES = {
    "resources": {
        "requests": {"cpu": "1", "memory": "4Gi"},
        "limits": {"cpu": "4", "memory": "16Gi"},
    }
}
#: The fields with which the examples of the guide begin.
KEYS = tuple(
    f"{name}:"
    for name in (
        *("imagePullSecrets", "tolerations", "nodeSelector", "volumes", "env"),
        *("runtimeClassName", "resources"),
    )
)
NULLS = {"resources": {"requests": {"cpu": None, "memory": None}}}


def settings_with(*templates: Json, namespace: str = "default") -> Settings:
    entries = tuple(PodTemplateEntry.model_validate({"template": t}) for t in templates)
    jobs = JobSettings(image="i", pod_template=entries)
    return Settings(namespaces=(namespace,), jobs=jobs)


def pods_of(settings: Settings, **spec: Any) -> Iterator[Json]:
    """Yield the pods of the purge Job and of each stage of an evolution."""
    evolution = evolution_of(resources={"gpusPerNode": 0}, **spec)
    action = action_of(evolution)
    yield purge_manifest(evolution, settings.jobs)["spec"]["template"]
    for stage in Stage:
        config = action.config.model_copy(update={"stage": stage})
        yield job_manifest(evolution, type(action)("n", 1, config), settings.jobs)["spec"][
            "template"
        ]


def refusals(kube: KubeClient, namespace: str, settings: Settings, **spec: Any) -> set[str]:
    """Return why the server would refuse pods. Nothing is created."""
    messages = set()
    for template in pods_of(settings, **spec):
        pod = copy.deepcopy(template)
        metadata = {"name": "pod", "namespace": namespace, **pod["metadata"]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}
        try:
            kube.create(names.core_path(namespace, "pods") + DRY_RUN, body)
        except ApiError as error:
            messages.add(error.message)
    return messages


def create(kube: KubeClient, namespace: str, plural: str, kind: str, spec: Json) -> str:
    path = names.core_path(namespace, plural)
    metadata = {"name": "own", "namespace": namespace}
    kube.create(path, {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})
    return f"{path}/own"


def set_quota(kube: KubeClient, namespace: str, hard: dict[str, str]) -> None:
    """Create a quota, and wait until the quota controller has counted it."""
    path = create(kube, namespace, "resourcequotas", "ResourceQuota", {"hard": hard})
    wait_for(lambda: kube.get(path).get("status", {}).get("hard") == hard, "the quota")


def test_a_quota_of_requests_admits_all_pods_as_they_are(kube: KubeClient, namespace: str) -> None:
    assert refusals(kube, namespace, settings_with()) == set()
    hard = {"requests.cpu": "1", "requests.memory": "2Gi", "pods": "2"}
    set_quota(kube, namespace, hard)
    assert refusals(kube, namespace, settings_with()) == set()
    without = refusals(kube, namespace, settings_with(NULLS))
    assert len(without) == 1 and "must specify requests.cpu" in without.pop()


def test_a_quota_of_limits_admits_all_pods_with_the_values_of_the_guide(
    kube: KubeClient, namespace: str
) -> None:
    hard = {
        "limits.cpu": "8",
        "limits.memory": "32Gi",
        "requests.cpu": "4",
        "requests.memory": "8Gi",
    }
    set_quota(kube, namespace, hard)
    (refused,) = refusals(kube, namespace, settings_with())
    assert "must specify limits.cpu" in refused and "limits.memory" in refused
    assert refusals(kube, namespace, settings_with(SIZES)) == set()
    # an evolution that asks for more than the default limit keeps the quota, and gets it
    own = [{"template": {"resources": {"requests": {"memory": "6Gi"}, "limits": {"cpu": "500m"}}}}]
    assert refusals(kube, namespace, settings_with(SIZES), podTemplate=own) == set()
    more = [{"template": {"resources": {"requests": {"memory": "20Gi"}}}}]
    (exceeded,) = refusals(kube, namespace, settings_with(SIZES), podTemplate=more)
    assert "exceeded quota" in exceeded


def test_limit_ranges(kube: KubeClient, namespace: str) -> None:
    def limit(**numbers: Any) -> str:
        spec = {"limits": [{"type": "Container", **numbers}]}
        return create(kube, namespace, "limitranges", "LimitRange", spec)

    def remove(path: str) -> None:
        kube.delete(path, kube.get(path)["metadata"]["uid"])

    large = limit(default={"cpu": "2", "memory": "8Gi"})
    set_quota(kube, namespace, {"limits.cpu": "8", "limits.memory": "32Gi"})
    # the admission plugin caches limit ranges
    wait_for(lambda: refusals(kube, namespace, settings_with()) == set(), "the default limits")
    remove(large)
    small = limit(default={"cpu": "500m", "memory": "512Mi"})

    def is_too_small() -> bool:
        texts = refusals(kube, namespace, settings_with())
        return bool(texts) and all("less than or equal to memory limit" in t for t in texts)

    wait_for(is_too_small, "the smaller default limits")
    assert refusals(kube, namespace, settings_with(SIZES)) == set()
    assert refusals(kube, namespace, settings_with(NULLS)) == set()
    remove(small)
    limit(min={"cpu": "1", "memory": "2Gi"}, default={"cpu": "2", "memory": "8Gi"})

    def is_below() -> bool:
        texts = refusals(kube, namespace, settings_with())
        return bool(texts) and all("minimum cpu usage" in text for text in texts)

    wait_for(is_below, "the minimum")
    assert refusals(kube, namespace, settings_with(NULLS)) == set()
    assert refusals(kube, namespace, settings_with(SIZES)) == set()


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (
            {"tolerations": [{"kay": "gpu"}]},
            'unknown field "spec.template.spec.tolerations[0].kay"',
        ),
        (
            {"tolerations": [{"key": "gpu", "operator": "Matches"}]},
            "spec.template.spec.tolerations[0].operator",
        ),
        ({"env": [{"name": "A", "value": 2}]}, "EnvVar.spec.template.spec.containers.env.value"),
        (
            {"volumeMounts": [{"name": "nowhere", "mountPath": "/x"}]},
            "spec.template.spec.containers[0].volumeMounts[4].name",
        ),
        ({"resources": {"requests": {"cpu": "many"}}}, "quantities must match"),
        ({"nodeSelector": {"no/good/key": "x"}}, "spec.template.spec.nodeSelector"),
    ],
    ids=str,
)
def test_the_server_finds_what_selfemo_passes_on_unread(
    kube: KubeClient, namespace: str, template: Json, field: str
) -> None:
    with pytest.raises(InvalidDefaults) as error:
        check_defaults(kube, settings_with({"image": "j"}, template, namespace=namespace))
    text = str(error.value)
    assert text.startswith("jobs.podTemplate: the API server rejects a Job of ")
    assert field in text
    assert "\n" not in text
    assert kube.get(names.jobs_path(namespace))["items"] == []


def test_the_examples_of_the_guide_are_accepted(kube: KubeClient, namespace: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / "guides" / "kubernetes.md").read_text()
    section = text.partition("\n## Defaults for all evolutions")[2].partition("\n## ")[0]
    rows = [line.split(" | ", 1)[1] for line in section.splitlines() if line.startswith("| ")]
    pieces = [piece for row in rows[2:] for piece in row.split("`") if piece.startswith(KEYS)]
    assert len(pieces) >= 10
    for piece in pieces:
        check_defaults(kube, settings_with(yaml.safe_load(f"{{{piece}}}"), namespace=namespace))
    blocks = [block.partition("```")[0] for block in section.split("```yaml\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        entries = yaml.safe_load(block)["jobs"]["podTemplate"]
        templates = [PodTemplateEntry.model_validate(e).template.to_json() for e in entries]
        check_defaults(kube, settings_with(*templates, namespace=namespace))


def defaults_file(folder: Path, *templates: Json) -> str:
    path = folder / "pod-template.yaml"
    path.write_text(json.dumps([{"template": template} for template in templates]))
    return str(path)


def test_an_operator_gives_the_defaults_to_its_jobs(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
) -> None:
    toleration = {"key": "dedicated", "operator": "Exists"}
    file = defaults_file(tmp_path, {"tolerations": [toleration], **SIZES})
    make_operator("--jobs-pod-template", file)
    evolutions.create(storage={"uri": "s3://bucket/runs", "whenDeleted": "Delete"})

    def jobs() -> list[Json] | None:
        items: list[Json] = kube.get(names.jobs_path(namespace))["items"]
        return items if len(items) == 2 else None

    for job in wait_for(jobs, "the Jobs of the first stage and of the purge"):
        spec = job["spec"]["template"]["spec"]
        assert toleration in spec["tolerations"]
        assert spec["containers"][0]["resources"] == SIZES["resources"]


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"toleration": []}, "jobs.podTemplate[0].template.toleration: unknown field"),
        ({"tolerations": [{"kay": "gpu"}]}, "tolerations[0].kay"),
    ],
    ids=["by the operator", "by the API server"],
)
def test_an_operator_with_a_wrong_default_ends_with_one_line(
    cluster: Cluster, kube: KubeClient, namespace: str, tmp_path: Path, template: Json, field: str
) -> None:
    options = ("--namespace", namespace, "--jobs-pod-template", defaults_file(tmp_path, template))
    operator = OperatorProcess(cluster.kubeconfig, tmp_path / "log", options)
    operator.start()
    assert operator.process is not None
    assert operator.process.wait(60) == ExitCode.BAD_INPUT
    lines = [json.loads(line) for line in operator.text().splitlines()]
    (line,) = [line for line in lines if line["level"] == "critical"]
    assert field in line["message"]
