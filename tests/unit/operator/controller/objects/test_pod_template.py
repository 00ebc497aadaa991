"""The effect of `spec.podTemplate` on a pod."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.schema.crd import structural
from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.pod_template import (
    RESTRICTED_CONTAINER,
    apply_templates,
    templates_of,
)

Json = dict[str, Any]
POD: Json = {
    "metadata": {"labels": {"ours": "1"}, "annotations": {"config": "{}"}},
    "spec": {
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "stage",
                "image": "ours",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "securityContext": RESTRICTED_CONTAINER,
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    },
}


def entry(template: Json, *stages: Stage) -> PodTemplateEntry:
    return PodTemplateEntry.model_validate({"stages": [*stages] or None, "template": template})


def merge(
    *templates: Json | PodTemplateEntry, stage: Stage | None = Stage.TRAIN, pod: Json = POD
) -> Json:
    """Return the pod of a stage with some templates applied; a map is a template for all stages."""
    entries = [t if isinstance(t, PodTemplateEntry) else entry(t) for t in templates]
    before = copy.deepcopy(pod)
    merged = apply_templates(pod, entries, stage)
    assert before == pod, "the input was changed"
    return merged


def container(pod: Json) -> Json:
    first: Json = pod["spec"]["containers"][0]
    return first


# Entries -----------------------------------------------------------------------------------------


def test_without_templates_the_pod_is_unchanged() -> None:
    assert apply_templates(POD, [], Stage.TRAIN) == POD
    assert merge({}) == {**POD, "metadata": merge({})["metadata"]}


def test_entries_are_applied_in_their_order() -> None:
    entries = [
        entry({"image": "a", "priorityClassName": "low"}),
        entry({"image": "b"}, Stage.TRAIN, Stage.EVALUATE),
        entry({"image": "c"}, Stage.EVALUATE),
    ]
    images = {s: container(merge(*entries, stage=s))["image"] for s in Stage}
    assert images == dict.fromkeys(Stage, "a") | {Stage.TRAIN: "b", Stage.EVALUATE: "c"}
    assert merge(*entries)["spec"]["priorityClassName"] == "low"
    # an entry for all stages at the end replaces those before it
    assert container(merge(*entries, {"image": "d"}))["image"] == "d"


@pytest.mark.parametrize("stage", Stage)
def test_an_entry_applies_to_its_stages_only(stage: Stage) -> None:
    entries = [entry({"image": "mine"}, stage), entry({"image": "every"})]
    for other in Stage:
        places = [place for place, _ in templates_of(entries, other)]
        own = ["podTemplate[0].template"] if other is stage else []
        assert places == [*own, "podTemplate[1].template"]
    assert container(merge(entries[0], stage=stage))["image"] == "mine"


def test_entries_for_all_stages_apply_to_the_purge_job() -> None:
    named = entry({"image": "stages"}, *Stage)
    assert container(merge({"image": "every"}, named, stage=None))["image"] == "every"
    assert templates_of([named], None) == []


# Lists -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("imagePullSecrets", "name"),
        ("hostAliases", "ip"),
        ("resourceClaims", "name"),
        ("initContainers", "name"),
    ],
)
def test_lists_of_the_pod_are_merged_by_their_key(field: str, key: str) -> None:
    first = [{key: "a", "x": "1"}, {key: "b", "x": "2"}]
    second = [{key: "b", "x": "3"}, {key: "c", "x": "4"}]
    items = merge({field: first}, {field: second})["spec"][field]
    assert [(i[key], i["x"]) for i in items] == [("a", "1"), ("b", "3"), ("c", "4")]
    assert field not in merge({})["spec"], "a list that no template has is left out"


@pytest.mark.parametrize("field", ["tolerations", "topologySpreadConstraints"])
def test_lists_without_a_key_are_added(field: str) -> None:
    pod = merge({field: [{"key": "a"}]}, entry({field: [{"key": "b"}]}, Stage.TRAIN))
    assert pod["spec"][field] == [{"key": "a"}, {"key": "b"}]


def test_sources_of_variables_are_added_to_the_container() -> None:
    secret, settings = {"secretRef": {"name": "s3"}}, {"configMapRef": {"name": "proxy"}}
    pod = merge({"envFrom": [secret]}, entry({"envFrom": [settings]}, Stage.TRAIN))
    assert container(pod)["envFrom"] == [secret, settings]
    assert container(pod)["env"] == container(POD)["env"], "named variables win in Kubernetes"


@pytest.mark.parametrize("name", [{}, [], 7, True])
def test_entries_with_an_invalid_name_are_left_to_the_api_server(name: Any) -> None:
    env = [{"name": name, "value": "1"}, {"value": "2"}, {"value": "3"}]
    assert container(merge({"env": env}))["env"] == [*container(POD)["env"], *env]


pairs = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("123")), max_size=5)


@given(pairs, pairs)
def test_the_last_value_of_each_variable_is_used(every: Any, own: Any) -> None:
    def env(variables: list[tuple[str, str]]) -> list[Json]:
        return [{"name": name, "value": value} for name, value in variables]

    pod = merge({"env": env(every)}, entry({"env": env(own)}, Stage.TRAIN))
    expected = {"A": "1", "B": "2"} | dict(every) | dict(own)
    assert {e["name"]: e["value"] for e in container(pod)["env"]} == expected
    assert len(container(pod)["env"]) == len(expected)


# Maps and single fields --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("affinity", {"nodeAffinity": {}}),
        ("dnsConfig", {"nameservers": ["192.0.2.1"], "options": [{"name": "ndots"}]}),
        ("priorityClassName", "high"),
        ("runtimeClassName", "nvidia"),
        ("schedulerName", "volcano"),
        ("serviceAccountName", "stages.team"),
        ("terminationGracePeriodSeconds", 600),
    ],
)
def test_a_field_of_the_pod_is_replaced(field: str, value: Any) -> None:
    assert merge({field: value})["spec"] == {**merge({})["spec"], field: value}


def test_every_field_has_an_effect() -> None:
    """A field that is added to the API and forgotten here would do nothing."""
    values = {"object": {"a": "b"}, "array": [{"name": "a"}], "integer": 7, "string": "always"}
    fields = structural(PodTemplate)["properties"]
    assert len(fields) == len(PodTemplate.model_fields)
    for name, schema in fields.items():
        value = "Always" if name == "imagePullPolicy" else values[schema["type"]]
        assert merge({name: value}) != merge({}), name


def test_resources_are_merged() -> None:
    pod = merge(
        {"resources": {"limits": {"memory": "8Gi"}, "claims": [{"name": "gpu"}]}},
        entry({"resources": {"requests": {"cpu": "4"}, "claims": [{"name": "nic"}]}}, Stage.TRAIN),
    )
    assert container(pod)["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "memory": "8Gi"},
        "requests": {"cpu": "4"},
        "claims": [{"name": "gpu"}, {"name": "nic"}],
    }


def test_a_null_removes_a_resource() -> None:
    limits = {"nvidia.com/gpu": None, "nvidia.com/mig-1g.10gb": "1"}
    pod = merge({"resources": {"limits": limits}})
    assert container(pod)["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": "1"}}
    assert container(merge({"resources": {"limits": None}}))["resources"] == {}


def test_the_operators_labels_and_annotations_stay() -> None:
    pod = merge({"labels": {"ours": "9", "mine": "1"}, "annotations": {"config": "{}x"}})
    assert pod["metadata"]["labels"] == {"ours": "1", "mine": "1"}
    assert pod["metadata"]["annotations"] == {"config": "{}"}


# Security ----------------------------------------------------------------------------------------


def test_security_settings_are_split_between_pod_and_container() -> None:
    context = {"fsGroup": 5, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": False}
    pod = merge({"securityContext": context})
    assert pod["spec"]["securityContext"] == {**POD["spec"]["securityContext"], "fsGroup": 5}
    inner = {**RESTRICTED_CONTAINER, "readOnlyRootFilesystem": False}
    assert container(pod)["securityContext"] == inner


@pytest.mark.parametrize(
    "context",
    [
        dict.fromkeys(
            [
                *("runAsNonRoot", "seccompProfile", "allowPrivilegeEscalation", "capabilities"),
                *("readOnlyRootFilesystem", "privileged"),
            ]
        ),
        {"capabilities": {}, "seccompProfile": {}},
        {"capabilities": {"drop": None, "add": None}, "seccompProfile": {"type": None}},
    ],
    ids=["null", "empty", "null below"],
)
def test_a_null_or_an_empty_map_undoes_no_security_setting(context: Json) -> None:
    for pod in (merge({"securityContext": context}), merge({}, {"securityContext": context})):
        assert pod["spec"]["securityContext"] == POD["spec"]["securityContext"]
        assert container(pod)["securityContext"] == RESTRICTED_CONTAINER
    init = merge({"initContainers": [{"name": "i", "securityContext": context}]})
    own = init["spec"]["initContainers"][0]["securityContext"]
    assert {k: own[k] for k in RESTRICTED_CONTAINER} == RESTRICTED_CONTAINER


def test_a_null_leaves_the_ids_to_the_platform() -> None:
    ids = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    pod = merge({"securityContext": ids})
    assert pod["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    again = merge({"securityContext": ids}, {"securityContext": {"fsGroup": 1000}})
    assert again["spec"]["securityContext"]["fsGroup"] == 1000
    assert "runAsUser" not in again["spec"]["securityContext"]


def test_what_was_dropped_stays_dropped() -> None:
    pod = merge({"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}})
    assert container(pod)["securityContext"]["capabilities"] == {"drop": ["ALL", "NET_RAW"]}


def test_init_containers_are_restricted_where_they_set_nothing() -> None:
    plain = {"name": "fetch", "image": "curl:8"}
    loose = {**plain, "name": "loose", "securityContext": {"readOnlyRootFilesystem": False}}
    pod = merge({"initContainers": [plain]}, {"initContainers": [loose]})
    assert pod["spec"]["initContainers"] == [
        {**plain, "securityContext": RESTRICTED_CONTAINER},
        {**loose, "securityContext": {**RESTRICTED_CONTAINER, "readOnlyRootFilesystem": False}},
    ]
    assert len(pod["spec"]["containers"]) == 1
