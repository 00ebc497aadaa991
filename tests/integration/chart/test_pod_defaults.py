"""The chart's defaults of stage pods: the file for the operator, its account, and `helm test`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_operator.controller.objects.pod_layers import DEFAULT_REQUESTS
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.pod_defaults import InvalidDefaults, with_defaults
from tests.integration.chart.helm import CHART, VALUES, Helm, HelmError, find

pytestmark = pytest.mark.chart

Json = dict[str, Any]
STAGES = VALUES / "stages.yaml"


def operators_pod(objects: list[Json]) -> Json:
    template: Json = find(objects, "Deployment", "selfemo")["spec"]["template"]
    return template


def read_by_the_operator(objects: list[Json], folder: Path) -> Settings:
    """Return the settings that the operator makes of the rendered ConfigMap and its option."""
    (container,) = operators_pod(objects)["spec"]["containers"]
    (option,) = [a for a in container["args"] if a.startswith("--jobs-pod-template=")]
    path = Path(option.partition("=")[2])
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == str(path.parent)]
    volumes = operators_pod(objects)["spec"]["volumes"]
    (volume,) = [v for v in volumes if v["name"] == mount["name"]]
    data = find(objects, "ConfigMap", volume["configMap"]["name"])["data"]
    file = folder / path.name
    file.write_text(data[path.name])
    jobs = JobSettings(image="i", pod_template_file=str(file))
    return with_defaults(Settings(jobs=jobs))


def test_the_operator_reads_what_the_values_say(helm: Helm, tmp_path: Path) -> None:
    settings = read_by_the_operator(helm.template(STAGES), tmp_path)
    written = yaml.safe_load(STAGES.read_text())["jobs"]["podTemplate"]
    written[0]["template"]["env"][1]["value"] = "http://proxy.selfemo-system:3128"
    assert [entry.to_json() for entry in settings.jobs.pod_template] == written


def test_nulls_reach_the_operator(helm: Helm, tmp_path: Path) -> None:
    """Helm removes nulls of maps, but not those in lists."""
    template = {"resources": {"requests": {"cpu": None}}, "securityContext": {"runAsUser": None}}
    objects = helm.template({"jobs": {"podTemplate": [{"template": template}]}})
    (entry,) = read_by_the_operator(objects, tmp_path).jobs.pod_template
    assert entry.template.resources == {"requests": {"cpu": None}}
    assert entry.template.security_context == {"runAsUser": None}


def test_a_change_of_the_defaults_starts_new_operators(helm4: Helm) -> None:
    def annotations(*images: str, **values: Any) -> Json:
        entries = [{"template": {"image": image}} for image in images]
        objects = helm4.template({"jobs": {"podTemplate": entries}, **values})
        found: Json = operators_pod(objects)["metadata"].get("annotations", {})
        return found

    one, other = annotations("a"), annotations("b")
    assert one.keys() == {"checksum/jobs-pod-template"}
    assert one != other
    assert one == annotations("a", replicas=1)
    assert annotations() == {}, "without defaults nothing is mounted"
    assert annotations("a", podAnnotations={"x": "z"}) == {**one, "x": "z"}


def test_the_account_of_stage_pods_has_pull_secrets(helm4: Helm) -> None:
    account = find(helm4.template(STAGES), "ServiceAccount", "selfemo-jobs")
    assert account["imagePullSecrets"] == [{"name": "registry"}]
    both = {
        "global": {"imagePullSecrets": ["everywhere"]},
        "watchNamespaces": ["a"],
        "jobs": {"serviceAccount": {"imagePullSecrets": [{"name": "own"}]}},
    }
    account = find(helm4.template(both), "ServiceAccount", "selfemo-jobs")
    assert account["imagePullSecrets"] == [{"name": "everywhere"}, {"name": "own"}]


def test_pull_secrets_are_never_swallowed(helm4: Helm, tmp_path: Path) -> None:
    """Without an account of the chart's, those of all images are defaults, and others an error."""
    everywhere = {"global": {"imagePullSecrets": ["everywhere"]}}
    own = {"jobs": {"podTemplate": [{"template": {"image": "i"}}]}}
    (first, last) = read_by_the_operator(
        helm4.template({**everywhere, **own}), tmp_path
    ).jobs.pod_template
    assert first.template.image == "i"
    assert last.template.image_pull_secrets == [{"name": "everywhere"}]
    with pytest.raises(HelmError, match=r"jobs\.serviceAccount\.imagePullSecrets: the chart"):
        helm4.template({"jobs": {"serviceAccount": {"imagePullSecrets": ["own"]}}})


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"template": {"toleration": []}}, "toleration"),
        ({"template": {"nodeSelector": {"pool": 1}}}, "pool"),
        ({"template": {"imagePullPolicy": "Sometimes"}}, "imagePullPolicy"),
        ({"template": {}, "stages": ["Training"]}, "stages"),
        ({"template": {}, "stage": "Train"}, "stage"),
        ({"stages": ["Train"]}, "template"),
    ],
    ids=str,
)
def test_a_wrong_default_is_rejected_by_the_schema(helm: Helm, entry: Json, field: str) -> None:
    with pytest.raises(HelmError) as error:
        helm.template({"jobs": {"podTemplate": [{"template": {}}, entry]}})
    text = str(error.value)
    assert "podTemplate" in text
    assert "1" in text.partition("podTemplate")[2][:3], "the number of the entry"
    assert field in text


