"""The defaults of stage pods at the operator's start: read from their file, and checked."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import FakeApiServer
from tests.unit.operator.controller.fake_operator import (
    SETTINGS,
    FakeOperator,
    reconcile_times,
    run_until_idle,
)

from selfemo_api.contract import ENV_GRACE, ENV_RENDEZVOUS
from selfemo_api.spec import PodTemplateEntry
from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.settings import JobSettings, Settings
from selfemo_operator.controller.pod_defaults import InvalidDefaults, check_defaults, with_defaults

Json = dict[str, Any]
HOST = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """A function that returns the settings with the defaults of a text, or of entries."""

    def read_text(content: Any, **jobs: Any) -> Settings:
        file = tmp_path / "pod-template.yaml"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        own = JobSettings(image="i", pod_template_file=str(file), **jobs)
        return with_defaults(Settings(jobs=own))

    return read_text


def test_the_file_has_entries_as_in_the_spec(read: Callable[..., Settings]) -> None:
    text = """\
- template:
    tolerations: [{key: gpu, operator: Exists}]
    securityContext: {runAsUser: 1000670000}
    resources: {requests: {cpu: null}}
- stages: [Train]
  template: {runtimeClassName: nvidia}
"""
    first, second = read(text).jobs.pod_template
    assert first.stages is None
    assert first.template.tolerations == [{"key": "gpu", "operator": "Exists"}]
    assert first.template.security_context == {"runAsUser": 1000670000}
    assert first.template.resources == {"requests": {"cpu": None}}
    assert second.template.runtime_class_name == "nvidia"


def test_without_a_file_there_are_no_defaults() -> None:
    settings = Settings(jobs=JobSettings(image="i"))
    assert with_defaults(settings) is settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "jobs.podTemplate: this is not YAML: "),
        ("template: {}", "jobs.podTemplate: must be a list"),
        (["gpu"], "jobs.podTemplate[0]: must be a map"),
        ([{"stages": ["Train"]}], "jobs.podTemplate[0].template: Required value"),
        (
            [{"template": {}}, {"template": {"toleration": []}}],
            "jobs.podTemplate[1].template.toleration: unknown field",
        ),
        (
            [{"stages": ["Training"], "template": {}}],
            'jobs.podTemplate[0].stages[0]: Unsupported value: "Training"',
        ),
        (
            [{"template": {"nodeSelector": {"pool": 1}}}],
            "jobs.podTemplate[0].template.nodeSelector.pool: Invalid value: 1",
        ),
        (
            [{"template": {"env": [{"name": ENV_GRACE, "value": "1"}]}}],
            f"jobs.podTemplate[0].template.env[{ENV_GRACE}]: the operator sets it for each Job",
        ),
        (
            [{"template": {"volumes": [{"name": "config", "emptyDir": {}}]}}],
            "jobs.podTemplate[0].template.volumes[config]: the operator sets it",
        ),
        (
            [{"template": {"volumeMounts": [{"name": "x", "mountPath": "/etc/selfemo"}]}}],
            "jobs.podTemplate[0].template.volumeMounts[/etc/selfemo]: the operator sets it",
        ),
        (
            [{"template": {"labels": {names.LABEL_MANAGED_BY: "me"}}}],
            "jobs.podTemplate[0].template.labels[app.kubernetes.io/managed-by]: the operator",
        ),
        (
            [{"template": {"annotations": {names.ANNOTATION_CONFIG: "{}"}}}],
            f"jobs.podTemplate[0].template.annotations[{names.ANNOTATION_CONFIG}]: the operator",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_default_is_told_in_one_line_with_its_field(
    read: Callable[..., Settings], content: Any, message: str
) -> None:
    with pytest.raises(InvalidDefaults) as error:
        read(content)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_all_wrong_defaults_are_told_up_to_a_bound(read: Callable[..., Settings]) -> None:
    with pytest.raises(InvalidDefaults) as error:
        read([{"template": {"a": 1}}, {"template": {}}, {"template": {"b": "\x1b[31m"}}])
    text = str(error.value)
    assert "jobs.podTemplate[0].template.a: " in text
    assert "jobs.podTemplate[2].template.b: " in text
    with pytest.raises(InvalidDefaults, match="and 35 more problems") as error:
        read([{"template": {f"x{i}": 1 for i in range(40)}}])
    assert len(str(error.value)) < 1600


def test_a_file_that_is_not_there_is_told() -> None:
    jobs = JobSettings(image="i", pod_template_file="/nowhere/defaults.yaml")
    with pytest.raises(InvalidDefaults, match=r"/nowhere/defaults\.yaml cannot be read"):
        with_defaults(Settings(jobs=jobs))


@pytest.mark.parametrize("stages", [None, ["Publish"]], ids=str)
@pytest.mark.parametrize(
    ("template", "field"),
    [
        (HOST, "volumes[root].hostPath"),
        ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
    ],
)
def test_defaults_beyond_the_restricted_standard_are_refused(
    read: Callable[..., Settings], template: Json, field: str, stages: list[str] | None
) -> None:
    entries = [{"template": {}}, {"template": template, **({"stages": stages} if stages else {})}]
    with pytest.raises(InvalidDefaults) as error:
        read(entries)
    assert str(error.value).startswith(f"`jobs.podTemplate[1].template.{field}` is beyond")
    assert "jobs.allowHostAccess" in str(error.value)
    assert len(read(entries, host_access=True).jobs.pod_template) == 2


def test_variables_of_storage_and_of_every_pod_may_be_defaults(
    read: Callable[..., Settings],
) -> None:
    variables = [{"name": name, "value": "v"} for name in ("AWS_ACCESS_KEY_ID", "HF_HOME")]
    assert read([{"template": {"env": variables}}]).jobs.pod_template
    with pytest.raises(InvalidDefaults, match=ENV_RENDEZVOUS):
        read([{"template": {"env": [*variables, {"name": ENV_RENDEZVOUS}]}}])


# The API server's judgment -----------------------------------------------------------------------


class Server:
    """An API server that answers each dry run with an error, or accepts it."""

    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error
        self.jobs: list[tuple[str, Json]] = []

    def create(self, path: str, body: Json) -> Json:
        self.jobs.append((path, body))
        if self.error is not None:
            raise self.error
        return body


def checked(read: Callable[..., Settings], server: Server, entries: Any, **changes: Any) -> None:
    settings = dataclasses.replace(read(entries), **changes)
    check_defaults(server, settings)  # type: ignore[arg-type]


def test_the_server_judges_each_different_pod_without_storing_it(
    read: Callable[..., Settings],
) -> None:
    server = Server()
    entries = [{"template": {"image": "a"}}, {"stages": ["Train"], "template": {"image": "b"}}]
    checked(read, server, entries, namespaces=("team", "other"))
    images = [job["spec"]["template"]["spec"]["containers"][0]["image"] for _, job in server.jobs]
    assert sorted(images) == ["a", "b"]
    for path, job in server.jobs:
        assert path == f"{names.jobs_path('team')}?dryRun=All&fieldValidation=Strict"
        assert job["metadata"]["namespace"] == "team"
        assert job["metadata"]["labels"].keys() == {names.LABEL_COMPONENT}, "no watch selects it"
    elsewhere = Server()
    checked(read, elsewhere, entries, lease_namespace="system")
    assert {path.partition("?")[0] for path, _ in elsewhere.jobs} == {names.jobs_path("system")}
    nothing = Server()
    check_defaults(nothing, Settings(jobs=JobSettings(image="i")))  # type: ignore[arg-type]
    assert nothing.jobs == []


@pytest.mark.parametrize("status", [400, 422])
def test_a_rejected_job_ends_the_start(read: Callable[..., Settings], status: int) -> None:
    message = 'Job "x" is invalid: spec.template.spec.tolerations[0].operator:\n Unsupported value'
    with pytest.raises(InvalidDefaults) as error:
        checked(read, Server(ApiError(status, "Invalid", message)), [{"template": {"image": "a"}}])
    text = str(error.value)
    assert text.startswith("jobs.podTemplate: the API server rejects a Job of ")
    assert "spec.template.spec.tolerations[0].operator" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'admission webhook "x" does not support dry run'),
        (403, "exceeded quota"),
        (404, "namespaces not found"),
        (500, "failed calling webhook"),
    ],
)
def test_what_the_server_cannot_judge_is_logged(
    read: Callable[..., Settings], caplog: pytest.LogCaptureFixture, status: int, message: str
) -> None:
    with caplog.at_level(logging.WARNING):
        checked(read, Server(ApiError(status, "", message)), [{"template": {"image": "a"}}])
    assert message in caplog.text


def test_without_the_server_the_check_is_tried_again(read: Callable[..., Settings]) -> None:
    with pytest.raises(ApiError):
        checked(read, Server(ApiError(0, "", "refused")), [{"template": {"image": "a"}}])


# A change while evolutions run -------------------------------------------------------------------


def operator_with(server: FakeApiServer, image: str) -> FakeOperator:
    """Return an operator that was started with an image as a default. Empty: without defaults."""
    entries = (PodTemplateEntry.model_validate({"template": {"image": image}}),) if image else ()
    jobs = dataclasses.replace(SETTINGS.jobs, pod_template=entries)
    return FakeOperator(server, settings=dataclasses.replace(SETTINGS, jobs=jobs))


def images(server: FakeApiServer) -> dict[str, str]:
    """Return the image of each Job by the Job's name."""
    return {
        job["metadata"]["name"]: job["spec"]["template"]["spec"]["containers"][0]["image"]
        for job in server.jobs()
    }


