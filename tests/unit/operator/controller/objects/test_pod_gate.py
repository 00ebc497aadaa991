"""The gate of all pods: what `spec.podTemplate` may not make of a pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.chart.restricted import violations as standard_violations
from tests.unit.operator.controller.kube_objects import SETTINGS, action_of, evolution_of

import selfemo_operator.controller
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest
from selfemo_operator.controller.objects.pod_gate import PodRejected, pod_refusal, refusal
from selfemo_operator.controller.objects.pod_security import ALLOWED_VOLUMES, violations
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]

#: The annotations that set the profiles of a container or a pod.
_PROFILES = (
    "container.apparmor.security.beta.kubernetes.io/stage",
    "container.seccomp.security.alpha.kubernetes.io/stage",
    "seccomp.security.alpha.kubernetes.io/pod",
)
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
#: Settings that the API server rejects or ignores today. Only what is known is let through.
MALFORMED: list[tuple[Json, str]] = [
    ({"runAsUser": "0"}, "runAsUser"),
    ({"runAsUser": True}, "runAsUser"),
    ({"runAsNonRoot": 0}, "runAsNonRoot"),
    ({"seccompProfile": "Unconfined"}, "seccompProfile"),
    ({"capabilities": "ALL"}, "capabilities.drop"),
    ({"notYetInvented": True}, "notYetInvented"),
    ({"RunAsUser": 0}, "RunAsUser"),
]
#: All other sources of volumes that Kubernetes has had.
SOURCES = (
    *("hostPath", "nfs", "iscsi", "flexVolume", "gitRepo", "cephfs", "rbd", "azureFile", "csi"),
    *("awsElasticBlockStore", "azureDisk", "cinder", "fc", "flocker", "gcePersistentDisk"),
    *("glusterfs", "photonPersistentDisk", "portworxVolume", "quobyte", "scaleIO", "storageos"),
    *("vsphereVolume", "notYetInvented", "hostpath"),
)
ALLOWED = JobSettings(image="i", host_access=True)


def of(template: Json, *stages: Stage) -> EmotionEvolution:
    entry = {"stages": [*stages] or None, "template": template}
    return evolution_of(podTemplate=[{"template": {}}, entry])


def jobs_of(evolution: EmotionEvolution, settings: JobSettings = SETTINGS) -> Iterator[Json]:
    """Yield the purge Job of an evolution, and the Job of each stage."""
    yield purge_manifest(evolution, settings)
    action = action_of(evolution)
    for stage in Stage:
        config = action.config.model_copy(update={"stage": stage})
        yield job_manifest(evolution, type(action)("n", 1, config), settings)


def is_refused(template: Json, field: str) -> bool:
    """Return whether a template is refused for every choice of stages, with the field's name."""
    for stages in ((), (Stage.SELF_PLAY,), (Stage.EVALUATE, Stage.TRAIN)):
        text = refusal(of(template, *stages), SETTINGS)
        if f"`podTemplate[1].template.{field}` is beyond" not in text:
            return False
    return refusal(of(template), ALLOWED) == ""


@pytest.mark.parametrize(("security", "field"), [*LOOSE, *MALFORMED], ids=str)
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
        ({"readinessProbe": {"httpGet": {"host": "h"}}}, "readinessProbe.httpGet.host"),
        ({"startupProbe": {"tcpSocket": {"host": "10.0.0.1"}}}, "startupProbe.tcpSocket.host"),
        ({"lifecycle": {"preStop": {"httpGet": {"host": "h"}}}}, "lifecycle.httpGet.host"),
        ({"lifecycle": {"postStart": {"tcpSocket": {"host": "h"}}}}, "lifecycle.tcpSocket.host"),
    ],
    ids=str,
)
def test_ports_and_requests_of_the_node_are_rejected(fields: Json, name: str) -> None:
    container = {"name": "proxy", "image": "i", "restartPolicy": "Always", **fields}
    assert is_refused({"initContainers": [container]}, f"initContainers[proxy].{name}")


@pytest.mark.parametrize("annotation", _PROFILES)
def test_annotations_for_profiles_are_rejected(annotation: str) -> None:
    prefix = annotation.partition("/")[0]
    assert is_refused({"annotations": {annotation: "unconfined"}}, f"annotations[{prefix}]")


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {}}]},
        {"volumes": [{"name": f"v{i}", s: {}} for i, s in enumerate(ALLOWED_VOLUMES)]},
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
    assert refusal(of(template), SETTINGS) == ""
    assert len(list(jobs_of(of(template)))) == len(Stage) + 1


ODD = st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.integers()


@given(
    st.dictionaries(
        st.sampled_from(["capabilities", "seccompProfile", "seLinuxOptions", "sysctls", "other"]),
        ODD,
    ),
    st.dictionaries(st.sampled_from(["securityContext", "ports", "lifecycle", "name"]), ODD),
)
def test_invalid_types_are_refused_or_left_to_the_api_server(
    security: Json, container: Json
) -> None:
    evolution = of({"securityContext": security, "initContainers": [container]})
    assert list(jobs_of(evolution, ALLOWED))
    try:
        pods = [job["spec"]["template"] for job in jobs_of(evolution)]
    except PodRejected as error:
        assert str(error) == refusal(evolution, SETTINGS)
    else:
        assert refusal(evolution, SETTINGS) == ""
        assert [list(violations(pod)) for pod in pods] == [[]] * len(pods)


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
    settings = JobSettings(image="i", run_as_user=user)
    try:
        jobs = list(jobs_of(evolution, settings))
    except PodRejected as error:
        assert str(error) == refusal(evolution, settings)
        return
    assert refusal(evolution, settings) == ""
    for job in jobs:
        assert list(standard_violations(job["spec"]["template"]["spec"])) == []