def test_the_pod_of_the_test_has_the_defaults(helm4: Helm) -> None:
    pod = find(helm4.template(STAGES), "Pod", "selfemo-test")["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    assert pod["nodeSelector"] == {"pool": "jobs"}, "that of Train is for Train"
    assert "runtimeClassName" not in pod
    (prepare,), (test,) = pod["initContainers"], pod["containers"]
    variables = [e["name"] for e in prepare["env"]]
    assert len(set(variables)) == len(variables)
    values = {e["name"]: e.get("value") for e in prepare["env"]}
    assert values["AWS_CA_BUNDLE"] == "/etc/company-ca/ca.crt"
    assert values["HTTPS_PROXY"] == "http://other:3128", "test.podTemplate wins"
    assert {m["name"] for m in prepare["volumeMounts"]} == {"test", "tmp", "ca"}
    # the claim of the cache is mounted by stages alone
    assert [v["name"] for v in pod["volumes"]] == ["test", "token", "tmp", "ca"]
    # a quota of limits admits both containers
    assert prepare["resources"] == {
        "requests": {"cpu": "1", "memory": "4Gi"},
        "limits": {"cpu": "2", "memory": "16Gi"},
    }
    assert test["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}


def test_the_pod_of_the_test_has_requests_without_defaults(helm4: Helm) -> None:
    storage = {"uri": "s3://bucket/x", "credentialsSecretRef": {"name": "keys"}}
    env = [{"name": n, "value": "v"} for n in ("HOME", "AWS_ACCESS_KEY_ID", "MINE")]
    volumes = [{"name": n, "emptyDir": {}} for n in ("tmp", "mine", "unused")]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "mine", "mountPath": "/mine"}]
    template = {
        "env": env,
        "volumes": volumes,
        "volumeMounts": mounts,
        "resources": {"limits": {"memory": "512Mi"}},
    }
    for values in (
        {"jobs": {"podTemplate": [{"template": template}]}},
        {"test": {"podTemplate": template}},
    ):
        merged = {**values, "test": {"storage": storage, **values.get("test", {})}}
        pod = find(helm4.template(merged), "Pod", "selfemo-test")["spec"]
        (prepare,) = pod["initContainers"]
        assert prepare["resources"] == {
            "limits": {"memory": "512Mi"},
            "requests": {"cpu": "250m"},
        }
        names = [e["name"] for e in prepare["env"]]
        assert len(set(names)) == len(names) and "MINE" in names
        assert [v["name"] for v in pod["volumes"]] == ["test", "token", "tmp", "mine"]
    plain = find(helm4.template({"test": {"storage": storage}}), "Pod", "selfemo-test")["spec"]
    assert plain["initContainers"][0]["resources"] == {"requests": {"cpu": "250m", "memory": "1Gi"}}


def test_the_requests_of_the_test_are_those_of_stage_pods() -> None:
    text = (CHART / "templates" / "tests" / "_evolution.tpl").read_text()
    pairs = " ".join(f'"{name}" "{value}"' for name, value in DEFAULT_REQUESTS.items())
    assert f"dict {pairs}" in text


def test_host_access_is_needed_for_more_than_the_restricted_standard(
    helm4: Helm, tmp_path: Path
) -> None:
    root = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    objects = helm4.template({"jobs": {"podTemplate": [{"template": root}]}})
    with pytest.raises(InvalidDefaults, match=r"jobs\.podTemplate\[0\].*hostPath"):
        read_by_the_operator(objects, tmp_path)
    file = str(tmp_path / "pod-template.yaml")
    allowed = JobSettings(image="i", pod_template_file=file, host_access=True)
    assert with_defaults(Settings(jobs=allowed)).jobs.pod_template
