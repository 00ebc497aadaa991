"""What `spec.podTemplate` may not contain: settings beyond the restricted Pod Security standard."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.chart.restricted import violations
from tests.unit.operator.controller.kube_objects import SETTINGS, action_of, evolution_of

from selfemo_api.spec import PodTemplate, PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.host_access import host_access_error
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest

Json = dict[str, Any]

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/stage"
#: Security settings beyond the standard, with the field that the message names.
LOOSE: list[tuple[Json, str]] = [
    ({"privileged": True}, "privileged"),
    ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
    ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities.add"),
    ({"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}, "capabilities.add"),
    ({"runAsUser": 0}, "runAsUser"),
    ({"runAsNonRoot": False}, "runAsNonRoot"),
    ({"procMount": "Unmasked"}, "procMount"),
    ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
    ({"appArmorProfile": {"type": "Unconfined"}}, "appArmorProfile"),
    ({"seLinuxOptions": {"type": "spc_t"}}, "seLinuxOptions"),
    ({"sysctls": [{"name": "x", "value": "1"}]}, "sysctls"),
    ({"windowsOptions": {"hostProcess": True}}, "windowsOptions"),
]
#: Sources of volumes beyond the standard.
SOURCES = ("hostPath", "nfs", "iscsi", "flexVolume", "gitRepo", "cephfs", "rbd", "azureFile")


def of(template: Json, *stages: Stage) -> list[PodTemplateEntry]:
    return [
        PodTemplateEntry(template=PodTemplate()),
        PodTemplateEntry.model_validate({"stages": [*stages] or None, "template": template}),
    ]


def is_refused(template: Json, field: str) -> bool:
    """Return whether a template is refused for every choice of stages, with the field's name."""
    for stages in ((), (Stage.SELF_PLAY,), (Stage.EVALUATE, Stage.TRAIN)):
        text = host_access_error(of(template, *stages))
        if text is None or f"`podTemplate[1].template.{field}` is beyond" not in text:
            return False
    return True


@pytest.mark.parametrize(("security", "field"), LOOSE, ids=str)
def test_privileges_are_rejected_with_the_field(security: Json, field: str) -> None:
    assert is_refused({"securityContext": security}, f"securityContext.{field}")
    container = {"name": "setup", "image": "i", "securityContext": security}
    name = f"initContainers[setup].securityContext.{field}"
    assert is_refused({"initContainers": [{"name": "first"}, container]}, name)


@pytest.mark.parametrize("source", SOURCES)
def test_volumes_of_the_node_and_the_network_are_rejected(source: str) -> None:
    volumes = [{"name": "ok", "emptyDir": {}}, {"name": "v", source: {"path": "/"}}]
    assert is_refused({"volumes": volumes}, f"volumes[v].{source}")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"ports": [{"containerPort": 80, "hostPort": 80}]}, "ports.hostPort"),
        ({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}, "livenessProbe.httpGet.host"),
        ({"startupProbe": {"tcpSocket": {"host": "10.0.0.1"}}}, "startupProbe.tcpSocket.host"),
        ({"lifecycle": {"preStop": {"httpGet": {"host": "h"}}}}, "lifecycle.httpGet.host"),
    ],
    ids=str,
)
def test_ports_and_requests_of_the_node_are_rejected(fields: Json, name: str) -> None:
    container = {"name": "proxy", "image": "i", "restartPolicy": "Always", **fields}
    assert is_refused({"initContainers": [container]}, f"initContainers[proxy].{name}")


def test_annotations_for_apparmor_are_rejected() -> None:
    annotations = {_APPARMOR: "unconfined"}
    name = "annotations[container.apparmor.security.beta.kubernetes.io]"
    assert is_refused({"annotations": annotations}, name)


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {}}]},
        {"volumes": [{"name": "i", "image": {"reference": "r"}}, {"name": "s", "csi": {}}]},
        {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": None}]},
        {
            "securityContext": {
                "runAsUser": 1000,
                "fsGroup": 1000,
                "capabilities": {"drop": ["ALL"]},
            }
        },
        {"securityContext": {"runAsUser": None, "runAsNonRoot": None, "privileged": None}},
        {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}},
        {"securityContext": {"seLinuxOptions": {"level": "s0:c1,c2"}}},
        {"annotations": {"example.com/a": "b"}},
        {"initContainers": [{"name": "i", "ports": [{"containerPort": 80}]}]},
        {"initContainers": [{"name": "i", "livenessProbe": {"httpGet": {"port": 80}}}]},
        {"envFrom": [{"secretRef": {"name": "s"}}], "dnsConfig": {}, "hostAliases": []},
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]},
    ],
    ids=str,
)
def test_settings_of_the_pod_are_allowed(template: Json) -> None:
    assert host_access_error(of(template)) is None


