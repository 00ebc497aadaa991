"""The effect of `spec.podTemplate` on a pod, and its forbidden settings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.spec import PodTemplates
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_operator.controller.objects.pod_template import (
    apply_templates,
    host_access_error,
    templates_of,
)

Json = dict[str, Any]
POD: Json = {
    "metadata": {"labels": {"ours": "1"}, "annotations": {"config": "{}"}},
    "spec": {
        "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
        "containers": [
            {
                "name": "stage",
                "image": "ours",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "securityContext": {"readOnlyRootFilesystem": True},
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    },
}


def of(shared: Json | None = None, **stages: Json) -> PodTemplates:
    return PodTemplates.model_validate({"shared": shared, **stages})


def merge(shared: Json | None = None, stage: Stage = Stage.TRAIN, **stages: Json) -> Json:
    before = copy.deepcopy(POD)
    pod = apply_templates(POD, of(shared, **stages), stage)
    assert before == POD, "the input was changed"
    return pod


def container(pod: Json) -> Json:
    first: Json = pod["spec"]["containers"][0]
    return first


def test_without_templates_the_pod_is_unchanged() -> None:
    assert apply_templates(POD, PodTemplates(), Stage.TRAIN) == POD


def test_the_stages_template_is_applied_after_the_shared_one() -> None:
    pod = merge({"image": "a", "priorityClassName": "low"}, train={"image": "b"})
    assert container(pod)["image"] == "b"
    assert pod["spec"]["priorityClassName"] == "low"
    other = merge({"image": "a"}, Stage.SCORE, train={"image": "b"})
    assert container(other)["image"] == "a"


@pytest.mark.parametrize("stage", STAGE_ORDER)
def test_each_stage_has_a_field(stage: Stage) -> None:
    field = stage.value[0].lower() + stage.value[1:]
    templates = of(**{field: {"image": "mine"}})
    assert [name for name, _ in templates_of(templates, stage)] == [field]
    assert container(apply_templates(POD, templates, stage))["image"] == "mine"


def test_lists_are_merged_by_name() -> None:
    env = [{"name": "B", "value": "9"}, {"name": "C", "value": "3"}]
    volumes = [{"name": "work", "persistentVolumeClaim": {"claimName": "w"}}]
    pod = merge({"env": env, "volumes": volumes})
    variables = [(e["name"], e["value"]) for e in container(pod)["env"]]
    assert variables == [("A", "1"), ("B", "9"), ("C", "3")]
    assert pod["spec"]["volumes"] == [*volumes, {"name": "tmp", "emptyDir": {}}]


def test_mounts_are_merged_by_their_path() -> None:
    mounts = [{"name": "big", "mountPath": "/work"}, {"name": "big", "mountPath": "/data"}]
    assert container(merge({"volumeMounts": mounts}))["volumeMounts"] == mounts


def test_tolerations_are_added_and_resources_merged() -> None:
    pod = merge(
        {"tolerations": [{"key": "a"}], "resources": {"limits": {"memory": "8Gi"}}},
        train={"tolerations": [{"key": "b"}], "resources": {"requests": {"cpu": "4"}}},
    )
    assert pod["spec"]["tolerations"] == [{"key": "a"}, {"key": "b"}]
    assert container(pod)["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "memory": "8Gi"},
        "requests": {"cpu": "4"},
    }


def test_security_settings_are_split_between_pod_and_container() -> None:
    context = {"fsGroup": 5, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": False}
    pod = merge({"securityContext": context})
    assert pod["spec"]["securityContext"] == {**POD["spec"]["securityContext"], "fsGroup": 5}
    inner = {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": False}
    assert container(pod)["securityContext"] == inner


def test_the_operators_labels_and_annotations_stay() -> None:
    pod = merge({"labels": {"ours": "9", "mine": "1"}, "annotations": {"config": "{}x"}})
    assert pod["metadata"]["labels"] == {"ours": "1", "mine": "1"}
    assert pod["metadata"]["annotations"] == {"config": "{}"}


pairs = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("123")), max_size=5)


@given(pairs, pairs)
def test_the_last_value_of_each_variable_is_used(shared: Any, own: Any) -> None:
    def env(variables: list[tuple[str, str]]) -> list[Json]:
        return [{"name": name, "value": value} for name, value in variables]

    merged = container(merge({"env": env(shared)}, train={"env": env(own)}))["env"]
    expected = {"A": "1", "B": "2"} | dict(shared) | dict(own)
    assert {e["name"]: e["value"] for e in merged} == expected
    assert len(merged) == len(expected)


# Host access -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes[v].hostPath"),
        ({"securityContext": {"privileged": True}}, "securityContext"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "securityContext"),
        ({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, "capabilities.add"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsUser"),
        ({"securityContext": {"procMount": "Unmasked"}}, "procMount"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
        ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, "appArmorProfile"),
        ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "seLinuxOptions"),
        ({"securityContext": {"sysctls": [{"name": "x", "value": "1"}]}}, "securityContext"),
        ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "securityContext"),
        (
            {"annotations": {"container.apparmor.security.beta.kubernetes.io/stage": "unconfined"}},
            "annotations",
        ),
    ],
)
def test_access_to_the_node_is_rejected_with_the_field(template: Json, field: str) -> None:
    for name in ("shared", "selfPlay", "evaluate"):
        text = host_access_error(PodTemplates.model_validate({name: template}), STAGE_ORDER)
        assert text is not None
        assert f"podTemplate.{name}." in text
        assert field in text


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {}}]},
        {
            "securityContext": {
                "runAsUser": 1000,
                "fsGroup": 1000,
                "capabilities": {"drop": ["ALL"]},
            }
        },
        {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}},
        {"securityContext": {"seLinuxOptions": {"level": "s0:c1,c2"}}},
        {"annotations": {"example.com/a": "b"}},
    ],
)
def test_settings_of_the_pod_are_allowed(template: Json) -> None:
    assert host_access_error(of(template), STAGE_ORDER) is None


@given(
    st.dictionaries(
        st.sampled_from(["capabilities", "seccompProfile", "seLinuxOptions", "sysctls", "other"]),
        st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.integers(),
    )
)
def test_invalid_types_are_left_to_the_api_server(security: Json) -> None:
    host_access_error(of({"securityContext": security}), STAGE_ORDER)
