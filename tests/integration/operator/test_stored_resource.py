"""What the API server stores, and that it and the local validation refuse the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes.recipe import in_recipe, leaves
from selfemo_api.schema.rules import check_written
from selfemo_api.schema.validation import check
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.process import OperatorProcess
from tests.unit.api.documents import GONE, VALID, changed
from tests.unit.api.schema.test_validation import BROKEN, FROZEN, MEASURED

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("operator")]

Json = dict[str, Any]
#: A resource of ten lines of YAML, with its name.
TEN_LINES: Json = {
    "apiVersion": "selfemo.dev/v1alpha1",
    "kind": "EmotionEvolution",
    "metadata": {"name": "ten-lines"},
    "spec": {
        "model": {"uri": "package://smollm2?layers=6"},
        "dataset": {"preset": "MELD", "uri": "data://meld"},
        "storage": {"uri": "s3://bucket/runs"},
    },
}


def test_a_stored_resource_has_what_the_person_wrote(kube: KubeClient, namespace: str) -> None:
    """`kubectl get -o yaml` shows no values of the recipe, nor those of the preset."""
    stored = kube.create(names.evolutions_path(namespace), copy.deepcopy(TEN_LINES))["spec"]
    added = leaves(stored).keys() - leaves(TEN_LINES["spec"]).keys()
    assert [path for path in added if in_recipe(path)] == []
    assert added == {
        "ablation",
        "deadlines.stagePendingSeconds",
        "failurePolicy.maxAttempts",
        "recipe",
        "resources.accelerator",
        "seed",
        "storage.checksums",
        "storage.keep",
        "storage.pathStyle",
        "storage.whenDeleted",
        "suspend",
    }
    written = EmotionEvolution.model_validate(TEN_LINES).spec
    assert EmotionEvolution.model_validate({**TEN_LINES, "spec": stored}).spec == written
    assert [s.name for s in written.dataset.sources] == ["train", "train-labeled", "dev", "test"]


def _refusal(kube: KubeClient, namespace: str, document: Json) -> str:
    """Return the message with which the API server refuses an object; empty: it accepts it."""
    path = f"{names.evolutions_path(namespace)}?dryRun=All&fieldValidation=Strict"
    try:
        kube.create(path, document)
    except ApiError as error:
        assert error.status == 422, error
        return error.message
    return ""


@pytest.mark.parametrize(("field", "message", "values"), BROKEN, ids=[m for _, m, _ in BROKEN])
def test_a_rule_of_the_crd_holds_on_the_api_server(
    kube: KubeClient, namespace: str, field: str, message: str, values: Json
) -> None:
    document = changed(**values)
    refusal = _refusal(kube, namespace, document)
    of_crd = [*check_written(document["spec"]), *(p for p in check(document) if "name" in p.field)]
    assert (message in refusal) == (message in [problem.message for problem in of_crd])
    if not refusal:
        assert [p.message for p in check(document)] == [message], "only the resolved spec breaks it"


@pytest.mark.parametrize(("message", "before", "values"), FROZEN)
def test_an_edit_is_refused_by_the_api_server(
    kube: KubeClient, namespace: str, message: str, before: Json, values: Json
) -> None:
    """Except for an edit in `overrides`: the operator refuses that when it is pinned."""
    name = f"edit-{abs(hash((message, str(before), str(values)))) % 10**9}"
    created = changed(**before, metadata__name=name)
    stored = kube.create(names.evolutions_path(namespace), copy.deepcopy(created))
    after = changed(**({} if GONE in values.values() else {**before, **values}))
    edited = {**stored, "spec": after["spec"]}
    path = names.evolution_path((namespace, name))
    if "spec__overrides" in values:
        kube.replace(path, edited)
        return
    with pytest.raises(ApiError) as refused:
        kube.replace(path, edited)
    assert message in refused.value.message


@pytest.mark.parametrize(("names_of", "before", "values", "_resolved"), MEASURED)
def test_an_edit_of_what_is_compared_is_refused_once_a_model_is_measured(
    kube: KubeClient, namespace: str, names_of: str, before: Json, values: Json, _resolved: str
) -> None:
    """The rule reads the status. Before the baseline is measured, the edit is accepted."""
    name = f"edit-{abs(hash((names_of, str(before), str(values)))) % 10**9}"
    created = changed(**before, metadata__name=name)
    stored = kube.create(names.evolutions_path(namespace), copy.deepcopy(created))
    path = names.evolution_path((namespace, name))
    after = changed(**{**before, **values})["spec"]
    kube.replace(f"{path}?dryRun=All", {**stored, "spec": after})
    best = {"generation": 0, "f1": 0.5, "modelUri": "file:///model"}
    measured = kube.replace(f"{path}/status", {**stored, "status": {"best": best}})
    with pytest.raises(ApiError) as refused:
        kube.replace(path, {**measured, "spec": after})
    assert f"{names_of} cannot be edited once the baseline is measured" in refused.value.message
    kube.replace(path, {**measured, "spec": {**measured["spec"], "suspend": True}})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"training": {"epochs": 2}}, "spec.training.epochs"),
        ({"reward": {"judge": {"views": []}}}, "spec.reward"),
        ({"evolution": {"maxGenerations": 2}}, "spec.evolution"),
    ],
)
def test_a_setting_without_a_field_is_unknown(
    kube: KubeClient, namespace: str, spec: Json, field: str
) -> None:
    """`kubectl apply` asks for the strict validation of fields."""
    path = f"{names.evolutions_path(namespace)}?dryRun=All&fieldValidation=Strict"
    with pytest.raises(ApiError, match=f'unknown field "{field}"'):
        kube.create(path, {**VALID, "spec": {**VALID["spec"], **spec}})


@pytest.mark.parametrize(
    ("spec", "fix", "message"),
    [
        (
            {"recipe": "small-v99"},
            {"recipe": "tests-v1"},
            "spec: there is no recipe `small-v99`; available: small-v2, small-v1, ",
        ),
        (
            {"overrides": {"training": {"epochs": 0}}},
            {"overrides": {"training": None}},
            "spec.overrides.training.epochs: Invalid value: 0: should be greater than or equal",
        ),
        (
            {"selfPlay": {"groupSize": 3}},
            {"selfPlay": None},
            "spec: `training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are",
        ),
    ],
    ids=["recipe", "overrides", "a rule of the resolved spec"],
)
def test_what_only_the_operator_finds_is_a_condition(
    operator: OperatorProcess, evolutions: Evolutions, spec: Json, fix: Json, message: str
) -> None:
    evolutions.create(**spec)
    evolutions.wait(lambda s: s.get("phase") == "Failed", "the condition")
    stalled = evolutions.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "BadInput")
    assert stalled["message"].startswith(message)
    assert evolutions.jobs() == []
    evolutions.edit(**fix)
    evolutions.wait(lambda s: s.get("phase") == "Running", "the run after the edit")
    assert evolutions.condition("Stalled")["status"] == "False"
