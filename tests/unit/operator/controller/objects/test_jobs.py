"""The Jobs and the Service that the operator creates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.controller.kube_objects import SETTINGS, action_of, evolution_of
from tests.unit.operator.planner.simulated_world import result_of, score_of

from selfemo_api.contract import ENV_GRACE, ENV_METRICS_PORT, ExitCode, StageConfig
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stage_resources import gpus_per_pod, pods_of
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import Best, GenerationRecord, Outcome
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.base_pod import GRACE_SECONDS
from selfemo_operator.controller.objects.deadlines import (
    DEADLINE_SLACK,
    PURGE_SECONDS,
    deadline_change,
    has_deadline,
)
from selfemo_operator.controller.objects.job_status import is_stage_job
from selfemo_operator.controller.objects.jobs import (
    job_manifest,
    purge_manifest,
    service_manifest,
    template_hash,
)
from selfemo_operator.controller.objects.pod_layers import DEFAULT_REQUESTS
from selfemo_operator.controller.objects.settings import JobSettings

Json = dict[str, Any]


def later_stage(stage: Stage, **spec: Any) -> EmotionEvolution:
    """Return an evolution in generation 1, in a given stage."""
    evolution = evolution_of(stage, **spec)
    current = evolution.status.current
    assert current is not None
    results = [result_of(1, s) for s in STAGE_ORDER[: STAGE_ORDER.index(stage)]]
    current = current.model_copy(update={"results": results})
    score = score_of(0.4)
    record = GenerationRecord(
        generation=1, outcome=Outcome.PROMOTED, scores=[score], model_uri="file:///model"
    )
    best = Best(generation=1, f1=0.4, model_uri="file:///model")
    changes = {"generation": 1, "current": current, "best": best, "history": [record]}
    status = evolution.status.model_copy(update=changes)
    return evolution.model_copy(update={"status": status})


def manifest(evolution: EmotionEvolution, settings: JobSettings = SETTINGS) -> Json:
    return job_manifest(evolution, action_of(evolution), settings)


def pod_spec(job: Json) -> Json:
    spec: Json = job["spec"]["template"]["spec"]
    return spec


def container(job: Json) -> Json:
    first: Json = pod_spec(job)["containers"][0]
    return first


def env(job: Json) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(job)["env"]}


@pytest.mark.parametrize("stage", STAGE_ORDER)
def test_the_job_of_each_stage_is_recognized_as_a_stage_job(stage: Stage) -> None:
    job = manifest(later_stage(stage))
    assert is_stage_job(job)
    labels = job["metadata"]["labels"]
    for part in names.JOB_SELECTOR.split(","):
        name, value = part.split("=")
        assert labels[name] == value
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("0123456789ab", True)
    assert container(job)["command"][2] == f"selfemo_jobs.stages.{stage.slug}"


def test_one_failure_ends_the_job_but_a_disruption_does_not() -> None:
    spec = manifest(evolution_of())["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert pod_spec({"spec": spec})["restartPolicy"] == "Never"
    ignore, fail = spec["podFailurePolicy"]["rules"]
    assert ignore["action"] == "Ignore"
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [ExitCode.BAD_INPUT])


def test_the_pod_reads_the_stages_configuration() -> None:
    evolution = later_stage(Stage.TRAIN)
    job = manifest(evolution)
    text = job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_CONFIG]
    assert StageConfig.model_validate_json(text) == action_of(evolution).config
    (volume,) = [v for v in pod_spec(job)["volumes"] if v["name"] == "config"]
    field = volume["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"]
    assert field == f"metadata.annotations['{names.ANNOTATION_CONFIG}']"


def test_the_pod_has_no_rights_and_no_root() -> None:
    job = manifest(evolution_of())
    spec, inner = pod_spec(job), container(job)["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["capabilities"] == {"drop": ["ALL"]}
    assert inner["readOnlyRootFilesystem"] is True
    assert "serviceAccountName" not in spec
    named = manifest(evolution_of(), JobSettings(image="i", service_account="stages"))
    assert pod_spec(named)["serviceAccountName"] == "stages"


@pytest.mark.parametrize(
    ("stage", "pods"), [(Stage.SELF_PLAY, 4), (Stage.SCORE, 1), (Stage.TRAIN, 2)]
)
def test_shards_and_nodes_are_indexes_of_one_job(stage: Stage, pods: int) -> None:
    evolution = later_stage(stage, selfPlay={"shards": 4}, resources={"nodes": 2})
    spec = manifest(evolution)["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", pods)
    assert spec["parallelism"] == pods == pods_of(evolution.spec, stage)


def test_training_nodes_find_each_other() -> None:
    evolution = later_stage(Stage.TRAIN, resources={"nodes": 2})
    job, service = manifest(evolution), service_manifest(evolution)
    name = service["metadata"]["name"]
    assert pod_spec(job)["subdomain"] == name
    first = f"{job['metadata']['name']}-0.{name}.team.svc:29400"
    assert env(job)["SELFEMO_RENDEZVOUS"] == first
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    single = manifest(later_stage(Stage.TRAIN))
    assert "subdomain" not in pod_spec(single)
    assert "SELFEMO_RENDEZVOUS" not in env(single)


def test_credentials_are_references_to_a_secret() -> None:
    job = manifest(evolution_of(storage={"credentialsSecretRef": {"name": "s3"}}))
    key = env(job)["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]
    assert (key["name"], key["optional"]) == ("s3", False)
    assert env(job)["AWS_SESSION_TOKEN"]["secretKeyRef"]["optional"] is True
    assert "AWS_ACCESS_KEY_ID" not in env(manifest(evolution_of()))


def test_the_job_has_the_labels_of_the_queue() -> None:
    queue = {"name": "gpus", "priorityClass": "high"}
    labels = manifest(evolution_of(queue=queue))["metadata"]["labels"]
    assert labels[names.LABEL_QUEUE] == "gpus"
    assert labels[names.LABEL_QUEUE_PRIORITY] == "high"
    assert names.LABEL_QUEUE not in manifest(evolution_of())["metadata"]["labels"]


def test_the_jobs_deadline_is_later_than_the_planners() -> None:
    job = manifest(evolution_of(deadlines={"stageActiveSeconds": 600}))
    assert job["spec"]["activeDeadlineSeconds"] == 600 + DEADLINE_SLACK
    assert "activeDeadlineSeconds" not in manifest(evolution_of())["spec"]


def test_a_deadline_that_a_policy_sets_stays_until_the_spec_changes() -> None:
    job = manifest(evolution_of())
    assert has_deadline(job, None)
    job["spec"]["activeDeadlineSeconds"] = 86_400
    assert has_deadline(job, None)
    assert not has_deadline(job, 600)
    spec, annotations = deadline_change(600)
    job["metadata"]["annotations"] |= annotations
    assert spec == {"activeDeadlineSeconds": 600 + DEADLINE_SLACK}
    assert has_deadline(job, 600)


@pytest.mark.parametrize(("active", "holds"), [(660, True), (86_400, False), (None, False)])
def test_a_job_of_an_older_operator_has_the_deadline_of_its_spec(
    active: int | None, holds: bool
) -> None:
    job = {"metadata": {}, "spec": {"activeDeadlineSeconds": active} if active else {}}
    assert has_deadline(job, 600) is holds


def test_the_job_has_the_labels_of_its_pod_except_that_of_a_queue() -> None:
    labels = {"team": "a", names.LABEL_QUEUE: "mine"}
    evolution = evolution_of(podTemplate=[{"template": {"labels": labels}}])
    purge = purge_manifest(evolution, SETTINGS)
    for job in (manifest(evolution), purge):
        assert job["metadata"]["labels"]["team"] == "a"
        assert names.LABEL_QUEUE not in job["metadata"]["labels"]


def test_gpus_are_limits_only_if_the_stage_uses_gpus() -> None:
    gpu = {"limits": {"nvidia.com/gpu": "1"}, "requests": DEFAULT_REQUESTS}
    assert container(manifest(evolution_of()))["resources"] == gpu
    none = {"requests": DEFAULT_REQUESTS}
    assert container(manifest(evolution_of(resources={"gpusPerNode": 0})))["resources"] == none
    for stage in (Stage.FLYWHEEL, Stage.CHECK):
        assert container(manifest(later_stage(stage)))["resources"] == none


@pytest.mark.parametrize("stage", STAGE_ORDER)
@pytest.mark.parametrize("name", ["amd.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"])
def test_gpus_have_the_name_of_the_accelerator(stage: Stage, name: str) -> None:
    """No other resource is requested beside it: such a pod would never be scheduled."""
    resources = {"accelerator": name, "gpusPerNode": 4}
    evolution = later_stage(stage, resources=resources)
    gpus = gpus_per_pod(evolution.spec, stage)
    expected = {"limits": {name: str(gpus)}} if gpus else {}
    resources = container(manifest(evolution))["resources"]
    assert resources == {**expected, "requests": DEFAULT_REQUESTS}


def test_without_a_name_of_the_accelerator_the_claims_of_the_template_are_used() -> None:
    claims = {
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        "resources": {"claims": [{"name": "gpu"}]},
    }
    evolution = evolution_of(resources={"accelerator": ""}, podTemplate=[{"template": claims}])
    job = manifest(evolution)
    expected = {"claims": [{"name": "gpu"}], "requests": DEFAULT_REQUESTS}
    assert container(job)["resources"] == expected
    assert pod_spec(job)["resourceClaims"] == claims["resourceClaims"]


@pytest.mark.parametrize("none", ["0", None])
def test_one_stage_may_use_another_accelerator(none: str | None) -> None:
    limits = {"nvidia.com/gpu": none, "nvidia.com/mig-1g.10gb": "1"}
    entry = {"stages": ["Evaluate"], "template": {"resources": {"limits": limits}}}
    resources = {
        stage: container(manifest(later_stage(stage, podTemplate=[entry])))["resources"]
        for stage in (Stage.SCORE, Stage.EVALUATE)
    }
    requests = {"requests": DEFAULT_REQUESTS}
    assert resources[Stage.SCORE] == {"limits": {"nvidia.com/gpu": "1"}, **requests}
    left = {name: number for name, number in limits.items() if number is not None}
    assert resources[Stage.EVALUATE] == {"limits": left, **requests}


IDS = ("runAsUser", "runAsGroup", "fsGroup")


@pytest.mark.parametrize("user", [0, 65532, 1_000_670_000])
def test_the_installation_sets_the_ids_or_leaves_them_to_the_platform(user: int) -> None:
    settings = JobSettings(image="i", run_as_user=user)
    evolution = later_stage(Stage.TRAIN)
    for job in (manifest(evolution, settings), purge_manifest(evolution, settings)):
        context = pod_spec(job)["securityContext"]
        assert {name: context[name] for name in IDS if name in context} == (
            dict.fromkeys(IDS, user) if user else {}
        )
        assert context["runAsNonRoot"] is True, "an image that runs as root does not start"


def test_an_evolution_may_leave_the_ids_to_the_platform() -> None:
    nulls = {"securityContext": dict.fromkeys(IDS)}
    evolution = evolution_of(podTemplate=[{"template": nulls}])
    for job in (manifest(evolution), purge_manifest(evolution, SETTINGS)):
        context = pod_spec(job)["securityContext"]
        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_purge_job_has_the_templates_for_all_stages_only() -> None:
    setup = {"name": "setup", "image": "s"}
    entries = [
        {"template": {"image": "every", "initContainers": [setup]}},
        {"stages": list(Stage), "template": {"image": "stages", "nodeSelector": {"gpu": "h100"}}},
    ]
    evolution = evolution_of(podTemplate=entries)
    purge = purge_manifest(evolution, SETTINGS)
    assert container(purge)["image"] == "every"
    assert container(purge)["resources"] == {"requests": DEFAULT_REQUESTS}
    assert "nodeSelector" not in pod_spec(purge)
    (init,) = pod_spec(purge)["initContainers"]
    assert init["securityContext"] == container(purge)["securityContext"]
    stage = manifest(evolution)
    assert container(stage)["image"] == "stages"
    assert pod_spec(stage)["nodeSelector"] == {"gpu": "h100"}


def test_a_purge_job_that_cannot_start_does_not_wait_for_ever() -> None:
    """Its Secret may have been deleted with the evolution."""
    assert purge_manifest(evolution_of(), SETTINGS)["spec"]["activeDeadlineSeconds"] == (
        PURGE_SECONDS
    )


def test_the_template_replaces_the_time_to_end() -> None:
    assert pod_spec(manifest(evolution_of()))["terminationGracePeriodSeconds"] == GRACE_SECONDS
    longer = evolution_of(podTemplate=[{"template": {"terminationGracePeriodSeconds": 900}}])
    assert pod_spec(manifest(longer))["terminationGracePeriodSeconds"] == 900


def test_a_stage_knows_the_time_that_its_pod_has_to_end() -> None:
    def seconds(evolution: EmotionEvolution) -> str:
        return str(env(manifest(evolution))[ENV_GRACE])

    assert seconds(evolution_of()) == str(GRACE_SECONDS)
    templates = [
        {"template": {"terminationGracePeriodSeconds": 900}},
        {"stages": ["Publish"], "template": {"terminationGracePeriodSeconds": 7}},
        {"template": {"image": "mine"}},
    ]
    assert seconds(evolution_of(podTemplate=templates)) == "900"


def test_the_placement_of_a_pod_follows_the_current_spec() -> None:
    evolution = evolution_of()
    assert evolution.status.current is not None
    edited = evolution_of(podTemplate=[{"template": {"image": "new"}}], seed=9)
    edited = edited.model_copy(update={"status": evolution.status})
    job = manifest(edited)
    assert container(job)["image"] == "new"
    text = job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_CONFIG]
    assert StageConfig.model_validate_json(text).spec == evolution.spec


def test_the_template_hash_changes_with_edits_for_this_stage_only() -> None:
    def of(**spec: Any) -> str:
        return template_hash(evolution_of(**spec), Stage.EVALUATE)

    plain = of()
    assert plain == of(seed=5)
    assert plain == of(podTemplate=[{"stages": ["Train"], "template": {"image": "x"}}])
    others = [
        of(podTemplate=[{"template": {"image": "x"}}]),
        of(podTemplate=[{"stages": ["Evaluate"], "template": {"image": "y"}}]),
        of(queue={"name": "q"}),
        of(resources={"accelerator": "amd.com/gpu"}),
    ]
    assert len({plain, *others}) == 5
    job = manifest(evolution_of())
    assert job["metadata"]["annotations"][names.ANNOTATION_TEMPLATE] == plain


@given(st.integers(0, 999), st.sampled_from(STAGE_ORDER), st.integers(1, 9999))
def test_names_are_not_too_long_for_kubernetes(generation: int, stage: Stage, attempt: int) -> None:
    evolution = evolution_of()
    name = "a" * 36
    metadata = evolution.metadata.model_copy(update={"name": name})
    status = evolution.status.model_copy(update={"generation": generation})
    labels = names.stage_labels(
        evolution.model_copy(update={"metadata": metadata, "status": status}), stage, attempt
    )
    assert all(len(value) <= 63 for value in labels.values())
    assert len(names.nodes_service_name(name)) <= 63


@pytest.mark.parametrize("port", [0, 9464])
def test_progress_metrics_have_a_named_port_if_enabled(port: int) -> None:
    job = manifest(evolution_of(), JobSettings(image="x", metrics_port=port))
    ports = [{"name": "metrics", "containerPort": port}] if port else None
    assert container(job).get("ports") == ports
    assert env(job).get(ENV_METRICS_PORT) == (str(port) if port else None)
    assert job["metadata"] == manifest(evolution_of())["metadata"], (
        "a change of the port replaces no Job"
    )
