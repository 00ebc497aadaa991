"""The layers of a pod: the operator's, the installation's defaults, and the evolution's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.controller.kube_objects import SETTINGS, action_of, evolution_of

from selfemo_api.contract import ENV_GRACE
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.jobs import job_manifest, purge_manifest, template_hash
from selfemo_operator.controller.objects.pod_gate import refusal
from selfemo_operator.controller.objects.pod_layers import DEFAULT_REQUESTS
from selfemo_operator.controller.objects.pod_template import apply_templates
from selfemo_operator.controller.objects.quantities import quantity
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]


def entry(template: Json, *stages: Stage) -> PodTemplateEntry:
    return PodTemplateEntry.model_validate({"stages": [*stages] or None, "template": template})


def settings_with(*defaults: Json | PodTemplateEntry) -> JobSettings:
    """Return settings with defaults; a map is a template for all stages."""
    entries = tuple(d if isinstance(d, PodTemplateEntry) else entry(d) for d in defaults)
    return JobSettings(image=SETTINGS.image, pod_template=entries)


def pod_of(
    settings: JobSettings, *own: Json, stage: Stage | None = Stage.EVALUATE, **spec: Any
) -> Json:
    """Return the pod template of a stage, or of the purge Job, of an evolution with templates."""
    templates = [{"template": template} for template in own]
    evolution = evolution_of(podTemplate=templates, resources={"gpusPerNode": 0}, **spec)
    return merged_pod(evolution, stage, settings)


def merged_pod(evolution: EmotionEvolution, stage: Stage | None, settings: JobSettings) -> Json:
    """Return the pod template of a stage, or of the purge Job, of an evolution."""
    if stage is None:
        job = purge_manifest(evolution, settings)
    else:
        action = action_of(evolution)
        config = action.config.model_copy(update={"stage": stage})
        job = job_manifest(evolution, type(action)("n", 1, config), settings)
    pod: Json = job["spec"]["template"]
    return pod


def container(pod: Json) -> Json:
    first: Json = pod["spec"]["containers"][0]
    return first


def env(pod: Json) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(pod)["env"]}


def resources(settings: JobSettings, *own: Json) -> Json:
    found: Json = container(pod_of(settings, *own))["resources"]
    return found


# Layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [None, *Stage])
def test_a_default_applies_to_its_stages_and_the_evolution_wins(stage: Stage | None) -> None:
    settings = settings_with(
        {"nodeSelector": {"pool": "all", "arch": "x"}, "tolerations": [{"key": "a"}]},
        entry({"runtimeClassName": "nvidia", "nodeSelector": {"pool": "gpu"}}, Stage.TRAIN),
    )
    spec = pod_of(settings, stage=stage)["spec"]
    is_train = stage is Stage.TRAIN
    assert spec["nodeSelector"] == {"pool": "gpu" if is_train else "all", "arch": "x"}
    assert spec.get("runtimeClassName") == ("nvidia" if is_train else None)
    own = {"nodeSelector": {"pool": "mine"}, "runtimeClassName": "gvisor"}
    spec = pod_of(settings, {**own, "tolerations": [{"key": "b"}]}, stage=stage)["spec"]
    assert spec["nodeSelector"] == {"pool": "mine", "arch": "x"}
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["tolerations"] == [{"key": "a"}, {"key": "b"}]


def test_a_default_replaces_what_every_pod_has() -> None:
    cache = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    pod = pod_of(settings_with({"volumes": [cache], "env": [{"name": "HF_HOME", "value": "/m"}]}))
    assert cache in pod["spec"]["volumes"]
    assert [v["name"] for v in pod["spec"]["volumes"]] == ["config", "work", "cache", "tmp", "shm"]
    assert env(pod)["HF_HOME"] == "/m"


def test_what_the_operator_must_set_for_a_job_stays() -> None:
    defaults = {
        "env": [
            {"name": "AWS_ACCESS_KEY_ID", "value": "of the cluster"},
            {"name": "AWS_PROFILE", "value": "cluster"},
        ],
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "labels": {"team": "a"},
    }
    settings = settings_with(defaults)
    evolution = evolution_of(storage={"credentialsSecretRef": {"name": "s3"}})
    pod = job_manifest(evolution, action_of(evolution), settings)["spec"]["template"]
    assert env(pod)["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["name"] == "s3"
    assert env(pod)["AWS_PROFILE"] == "cluster"
    assert container(pod)["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"][names.LABEL_EVOLUTION] == "demo"
    # without credentials of the evolution, those of the defaults are used
    plain = evolution_of()
    pod = job_manifest(plain, action_of(plain), settings)["spec"]["template"]
    assert env(pod)["AWS_ACCESS_KEY_ID"] == "of the cluster"
    # and an evolution may replace even what the operator sets, as it always could
    own = {"env": [{"name": "AWS_ACCESS_KEY_ID", "value": "mine"}]}
    assert env(pod_of(settings, own))["AWS_ACCESS_KEY_ID"] == "mine"


def test_a_stage_knows_the_time_to_end_of_the_last_layer_with_one() -> None:
    settings = settings_with({"terminationGracePeriodSeconds": 600})
    for own, seconds in (((), 600), (({"terminationGracePeriodSeconds": 7},), 7)):
        pod = pod_of(settings, *own)
        assert pod["spec"]["terminationGracePeriodSeconds"] == seconds
        assert env(pod)[ENV_GRACE] == str(seconds)


values = st.sampled_from("123")
templates = st.fixed_dictionaries(
    {},
    optional={
        "image": values,
        "priorityClassName": values,
        "nodeSelector": st.dictionaries(st.sampled_from("ab"), values),
        "tolerations": st.lists(st.fixed_dictionaries({"key": values}), max_size=2),
        "env": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("AB"), "value": values}), max_size=2
        ),
        "volumes": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("vw"), "emptyDir": st.just({})}),
            max_size=2,
            unique_by=lambda v: v["name"],
        ),
        "securityContext": st.dictionaries(st.just("fsGroup"), st.integers(1, 3)),
    },
)
entries_of_stages = st.lists(
    st.builds(
        lambda template, stages: entry(template, *stages),
        templates,
        st.lists(st.sampled_from(Stage), max_size=2, unique=True),
    ),
    max_size=3,
)


@given(entries_of_stages, entries_of_stages, st.sampled_from(Stage))
def test_defaults_are_entries_before_those_of_the_evolution(
    defaults: list[PodTemplateEntry], own: list[PodTemplateEntry], stage: Stage
) -> None:
    """For all that the operator does not set itself, one list of both gives the same pod."""
    layered = merged_pod(with_templates(own), stage, settings_with(*defaults))
    listed = merged_pod(with_templates([*defaults, *own]), stage, settings_with())
    for pod in (layered, listed):
        container(pod)["env"].sort(key=lambda variable: str(variable["name"]))
    assert layered == listed


def with_templates(entries: list[PodTemplateEntry]) -> EmotionEvolution:
    """Return an evolution without GPUs that has templates."""
    plain = evolution_of(resources={"gpusPerNode": 0})
    spec = plain.spec.model_copy(update={"pod_template": entries})
    return plain.model_copy(update={"spec": spec})


@given(entries_of_stages, st.sampled_from(Stage))
def test_without_defaults_a_pod_is_the_operators_with_the_evolutions_templates(
    own: list[PodTemplateEntry], stage: Stage
) -> None:
    bare = merged_pod(with_templates([]), stage, SETTINGS)
    assert merged_pod(with_templates(own), stage, SETTINGS) == apply_templates(bare, own, stage)


# Requests and limits -----------------------------------------------------------------------------


def test_each_pod_requests_cpu_and_memory() -> None:
    for stage in (None, *Stage):
        pod = pod_of(settings_with(), stage=stage)
        assert container(pod)["resources"] == {"requests": DEFAULT_REQUESTS}
    small_node = {"cpu": "2", "memory": "4Gi"}
    for name, value in DEFAULT_REQUESTS.items():
        request, node = quantity(value), quantity(small_node[name])
        assert request is not None and node is not None
        assert 2 * request <= node - node / 4, "two pods fit beside the system's pods"


@pytest.mark.parametrize("by_default", [True, False], ids=["defaults", "evolution"])
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "2", "memory": "1Gi"}}),
        # Kubernetes takes the limit as the request
        (
            {"limits": {"memory": "512Mi"}},
            {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m"}},
        ),
        ({"requests": {"cpu": None}}, {"requests": {"memory": "1Gi"}}),
        ({"limits": {"cpu": None}, "requests": {"memory": None}}, {}),
        ({"requests": None}, {}),
        (
            {"limits": {"example.org/nic": "1"}},
            {"limits": {"example.org/nic": "1"}, "requests": DEFAULT_REQUESTS},
        ),
        (
            {"claims": [{"name": "gpu"}]},
            {"claims": [{"name": "gpu"}], "requests": DEFAULT_REQUESTS},
        ),
        ({"requests": "much"}, {"requests": "much"}),
    ],
)
def test_a_resource_that_a_template_mentions_has_no_default_request(
    template: Json, expected: Json, by_default: bool
) -> None:
    template = {"resources": template}
    defaults, own = ([template], []) if by_default else ([], [template])
    found = {k: v for k, v in resources(settings_with(*defaults), *own).items() if v}
    assert found == expected


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        # a default request is lowered to the evolution's limit
        (
            {"requests": {"memory": "4Gi"}},
            {"limits": {"memory": "2Gi"}},
            {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        ),
        # a default limit is raised to the evolution's request, so that a quota of limits holds
        (
            {"limits": {"cpu": "4"}},
            {"requests": {"cpu": "8"}},
            {"requests": {"cpu": "8"}, "limits": {"cpu": "8"}},
        ),
        # without a contradiction both stay
        (
            {"limits": {"cpu": "4"}},
            {"requests": {"cpu": "500m"}},
            {"requests": {"cpu": "500m"}, "limits": {"cpu": "4"}},
        ),
        # one layer contradicts itself, or writes no quantity: the API server reports it
        (
            {"limits": {"cpu": "4"}},
            {"requests": {"cpu": "3"}, "limits": {"cpu": "2"}},
            {"requests": {"cpu": "3"}, "limits": {"cpu": "2"}},
        ),
        (
            {"requests": {"cpu": "3"}, "limits": {"cpu": "2"}},
            {},
            {"requests": {"cpu": "3"}, "limits": {"cpu": "2"}},
        ),
        (
            {"limits": {"cpu": "4"}},
            {"requests": {"cpu": "many"}},
            {"requests": {"cpu": "many"}, "limits": {"cpu": "4"}},
        ),
    ],
)
def test_a_default_never_contradicts_the_evolution(
    default: Json, own: Json, expected: Json
) -> None:
    found = resources(settings_with({"resources": default}), {"resources": own})
    names_of_both = {name for values in (default, own) for part in values.values() for name in part}
    kept = {
        part: {name: value for name, value in found[part].items() if name in names_of_both}
        for part in found
    }
    assert kept == expected


amounts = st.sampled_from(["100m", "1", "2", "4", "8Gi", "16Gi", None])
parts = st.dictionaries(
    st.sampled_from(["requests", "limits"]),
    st.dictionaries(st.sampled_from(["cpu", "memory", "x/gpu"]), amounts),
)


@given(parts, parts)
def test_the_evolutions_own_numbers_are_in_the_pod(default: Json, own: Json) -> None:
    found = resources(settings_with({"resources": default}), {"resources": own})
    for part, chosen in own.items():
        for name, value in chosen.items():
            other = "limits" if part == "requests" else "requests"
            if value is not None:
                assert found[part][name] == value
            elif own.get(other, {}).get(name) is None:
                assert name not in found.get(part, {})
    for name in found.get("requests", {}).keys() & found.get("limits", {}).keys():
        request, limit = (quantity(found[part][name]) for part in ("requests", "limits"))
        assert request is not None and limit is not None
        by_one = [
            name in values.get("requests", {}) and name in values.get("limits", {})
            for values in (default, own)
        ]
        if not any(by_one):
            assert request <= limit


def test_shared_memory_has_a_size_and_other_folders_have_none() -> None:
    volumes = {v["name"]: v.get("emptyDir") for v in pod_of(settings_with())["spec"]["volumes"]}
    shm = {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes == {"config": None, "work": {}, "cache": {}, "tmp": {}, "shm": shm}
    own = {"volumes": [{"name": "work", "emptyDir": {"sizeLimit": "9Gi"}}]}
    sized = {v["name"]: v.get("emptyDir") for v in pod_of(settings_with(own))["spec"]["volumes"]}
    assert sized["work"] == {"sizeLimit": "9Gi"}


# A change of the defaults ------------------------------------------------------------------------


def test_the_hash_of_a_job_follows_the_defaults_of_its_stage_only() -> None:
    evolution = evolution_of()
    plain = template_hash(evolution, Stage.EVALUATE)
    every, train = entry({"image": "x"}), entry({"image": "x"}, Stage.TRAIN)
    assert template_hash(evolution, Stage.EVALUATE, [train]) == plain
    assert template_hash(evolution, Stage.EVALUATE, []) == plain, "as before there were defaults"
    changed = template_hash(evolution, Stage.EVALUATE, [every])
    assert changed not in (plain, template_hash(evolution, Stage.EVALUATE, [entry({"image": "y"})]))
    job = job_manifest(evolution, action_of(evolution), settings_with(every))
    assert job["metadata"]["annotations"][names.ANNOTATION_TEMPLATE] == changed


# The gate ----------------------------------------------------------------------------------------


def test_a_refusal_names_the_layer_that_brings_the_violation() -> None:
    root = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
    own = evolution_of(podTemplate=[{"template": {"image": "i"}}, {"template": root}])
    settings = settings_with({"image": "d"})
    assert "`podTemplate[1].template.volumes[root].hostPath`" in refusal(own, settings)
    harmless = evolution_of(podTemplate=[{"template": {"image": "i"}}])
    loose = settings_with({"image": "d"}, root)
    assert "`jobs.podTemplate[1].template.volumes[root].hostPath`" in refusal(harmless, loose)
    assert refusal(harmless, settings) == ""
    # an evolution can replace the default that is refused
    replaced = {"volumes": [{"name": "root", "emptyDir": {}}]}
    assert refusal(evolution_of(podTemplate=[{"template": replaced}]), loose) == ""