ODD = st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.integers()


@given(
    st.dictionaries(
        st.sampled_from(["capabilities", "seccompProfile", "seLinuxOptions", "sysctls", "other"]),
        ODD,
    ),
    st.dictionaries(st.sampled_from(["securityContext", "ports", "lifecycle", "name"]), ODD),
)
def test_invalid_types_are_left_to_the_api_server(security: Json, container: Json) -> None:
    entries = of({"securityContext": security, "initContainers": [container]})
    host_access_error(entries)
    purge_manifest(evolution_of(podTemplate=[e.to_json() for e in entries]), SETTINGS)


# The merged pod ----------------------------------------------------------------------------------


@st.composite
def security_contexts(draw: Any) -> Json:
    """Security contexts of valid types: restricted, loose, empty and null settings, mixed."""
    allowed: list[Json] = [
        {"runAsUser": 1000, "fsGroup": 0},
        {"readOnlyRootFilesystem": False},
        {"capabilities": {"drop": ["NET_RAW"]}},
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}},
    ]
    unset: list[Json] = [
        {name: value} for loose, _ in LOOSE for name in loose for value in (None, {})
    ]
    ids = [{"runAsUser": None}, {"runAsGroup": None, "fsGroup": None}]
    below = [{"capabilities": {"drop": None}}, {"seccompProfile": {"type": None}}]
    parts = st.sampled_from([*allowed, *unset, *ids, *below, *(loose for loose, _ in LOOSE)])
    merged: Json = {}
    for part in draw(st.lists(parts, max_size=3)):
        merged |= part
    return merged


volumes = st.sampled_from([*SOURCES, "emptyDir", "secret", "projected", "csi"]).map(
    lambda source: {"name": f"v-{source.lower()}", source: {"path": "/"}}
)
init_containers = st.fixed_dictionaries(
    {"name": st.sampled_from("ab"), "image": st.just("i")},
    optional={
        "securityContext": security_contexts(),
        "ports": st.lists(st.sampled_from([{"hostPort": 80}, {"containerPort": 80}]), max_size=1),
        "livenessProbe": st.sampled_from([{"httpGet": {"host": "h"}}, {"httpGet": {"port": 80}}]),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "securityContext": security_contexts(),
        "volumes": st.lists(volumes, max_size=2),
        "initContainers": st.lists(init_containers, max_size=2),
    },
)
entries = st.fixed_dictionaries(
    {"template": templates},
    optional={"stages": st.lists(st.sampled_from(Stage), min_size=1, max_size=3)},
)


@given(st.lists(entries, max_size=3), st.sampled_from([0, 65532]))
def test_a_pod_that_is_not_refused_is_restricted(pod_template: list[Json], user: int) -> None:
    """Stage pods and the pod of the purge Job, with and without a user ID of the installation."""
    evolution = evolution_of(podTemplate=pod_template)
    if host_access_error(evolution.spec.pod_template) is not None:
        return
    settings = type(SETTINGS)(image="i", run_as_user=user)
    action = action_of(evolution)
    jobs = [purge_manifest(evolution, settings)]
    for stage in Stage:
        config = action.config.model_copy(update={"stage": stage})
        jobs.append(job_manifest(evolution, type(action)("n", 1, config), settings))
    for job in jobs:
        assert list(violations(job["spec"]["template"]["spec"])) == []


@pytest.mark.parametrize("security", [security for security, _ in LOOSE], ids=str)
def test_the_check_of_the_merged_pod_finds_each_setting(security: Json) -> None:
    """Without the refusal, the merged pod has the setting, and the property above would fail."""
    evolution = evolution_of(podTemplate=[{"template": {"securityContext": security}}])
    assert list(violations(purge_manifest(evolution, SETTINGS)["spec"]["template"]["spec"]))
