"""The objects that `kubectl selfemo serve` prints.

`SELFEMO_UPDATE_SNAPSHOTS=1` writes the snapshots.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.operator.controller.fake_api import FakeApiServer, FakeClient
from tests.unit.operator.controller.kube_objects import action_of, evolution_of
from typer.testing import CliRunner

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import Engine, PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_api.status import Best, StageTotals
from selfemo_operator.cli import kubectl
from selfemo_operator.cli.kube_access import Access
from selfemo_operator.cli.serve_follow import follow, published_generation
from selfemo_operator.cli.serve_manifests import (
    ServeOptions,
    job_settings,
    manifests_text,
    operator_image,
    serve_manifests,
)
from selfemo_operator.cli.serve_pod import evaluation_template
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import job_manifest
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.local.state import RunnerError

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "served"
SETTINGS = JobSettings(image="registry/selfemo-jobs:1", service_account="stages")
OPTIONS = {
    "deployment": ServeOptions(),
    "follow": ServeOptions(replicas=2, follow_image="registry/selfemo-operator:1"),
    "kserve": ServeOptions(
        kserve=True, api_key_secret="clients", follow_image="registry/selfemo-operator:1"
    ),
}
RICH: Json = {
    "storage": {
        "uri": "s3://bucket/runs",
        "endpoint": "https://minio:9000",
        "region": "eu",
        "pathStyle": True,
        "credentialsSecretRef": {"name": "minio"},
    },
    "resources": {"gpusPerNode": 4, "accelerator": "amd.com/gpu"},
    "selfPlay": {"engineArgs": {"tensor_parallel_size": 2}},
    "podTemplate": [
        {"stages": ["Train"], "template": {"image": "train"}},
        {
            "stages": ["Evaluate"],
            "template": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
                "labels": {names.LABEL_NAME: "mine", "team": "emotion"},
                "imagePullSecrets": [{"name": "registry"}],
            },
        },
    ],
}


def with_best(evolution: EmotionEvolution, best: int, published: int | None) -> EmotionEvolution:
    """Return an evolution with a best generation, and one that Publish has written."""
    totals = [StageTotals(stage=Stage.PUBLISH, generation=published or 0, runs=1)]
    status = evolution.status.model_copy(
        update={
            "best": Best(generation=best, f1=0.5, model_uri="s3://bucket/model"),
            "stages": [] if published is None else totals,
        }
    )
    return evolution.model_copy(update={"status": status})


def container_of(objects: list[Json]) -> Json:
    container: Json = objects[0]["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("name", OPTIONS)
def test_snapshot(name: str) -> None:
    spec = {} if name == "deployment" else RICH
    evolution = with_best(evolution_of(**spec), 3, 3)
    text = manifests_text(serve_manifests(evolution, SETTINGS, OPTIONS[name]))
    path = FOLDER / f"{name}.yaml"
    if os.environ.get("SELFEMO_UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert "&id" not in text


def test_the_model_is_that_of_a_generation_or_the_best_one() -> None:
    evolution = with_best(evolution_of(), 3, 3)
    run = f"{evolution.spec.storage.uri}/{evolution.run}"
    pinned = container_of(serve_manifests(evolution, SETTINGS, ServeOptions()))
    assert pinned["args"][0] == f"{run}/generations/003/evaluate/manifest.json"
    options = ServeOptions(follow_image="o")
    followed = container_of(serve_manifests(evolution, SETTINGS, options))
    assert followed["args"][0] == f"{run}/best/manifest.json"


def test_the_operator_does_not_take_the_pods_for_its_own() -> None:
    evolution = with_best(evolution_of(**RICH), 3, 3)
    objects = serve_manifests(evolution, SETTINGS, OPTIONS["follow"])
    selector = dict(part.split("=") for part in names.JOB_SELECTOR.split(","))
    for document in objects:
        pod = document["spec"].get("template", {}) if "spec" in document else {}
        for metadata in (document["metadata"], pod.get("metadata", {})):
            labels = metadata.get("labels", {})
            assert not selector.items() <= labels.items()
            assert labels.get(names.LABEL_MANAGED_BY) in (None, "kubectl-selfemo")
    deployment, service = objects[:2]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert labels["team"] == "emotion"


def test_an_image_of_the_user_wins() -> None:
    spec = {"podTemplate": [{"template": {"image": "theirs"}}]}
    evolution = with_best(evolution_of(**spec), 1, 1)
    assert container_of(serve_manifests(evolution, SETTINGS, ServeOptions()))["image"] == "theirs"
    options = ServeOptions(image="mine")
    assert container_of(serve_manifests(evolution, SETTINGS, options))["image"] == "mine"


def test_without_a_best_model() -> None:
    with pytest.raises(RunnerError, match="team/demo has no best model yet: wait until its gen"):
        serve_manifests(evolution_of(), SETTINGS, ServeOptions())


def test_settings_are_those_of_the_jobs() -> None:
    evolution = evolution_of()
    stage = job_manifest(evolution, action_of(evolution), SETTINGS)
    stage["metadata"]["creationTimestamp"] = "2026-01-01T10:00:00Z"
    assert stage["metadata"]["labels"][names.LABEL_COMPONENT] == "evaluate"
    later = job_manifest(evolution, action_of(evolution), JobSettings(image="other"))
    later["metadata"]["creationTimestamp"] = "2026-01-02T10:00:00Z"
    later["metadata"]["labels"][names.LABEL_COMPONENT] = "train"
    assert job_settings([later, stage]) == SETTINGS
    assert job_settings([later]).image == "other"
    assert job_settings([stage], "mine").image == "mine"
    assert job_settings([], "mine") == JobSettings(image="mine")
    platform = job_manifest(evolution, action_of(evolution), JobSettings(image="i", run_as_user=0))
    assert job_settings([platform]).run_as_user == 0
    with pytest.raises(RunnerError, match="--image"):
        job_settings([])


#: Defaults of an installation, as in `jobs.podTemplate` of the chart.
DEFAULTS: Json = {
    "nodeSelector": {"pool": "jobs", "zone": "a"},
    "tolerations": [{"key": "jobs", "operator": "Exists"}],
    "imagePullSecrets": [{"name": "everywhere"}],
    "runtimeClassName": "nvidia",
    "env": [{"name": "HTTPS_PROXY", "value": "http://default"}, {"name": "CA", "value": "/ca"}],
    "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
    "volumeMounts": [{"name": "cache", "mountPath": "/more"}],
    "resources": {"requests": {"cpu": "2", "memory": "8Gi"}},
}


def evaluation_jobs(evolution: EmotionEvolution) -> list[Json]:
    """Return a Job of Evaluate with the defaults, and a later one of another stage."""
    default = PodTemplateEntry(template=PodTemplate.model_validate(DEFAULTS))
    settings = dataclasses.replace(SETTINGS, pod_template=(default,), metrics_port=9464)
    evaluate = job_manifest(evolution, action_of(evolution), settings)
    evaluate["metadata"]["creationTimestamp"] = "2026-01-01T10:00:00Z"
    train = json.loads(json.dumps(evaluate))
    train["metadata"]["creationTimestamp"] = "2026-01-02T10:00:00Z"
    train["metadata"]["labels"][names.LABEL_COMPONENT] = "train"
    train["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "train"}
    return [train, evaluate]


def test_the_defaults_of_the_installation_come_from_the_job_of_the_evaluation() -> None:
    evolution = with_best(evolution_of(**RICH), 3, 3)
    of_job = evaluation_template(evaluation_jobs(evolution))
    settings = dataclasses.replace(SETTINGS, pod_template=of_job)
    (plain, _) = serve_manifests(evolution, SETTINGS, ServeOptions())
    (served, _) = serve_manifests(evolution, settings, ServeOptions())
    pod, plain_pod = (o["spec"]["template"]["spec"] for o in (served, plain))
    (container,), (plain_container,) = pod["containers"], plain_pod["containers"]
    assert pod["nodeSelector"] == DEFAULTS["nodeSelector"]
    evolutions_own = {"key": "gpu", "operator": "Exists"}
    assert pod["tolerations"] == [*DEFAULTS["tolerations"], evolutions_own]  # each once
    assert pod["imagePullSecrets"] == [{"name": "everywhere"}, {"name": "registry"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert {v["name"]: v for v in pod["volumes"]} == {
        **{v["name"]: v for v in plain_pod["volumes"]},
        "cache": DEFAULTS["volumes"][0],
    }, "without the configuration of the stage"
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert mounts == {
        **{m["mountPath"]: m for m in plain_container["volumeMounts"]},
        "/more": DEFAULTS["volumeMounts"][0],
    }
    env = {e["name"]: e for e in container["env"]}
    assert env == {
        **{e["name"]: e for e in plain_container["env"]},
        "CA": DEFAULTS["env"][1],
    }, "the evolution's proxy wins, and the Job's own variables are left out"
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "8Gi"},
        "limits": {"amd.com/gpu": "2"},
    }
    for name in ("command", "args", "ports", "startupProbe", "image", "securityContext"):
        assert container[name] == plain_container[name]
    assert evaluation_template(evaluation_jobs(evolution)[:1]) == ()


#: Fields of a template that reach the node, each with the name by which it is refused.
HOST_ACCESS: list[tuple[Json, str]] = [
    ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
    ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
    ({"securityContext": {"allowPrivilegeEscalation": True}}, "securityContext.allowPriv"),
    ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes[root].hostPath"),
]


@pytest.mark.parametrize("kserve", [False, True])
@pytest.mark.parametrize(("template", "field"), HOST_ACCESS)
def test_a_pod_that_the_operator_would_refuse_is_not_printed(
    template: Json, field: str, kserve: bool
) -> None:
    labels, refused = {"labels": {"team": "a"}}, {"stages": ["Evaluate"], "template": template}
    entries = [{"template": labels}, refused]
    evolution = with_best(evolution_of(podTemplate=entries), 1, 1)
    with pytest.raises(RunnerError, match=re.escape(f"`podTemplate[1].template.{field}")):
        serve_manifests(evolution, SETTINGS, ServeOptions(kserve=kserve))
    allowed = dataclasses.replace(SETTINGS, host_access=True)
    text = manifests_text(serve_manifests(evolution, allowed, ServeOptions(kserve=kserve)))
    assert next(iter(template)) in text
    evolution = with_best(evolution_of(podTemplate=[{**refused, "stages": ["Train"]}]), 1, 1)
    assert serve_manifests(evolution, SETTINGS, ServeOptions(kserve=kserve))


def test_a_volume_of_the_defaults_that_reaches_the_node_is_refused() -> None:
    volumes = [{"name": "root", "hostPath": {"path": "/"}}]
    of_job = (PodTemplateEntry(template=PodTemplate.model_validate({"volumes": volumes})),)
    settings = dataclasses.replace(SETTINGS, pod_template=of_job)
    evolution = with_best(evolution_of(), 1, 1)
    with pytest.raises(RunnerError, match=r"Job of the last evaluation.*--allow-host-access"):
        serve_manifests(evolution, settings, ServeOptions())


def test_image_of_the_operator() -> None:
    assert operator_image("localhost/selfemo-jobs:0.1") == "localhost/selfemo-operator:0.1"
    assert operator_image("selfemo-jobs") == "selfemo-operator"
    for other in ("registry/jobs:1", "r/selfemo-jobs@sha256:00", "my-selfemo-jobs:1"):
        with pytest.raises(RunnerError, match="--operator-image"):
            operator_image(other)


def test_gpus_are_those_of_the_evaluation() -> None:
    evolution = with_best(evolution_of(**RICH), 3, 3)
    assert evolution.spec.evaluation_engine is Engine.VLLM
    limits = container_of(serve_manifests(evolution, SETTINGS, ServeOptions()))["resources"]
    assert limits == {"limits": {"amd.com/gpu": "2"}}


def test_a_promotion_counts_once_it_is_published() -> None:
    assert published_generation(evolution_of()) is None
    assert published_generation(with_best(evolution_of(), 3, None)) is None
    assert published_generation(with_best(evolution_of(), 3, 2)) is None
    assert published_generation(with_best(evolution_of(), 3, 3)) == 3
    assert published_generation(with_best(evolution_of(), 3, 5)) == 3


class FollowedServer:
    """An API server with one evolution and one served object."""

    def __init__(self, evolution: EmotionEvolution, served: Json) -> None:
        self.evolution, self.served = evolution, served
        self.patches: list[tuple[str, Json]] = []

    def get(self, path: str) -> Json:
        return self.evolution.to_json() if "emotionevolutions" in path else self.served

    def patch(self, path: str, body: Json) -> None:
        self.patches.append((path, body))


@pytest.mark.parametrize("kserve", [False, True])
def test_follow(kserve: bool) -> None:
    options = ServeOptions(kserve=kserve, follow_image="o")
    earlier = with_best(evolution_of(), 2, 2)
    served = serve_manifests(earlier, SETTINGS, options)[0]
    key = ("team", "demo")
    server: Any = FollowedServer(earlier, served)
    assert follow(server, key, kserve=kserve) == "generation 2 is served"
    server.evolution = with_best(evolution_of(), 3, 2)
    assert follow(server, key, kserve=kserve) == "no new best model has been published"
    assert not server.patches
    server.evolution = with_best(evolution_of(), 3, 3)
    assert follow(server, key, kserve=kserve).endswith("demo-serve changes to generation 3")
    ((path, patch),) = server.patches
    group = "serving.kserve.io/v1beta1" if kserve else "apps/v1"
    kind = "inferenceservices" if kserve else "deployments"
    assert path == f"/apis/{group}/namespaces/team/{kind}/demo-serve"
    # what follows changes is what the printed object has
    later = serve_manifests(server.evolution, SETTINGS, options)[0]
    assert merged(served, patch) == later


def merged(document: Json, patch: Json) -> Json:
    """Return a document after a JSON merge patch."""
    out = dict(document)
    for name, value in patch.items():
        out[name] = merged(out.get(name, {}), value) if isinstance(value, dict) else value
    return out


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeApiServer()
    server.add_evolution()
    monkeypatch.setattr(Access, "connect", lambda self: FakeClient(server))
    result = CliRunner().invoke(kubectl.app, ["serve", "demo", "-n", "team", "--image", "i"])
    assert isinstance(result.exception, RunnerError)
    assert result.exception.exit_code == ExitCode.BAD_INPUT
    evolution = with_best(evolution_of(), 0, 0)
    monkeypatch.setattr(kubectl, "get_evolution", lambda *_: evolution)
    arguments = ["serve", "demo", "-n", "team", "--image", "r/selfemo-jobs:1", "--follow"]
    result = CliRunner().invoke(kubectl.app, arguments)
    assert result.exit_code == 0, result.output
    kinds = [document["kind"] for document in yaml.safe_load_all(result.stdout)]
    assert kinds == [
        *("Deployment", "Service"),
        *("ServiceAccount", "Role", "RoleBinding", "CronJob"),
    ]
    assert "r/selfemo-operator:1" in result.stdout
    assert "warning: the Job of the last evaluation no longer exists" in result.stderr
    template = {"securityContext": {"privileged": True}}
    evolution = with_best(evolution_of(podTemplate=[{"template": template}]), 0, 0)
    refused = CliRunner().invoke(kubectl.app, arguments)
    assert isinstance(refused.exception, RunnerError) and not refused.stdout
    allowed = CliRunner().invoke(kubectl.app, [*arguments, "--allow-host-access"])
    assert "privileged: true" in allowed.stdout