@pytest.mark.parametrize("security", [security for security, _ in LOOSE], ids=str)
def test_the_check_of_the_merged_pod_finds_each_setting(security: Json) -> None:
    """Without the gate, the merged pod has the setting, and the property above would fail."""
    evolution = evolution_of(podTemplate=[{"template": {"securityContext": security}}])
    assert list(standard_violations(purge_manifest(evolution, ALLOWED)["spec"]["template"]["spec"]))


# The gate ----------------------------------------------------------------------------------------

HOST = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}


@pytest.mark.parametrize("stage", Stage)
def test_no_stage_job_leaves_with_a_refused_pod(stage: Stage) -> None:
    """Whether or not the evolution was refused before."""
    action = action_of(evolution_of())
    create = type(action)("n", 1, action.config.model_copy(update={"stage": stage}))
    with pytest.raises(PodRejected, match=r"podTemplate\[1\]\.template\.volumes\[root\]\.hostPath"):
        job_manifest(of(HOST, stage), create, SETTINGS)
    assert job_manifest(of(HOST, stage), create, ALLOWED)
    other = Stage.TRAIN if stage is not Stage.TRAIN else Stage.SCORE
    assert job_manifest(of(HOST, other), create, SETTINGS), "its own pod is restricted"
    assert refusal(of(HOST, other), SETTINGS), "and yet the evolution is refused as a whole"


def test_no_purge_job_leaves_with_a_refused_pod() -> None:
    with pytest.raises(PodRejected, match="hostPath"):
        purge_manifest(of(HOST), SETTINGS)
    assert purge_manifest(of(HOST), ALLOWED)
    assert purge_manifest(of(HOST, *Stage), SETTINGS), "these entries are not the purge Job's"


def test_only_the_gate_applies_templates() -> None:
    """Pods that the operator creates are merged in one place."""
    folder = Path(selfemo_operator.controller.__file__).parent
    modules = sorted(folder.rglob("*.py"))
    for function, expected in (
        ("apply_templates", ["pod_layers.py", "pod_template.py"]),
        ("layered_pod", ["pod_gate.py", "pod_layers.py"]),
    ):
        assert [p.name for p in modules if f"{function}(" in p.read_text()] == expected


@pytest.mark.parametrize("depth", range(3))
def test_a_null_does_not_hide_a_setting(depth: int) -> None:
    """Nulls beside it, above it in another entry, and in the list that contains it."""
    loose = {"name": "i", "image": "i", "securityContext": {"privileged": True, "runAsUser": None}}
    entries: list[Json] = [
        {"template": {"initContainers": [loose], "securityContext": {"runAsNonRoot": None}}},
        {"template": {"securityContext": None, "volumes": None}},
        {"template": {"securityContext": {"capabilities": {"drop": None, "add": None}}}},
    ]
    for _ in range(depth):
        entries.insert(0, entries.pop())
    text = refusal(evolution_of(podTemplate=entries), SETTINGS)
    assert f"podTemplate[{depth}].template.initContainers[i].securityContext.privileged" in text


def test_the_merged_pod_decides_and_not_its_parts() -> None:
    """A volume that a later entry replaces is never mounted."""
    claim = {"volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "c"}}]}
    replaced = evolution_of(podTemplate=[{"template": HOST}, {"template": claim}])
    assert refusal(replaced, SETTINGS) == ""
    for_one = {"template": claim, "stages": [Stage.TRAIN]}
    text = refusal(evolution_of(podTemplate=[{"template": HOST}, for_one]), SETTINGS)
    assert "podTemplate[0].template.volumes[root].hostPath" in text


#: A stage's container that keeps all capabilities but one.
DROPS_ONE = {
    "name": "stage",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["NET_RAW"]},
    },
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"containers": [DROPS_ONE]}, "securityContext.capabilities.drop"),
        ({"ephemeralContainers": [{"name": "debug"}]}, "ephemeralContainers[debug]"),
        ({"securityContext": {"runAsNonRoot": True}}, "securityContext.seccompProfile"),
        ({"volumes": [{"name": "v", "csi": {"driver": "d"}}]}, "volumes[v].csi"),
    ],
    ids=str,
)
def test_the_pod_of_a_job_that_exists_is_judged(change: Json, field: str) -> None:
    pod = purge_manifest(evolution_of(), SETTINGS)["spec"]["template"]
    stored = {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    pod = {**pod, "spec": {**pod["spec"], **stored}}
    assert pod_refusal(pod, SETTINGS) == ""
    changed = {**pod, "spec": {**pod["spec"], **change}}
    assert field in pod_refusal(changed, SETTINGS)
    assert pod_refusal(changed, ALLOWED) == ""