def test_a_new_operator_replaces_a_job_that_waits() -> None:
    server = FakeApiServer()
    server.add_evolution()
    operator_with(server, "old").reconcile()
    assert images(server) == {"demo-g000-check-1": "old"}
    same = operator_with(server, "old")
    same.reconcile()
    assert images(server) == {"demo-g000-check-1": "old"}, "nothing has changed"
    reconcile(operator_with(server, "new"))
    assert images(server) == {"demo-g000-check-2": "new"}
    assert server.status["failures"] == 0


def test_a_new_operator_leaves_a_job_that_runs() -> None:
    server = FakeApiServer()
    server.add_evolution()
    reconcile_times(operator_with(server, "old"), 2)
    (job,) = server.jobs()
    assert job["status"]["ready"] == 1
    later = operator_with(server, "new")
    reconcile(later)
    assert images(server) == {"demo-g000-check-1": "old"}
    run_until_idle(server, start=lambda: operator_with(server, "new"))
    assert server.status["phase"] == "Succeeded"
    assert set(images(server).values()) == {"old", "new"}
    assert list(images(server).values()).count("old") == 1


def test_a_purge_job_follows_the_defaults() -> None:
    server = FakeApiServer()
    server.add_evolution(storage={"whenDeleted": "Delete"})
    reconcile(operator_with(server, "old"), 1)
    assert {image for name, image in images(server).items() if "purge" in name} == {"old"}
    reconcile(operator_with(server, "new"))
    assert {image for name, image in images(server).items() if "purge" in name} == {"new"}


def reconcile(operator: FakeOperator, times: int = 4) -> None:
    """Reconcile several times, with all events."""
    for _ in range(times):
        operator.receive_events()
        operator.reconcile()
