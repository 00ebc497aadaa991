"""A file is rejected with the message of the API server, the field and the line."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.api.documents import DEV, GONE, SOURCE, VALID, changed, documents
from tests.unit.api.schema.test_crd import MODELS

from selfemo_api.api_model import Rule
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import with_overrides
from selfemo_api.schema.crd import ROOT_RULES
from selfemo_api.schema.rules import check_written
from selfemo_api.schema.validation import (
    InvalidEvolution,
    Problem,
    check,
    check_edit,
    examine,
    load_evolution,
    load_evolutions,
)
from selfemo_api.status import (
    Best,
    Condition,
    ConditionStatus,
    ConditionType,
    Current,
    EvolutionStatus,
)

DUPLICATE_SOURCES = [SOURCE, SOURCE, DEV]
EVEN_PRIOR = {"joy": 0.5, "anger": 0.5}
#: Two evaluation sources: the first is the selection dataset.
TWO = [SOURCE, DEV, {**DEV, "name": "other"}]


def messages_of(document: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in check(document)]


def test_valid_document_is_accepted() -> None:
    assert check(VALID) == []


# Rules: an example of a violation for each --------------------------------------------------------

#: The field and the message of a problem, and values that violate the rule.
BROKEN: list[tuple[str, str, dict[str, Any]]] = [
    (
        "metadata.name",
        "`metadata.name` must be at most 36 characters: names of Jobs and pods contain it",
        {"metadata__name": "n" * 37},
    ),
    (
        "metadata.name",
        "`metadata.name` must contain only lowercase letters, digits and '-', start with a letter "
        "and not end with '-'",
        {"metadata__name": "Demo"},
    ),
    (
        "spec.dataset",
        "`labels` must not contain duplicates",
        {"spec__dataset__labels": ["joy", "joy"]},
    ),
    (
        "spec.dataset",
        "source names must be unique",
        {"spec__dataset__sources": DUPLICATE_SOURCES},
    ),
    (
        "spec.dataset",
        "`labels` and `sources` are required without `preset` and `uri`",
        {"spec__dataset__labels": GONE},
    ),
    ("spec.dataset", "`uri` requires `preset`", {"spec__dataset__uri": "data://mine"}),
    (
        "spec.dataset",
        "`labeledDialogues` requires a source with `use: SelfPlay`",
        {"spec__dataset__sources": [DEV], "spec__dataset__labeledDialogues": 5},
    ),
    (
        "spec.dataset",
        "`labeledDialogues` must be less than `limit` of the first source with `use: SelfPlay`",
        {
            "spec__dataset__sources": [{**SOURCE, "limit": 5}, DEV],
            "spec__dataset__labeledDialogues": 5,
        },
    ),
    (
        "spec.dataset",
        "`sources` must include a source with `use: Evaluation`",
        {"spec__dataset__sources": [SOURCE]},
    ),
    (
        "spec.dataset",
        "`sources` must include a source with `use: SelfPlay` or `use: Labeled`",
        {"spec__dataset__sources": [DEV]},
    ),
    (
        "spec.dataset",
        "`sources` must include at most 16 sources with `use: Evaluation`",
        {"spec__dataset__sources": [SOURCE, *({**DEV, "name": f"dev-{n}"} for n in range(17))]},
    ),
    (
        "spec.dataset",
        "at least one value of `labelPrior` must be greater than 0",
        {"spec__dataset__labelPrior": {"joy": 0, "anger": 0}},
    ),
    (
        "spec.dataset.sources[0]",
        "`uri` must not contain a space: write it as %20",
        {"spec__dataset__sources": [{**SOURCE, "uri": "data://my drive/a.csv"}, DEV]},
    ),
    (
        "spec.storage",
        "`endpoint` must not contain credentials: put them in the Secret of "
        "`credentialsSecretRef`, or in the AWS_ environment variables",
        {"spec__storage__endpoint": "https://key:secret@storage.example.org"},
    ),
    (
        "spec.selfPlay",
        "`roles` must not contain duplicates",
        {"spec__selfPlay": {"roles": ["Responder", "Responder"]}},
    ),
    (
        "spec.overrides.reward.weights",
        "at least one of `alignment`, `consistency` and `format` must be greater than 0",
        {
            "spec__overrides": {
                "reward": {"weights": {"alignment": 0, "consistency": 0, "format": 0}}
            }
        },
    ),
    (
        "spec.overrides.reward",
        "`minWords` must be less than `maxWords`",
        {"spec__overrides": {"reward": {"minWords": 40}}},
    ),
    (
        "spec.overrides.flywheel.consistency",
        "`min` must be less than `max`",
        {"spec__overrides": {"flywheel": {"consistency": {"min": 0.5, "max": 0.5}}}},
    ),
    (
        "spec.overrides.training.deepspeed",
        "`offload: OptimizerAndParameters` requires `zeroStage: 3`",
        {"spec__overrides": {"training": {"deepspeed": {"offload": "OptimizerAndParameters"}}}},
    ),
    (
        "spec.overrides.training.deepspeed",
        "`offload` requires a `zeroStage` of 1 or more",
        {"spec__overrides": {"training": {"deepspeed": {"offload": "Optimizer", "zeroStage": 0}}}},
    ),
    (
        "spec.training",
        "`batchSize` must be a multiple of `microBatchSize`",
        {"spec__training": {"batchSize": 64, "microBatchSize": 24}},
    ),
    (
        "spec.resources",
        "`processesPerNode` must not exceed `gpusPerNode`",
        {
            "spec__overrides": {"resources": {"processesPerNode": 2}},
            "spec__resources": {"gpusPerNode": 1},
        },
    ),
    (
        "spec.training",
        "`trainLayers` must be 0 with `lora`: adapters have their own weights",
        {"spec__training": {"trainLayers": 2, "lora": {}}},
    ),
    (
        "spec",
        "`training.batchSize` must be a multiple of `training.microBatchSize` times the number of "
        "processes",
        {"spec__training": {"batchSize": 64}, "spec__resources": {"nodes": 3}},
    ),
    (
        "spec",
        "`overrides.evaluation.selectionDataset` must be the name of a source with "
        "`use: Evaluation`",
        {"spec__overrides": {"evaluation": {"selectionDataset": "other"}}},
    ),
    (
        "spec",
        "`overrides.flywheel.runner: Ray` requires `overrides.flywheel.rayAddress`",
        {"spec__overrides": {"flywheel": {"runner": "Ray"}}},
    ),
    (
        "spec",
        "the keys of `dataset.labelPrior` must be exactly the labels of `dataset.labels`",
        {"spec__dataset__labelPrior": {"joy": 0.5, "rage": 0.5}},
    ),
    (
        "spec",
        "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not split",
        {"spec__selfPlay": {"groupSize": 7}},
    ),
    (
        "spec",
        "`training.batchSize` must be greater than `selfPlay.groupSize` with `training.imitation`: "
        "an imitated answer adds a row to its group",
        {
            "spec__selfPlay": {"groupSize": 4},
            "spec__training": {"imitation": 1.0, "batchSize": 4, "microBatchSize": 4},
        },
    ),
    (
        "spec",
        "`overrides.flywheel.maxShare` must be at least 1 / the number of labels: at least one "
        "label is always that frequent",
        {"spec__overrides": {"flywheel": {"maxShare": 0.1}}},
    ),
    (
        "spec",
        "`warmStart.steps` requires a source with `use: Labeled`: set "
        "`dataset.labeledDialogues`, or `warmStart.steps: 0`",
        {"spec__warmStart": {"steps": 10}},
    ),
    (
        "spec",
        "`useLabelPrior` requires `dataset.labelPrior` or a source with `use: Labeled`",
        {"spec__flywheel": {"useLabelPrior": True}},
    ),
]


@pytest.mark.parametrize(("field", "message", "values"), BROKEN, ids=[m for _, m, _ in BROKEN])
def test_rule(field: str, message: str, values: dict[str, Any], tmp_path: Path) -> None:
    document = changed(**values)
    assert Problem(field, message) in check(document)
    path = tmp_path / "evolution.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path)
    problem = next(p for p in caught.value.problems if p.message == message)
    assert problem.line is not None
    assert (
        path.read_text().splitlines()[problem.line - 1].strip().startswith(key_in(document, field))
    )
    assert f"{path}: {field}: {message} (line {problem.line})" in str(caught.value)


def key_in(document: Any, field: str) -> str:
    """Return how the line begins that has a field, or the deepest part of its path in the file."""
    start = ""
    for name in field.replace("[", ".[").split("."):
        if name.startswith("["):
            document, start = document[int(name[1:-1])], "- "
        elif name in document:
            document, start = document[name], f"{name}:"
        else:
            break
    return start


#: The message of a problem, values before an edit, and values of the edit that violates the rule.
FROZEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("`seed` is immutable", {}, {"spec__seed": 1}),
    ("`model.uri` is immutable", {}, {"spec__model__uri": "file:///other"}),
    ("`model.revision` is immutable", {}, {"spec__model__revision": "v2"}),
    (
        "`model.revision` is immutable",
        {"spec__model__revision": "v1"},
        {"spec__model__revision": "v2"},
    ),
    ("`model.resumeFrom` is immutable", {}, {"spec__model__resumeFrom": "s3://b/manifest.json"}),
    ("`storage.uri` is immutable", {}, {"spec__storage__uri": "s3://bucket/other"}),
    ("`dataset.labels` is immutable", {}, {"spec__dataset__labels": ["anger", "joy"]}),
    ("`managedBy` is immutable", {}, {"spec__managedBy": "another"}),
    ("`managedBy` is immutable", {"spec__managedBy": "another"}, {"spec__managedBy": GONE}),
    (
        "`dataset.preset` is immutable",
        {},
        {"spec__dataset__preset": "MELD"},
    ),
    (
        "the selection dataset (the first source with `use: Evaluation`) is immutable: "
        "generations are compared on it",
        {},
        {"spec__dataset__sources": [SOURCE, {**DEV, "name": "other"}, DEV]},
    ),
    (
        "`overrides.evaluation.selectionDataset` is immutable: generations are compared on it",
        {"spec__dataset__sources": TWO},
        {"spec__overrides": {"evaluation": {"selectionDataset": "other"}}},
    ),
    (
        "`evaluation.useLabelPrior` is immutable: scores must remain comparable",
        {"spec__dataset__labelPrior": EVEN_PRIOR},
        {"spec__evaluation": {"useLabelPrior": True}},
    ),
    (
        "`dataset.labelPrior` is immutable with `evaluation.useLabelPrior`: scores must remain "
        "comparable",
        {"spec__dataset__labelPrior": EVEN_PRIOR, "spec__evaluation": {"useLabelPrior": True}},
        {"spec__dataset__labelPrior": {**EVEN_PRIOR, "joy": 0.9}},
    ),
]


_COMPARED = (
    " cannot be edited once the baseline is measured: scores must remain comparable. Start another "
    "evolution; to continue from a model of this one, set `model.resumeFrom`"
)
#: The message of a problem, values before an edit, values of the edit that violates a rule once a
#: model has been measured, and what the message about the resolved spec begins with.
MEASURED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "`dataset.context`, `columns`, `labelMap` and `uri`",
        {},
        {"spec__dataset__context": {"past": 2}},
        '`dataset.context` is {"past": 2, "future": 0} and was {"past": 5, "future": 0}: ',
    ),
    (
        "`dataset.context`, `columns`, `labelMap` and `uri`",
        {"spec__dataset__labelMap": {"happy": "joy"}},
        {"spec__dataset__labelMap": {"happy": "anger"}},
        '`dataset.labelMap` is {"happy": "anger"} and was {"happy": "joy"}: ',
    ),
    (
        "`dataset.context`, `columns`, `labelMap` and `uri`",
        {"spec__dataset__columns": {"text": "Utterance"}},
        {"spec__dataset__columns": {"text": "Line"}},
        '`dataset.columns` is {"text": "Line"} and was {"text": "Utterance"}: ',
    ),
    *(
        (
            "`uri`, `format`, `offset` and `limit` of the selection dataset",
            {"spec__dataset__sources": [SOURCE, {**DEV, "limit": 9}]},
            {"spec__dataset__sources": [SOURCE, {**DEV, "limit": 9, **change}]},
            f"`dataset.sources[dev].{next(iter(change))}` is ",
        )
        for change in (
            {"uri": "file:///easier.jsonl"},
            {"format": "CSV"},
            {"limit": 5},
            {"offset": 3},
        )
    ),
    (
        "`model.prompts` and `promptTemplates`",
        {},
        {"spec__model__promptTemplates": {"before": "x"}},
        '`model.promptTemplates` is {"before": "x"} and was {}: ',
    ),
    (
        "`evaluation.multiLabel`",
        {},
        {"spec__evaluation": {"multiLabel": "Never"}},
        '`evaluation.multiLabel` is "Never" and was "Auto": ',
    ),
]


@pytest.mark.parametrize(("names", "before", "values", "resolved"), MEASURED)
def test_rule_once_a_model_is_measured(
    names: str, before: dict[str, Any], values: dict[str, Any], resolved: str
) -> None:
    old = EmotionEvolution.model_validate(changed(**before))
    new = EmotionEvolution.model_validate(changed(**{**before, **values}))
    assert check_edit(old, new) == [], "nothing has been measured"
    best = Best(generation=0, f1=0.5, model_uri="file:///model")
    measured = old.model_copy(update={"status": EvolutionStatus(best=best)})
    rule, comparison = check_edit(measured, new)
    assert rule == Problem("", names + _COMPARED)
    assert comparison.message.startswith(resolved)
    assert "Restore it, or start another evolution" in comparison.message
    assert check_edit(measured, old) == []


@pytest.mark.parametrize(("_names", "before", "values", "resolved"), MEASURED)
def test_what_is_compared_can_be_set_back_after_the_operator_has_refused_it(
    _names: str, before: dict[str, Any], values: dict[str, Any], resolved: str
) -> None:
    """The object has another value than the one that the best model was measured with."""
    measured = EmotionEvolution.model_validate(changed(**before))
    edited = EmotionEvolution.model_validate(changed(**{**before, **values}))
    pinned = Current(spec=measured.spec.to_json(), policy_uri="file:///m", judge_uri="file:///m")
    best = Best(generation=0, f1=0.5, model_uri="file:///model")

    def refused(reason: str) -> EmotionEvolution:
        condition = Condition(
            type=ConditionType.SUCCEEDED,
            status=ConditionStatus.FALSE,
            observed_generation=2,
            last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
            reason=reason,
            message="",
        )
        status = EvolutionStatus(best=best, current=pinned, conditions=[condition])
        return edited.model_copy(update={"status": status})

    assert check_edit(refused("BadInput"), measured) == []
    (problem,) = check_edit(refused("BadInput"), edited)
    assert problem.message.startswith(resolved), "the operator refuses it again"
    assert len(check_edit(refused("StageFailed"), measured)) == 1


def test_the_label_prior_that_was_counted_does_not_count_as_an_edit() -> None:
    sources = [SOURCE, {**SOURCE, "name": "labeled", "use": "Labeled"}, DEV]
    values = {"spec__dataset__sources": sources, "spec__evaluation": {"useLabelPrior": True}}
    evolution = EmotionEvolution.model_validate(changed(**values))
    counted = EmotionEvolution.model_validate(
        changed(**values, spec__dataset__labelPrior=EVEN_PRIOR)
    )
    pinned = Current(spec=counted.spec.to_json(), policy_uri="file:///m", judge_uri="file:///m")
    best = Best(generation=0, f1=0.5, model_uri="file:///model")
    status = EvolutionStatus(best=best, current=pinned, label_prior=EVEN_PRIOR)
    assert check_edit(evolution.model_copy(update={"status": status}), evolution) == []


@pytest.mark.parametrize(
    ("values", "resolved"),
    [
        (
            {"spec__overrides": {"selfPlay": {"maxTokens": {"recognizer": 99}}}},
            "`overrides.selfPlay.maxTokens.recognizer` is 99 and was 16: ",
        ),
        (
            {"spec__overrides": {"evaluation": {"engine": "Transformers"}}},
            '`overrides.evaluation.engine` is "Transformers" and was "VLLM": ',
        ),
        (
            {"spec__selfPlay": {"engineArgs": {"quantization": "fp8"}}},
            '`selfPlay.engineArgs` is {"quantization": "fp8"} and was ',
        ),
    ],
)
def test_settings_of_a_recipe_are_compared_too(values: dict[str, Any], resolved: str) -> None:
    """The API server cannot check them. `selfemo run` does, and the planner before a generation."""
    old = EmotionEvolution.model_validate(changed(spec__recipe="paper-v1"))
    best = Best(generation=0, f1=0.5, model_uri="file:///model")
    measured = old.model_copy(update={"status": EvolutionStatus(best=best)})
    new = EmotionEvolution.model_validate(changed(spec__recipe="paper-v1", **values))
    (problem,) = check_edit(measured, new)
    assert problem.message.startswith(resolved)


def test_edits_that_no_score_follows_from_are_accepted_once_a_model_is_measured() -> None:
    old = EmotionEvolution.model_validate(changed(spec__dataset__sources=TWO))
    best = Best(generation=0, f1=0.5, model_uri="file:///model")
    measured = old.model_copy(update={"status": EvolutionStatus(best=best)})
    easier = [{**s, "uri": "file:///x.jsonl"} if s["name"] != "dev" else s for s in TWO]
    values = {
        "spec__dataset__sources": easier,
        "spec__selfPlay": {"engineArgs": {"gpu_memory_utilization": 0.5}},
        "spec__training": {"optimizer": {"learningRate": 1e-5}},
        "spec__overrides": {"evaluation": {"bootstrap": 0, "batchSize": 8}},
    }
    assert check_edit(measured, EmotionEvolution.model_validate(changed(**values))) == []


#: A rule of the CRD and a rule of the resolved spec that say the same of one edit.
ALSO = {
    "the selection dataset (the first source with `use: Evaluation`) is immutable: "
    "generations are compared on it": "`overrides.evaluation.selectionDataset` is immutable: "
    "generations are compared on it"
}


@pytest.mark.parametrize(("message", "before", "values"), FROZEN)
def test_transition_rule(message: str, before: dict[str, Any], values: dict[str, Any]) -> None:
    old = EmotionEvolution.model_validate(changed(**before))
    new = EmotionEvolution.model_validate(
        changed(**{**before, **values}) if GONE not in values.values() else changed()
    )
    problems = check_edit(old, new)
    assert Problem("spec", message) in problems
    assert {p.message for p in problems} <= {message, ALSO.get(message)}
    assert check_edit(old, old) == []
    assert check_edit(new, new) == []


def test_other_edits_are_accepted() -> None:
    old = EmotionEvolution.model_validate(VALID)
    values = {
        "spec__suspend": True,
        "spec__training": {"optimizer": {"learningRate": 1e-5}},
        "spec__overrides": {"evaluation": {"selectionDataset": "dev"}},
        "spec__dataset__sources": TWO,
        "spec__recipe": "tests-v1",
    }
    assert check_edit(old, EmotionEvolution.model_validate(changed(**values))) == []


def test_every_rule_has_an_example() -> None:
    rules: set[Rule] = {*ROOT_RULES, *(rule for _, model in MODELS for rule in model.rules)}
    frozen = {message for message, _, _ in FROZEN} | {n + _COMPARED for n, *_ in MEASURED}
    tested = {message for _, message, _ in BROKEN} | frozen
    assert {rule.message for rule in rules} == tested
    assert {r.message for r in rules if r.is_transition} == frozen


# Bounds and types: messages of the API server -----------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spec__seed": -1}, "spec.seed: Invalid value: -1: should be greater than or equal to 0"),
        (
            {"spec__overrides": {"selfPlay": {"topP": 0}}},
            "spec.overrides.selfPlay.topP: Invalid value: 0: should be greater than 0",
        ),
        (
            {"spec__overrides": {"selfPlay": {"topP": 1.5}}},
            "spec.overrides.selfPlay.topP: Invalid value: 1.5: should be less than or equal to 1",
        ),
        (
            {"spec__overrides": {"training": {"clip": {"low": 1.0}}}},
            "spec.overrides.training.clip.low: Invalid value: 1: should be less than 1",
        ),
        (
            {"spec__model__uri": "ftp://x/y"},
            r"""spec.model.uri: Invalid value: "ftp://x/y": should match """
            r"""'^(hf|s3|file|data|package)://.+$'""",
        ),
        (
            {"spec__model__uri": "x"},
            'spec.model.uri: Invalid value: "x": should be at least 6 chars long',
        ),
        (
            {"spec__managedBy": "x" * 64},
            "spec.managedBy: Too long: may not be more than 63 bytes",
        ),
        (
            {"spec__dataset__labels": ["joy"]},
            "spec.dataset.labels: Invalid value: 1: should have at least 2 items",
        ),
        (
            {"spec__dataset__labels": [chr(97 + i // 26) + chr(97 + i % 26) for i in range(65)]},
            "spec.dataset.labels: Too many: 65: must have at most 64 items",
        ),
        (
            {"spec__podTemplate": [{"template": {"labels": {str(i): "" for i in range(65)}}}]},
            "spec.podTemplate[0].template.labels: Too many: 65: must have at most 64 items",
        ),
        (
            {"spec__dataset__sources": [{**SOURCE, "format": "XML"}, DEV]},
            'spec.dataset.sources[0].format: Unsupported value: "XML": supported values: '
            '"MELD", "EmoryNLP", "IEMOCAP", "JSONL", "CSV", "Parquet", "HuggingFace"',
        ),
        ({"spec__storage": GONE}, "spec.storage: Required value"),
        ({"spec__storage": None}, "spec.storage: Required value"),
        ({"spec__model": GONE}, "spec.model: Required value"),
        ({"spec__recipe": "tests-v1", "spec__model": GONE}, "spec.model: Required value"),
        ({"spec__recipe": "tests-v1", "spec__dataset": GONE}, "spec.dataset: Required value"),
        ({"spec__recipe": "tests-v1", "spec__model": {}}, "spec.model.uri: Required value"),
        ({"kind": GONE}, "kind: Required value"),
        ({"spec__nonsense": 1}, "spec.nonsense: unknown field"),
        (
            {"spec__recipe": "other-v1"},
            "spec.recipe: there is no recipe `other-v1`; available: small-v2, small-v1, "
            "qwen3-lora-v1, qwen3-600m-v1, qwen3-4b-v1, qwen3-8b-v1, paper-v1, tests-v1",
        ),
        (
            {"spec__training": {"epochs": 4}},
            "spec.training.epochs: has no dedicated field: set `overrides.training.epochs`",
        ),
        (
            {"spec__overrides": {"training": {"epoch": 4}}},
            "spec.overrides.training.epoch: unknown field",
        ),
        (
            {"spec__overrides": {"seed": 4}},
            "spec.overrides.seed: has a dedicated field: set `seed` outside `overrides`",
        ),
        ({"spec__self_play": {}}, "spec.self_play: unknown field"),
        (
            {"spec__seed": "7"},
            'spec.seed: Invalid value: "string": must be of type integer: "string"',
        ),
        (
            {"spec__seed": 1.5},
            'spec.seed: Invalid value: "number": must be of type integer: "number"',
        ),
        (
            {"spec__seed": True},
            'spec.seed: Invalid value: "boolean": must be of type integer: "boolean"',
        ),
        (
            {"spec__suspend": "yes"},
            'spec.suspend: Invalid value: "string": must be of type boolean: "string"',
        ),
        (
            {"spec__training": 3},
            'spec.training: Invalid value: "integer": must be of type object: "integer"',
        ),
        (
            {"spec__dataset__labels": "joy"},
            'spec.dataset.labels: Invalid value: "string": must be of type array: "string"',
        ),
        (
            {"metadata__name": 5},
            'metadata.name: Invalid value: "integer": must be of type string: "integer"',
        ),
        (
            {"spec__selfPlay": {"engineArgs": {"trust_remote_code": True}}},
            "spec.selfPlay.engineArgs: `trust_remote_code` must be false: code from a "
            "model repository is never run",
        ),
        ({"spec__seed": float("nan")}, "spec.seed: is not a JSON value: nan"),
        (
            {"spec__selfPlay": {"engineArgs": {"x": {1, 2}}}},
            "spec.selfPlay.engineArgs.x: is not a JSON value: {1, 2}",
        ),
    ],
)
def test_bounds_and_types(values: dict[str, Any], message: str) -> None:
    assert messages_of(changed(**values)) == [message]


def test_all_problems_at_once() -> None:
    document = changed(
        spec__seed="x",
        spec__overrides={"selfPlay": {"topP": 2}},
        spec__extra=1,
        spec__storage=GONE,
    )
    assert [p.field for p in check(document)] == [
        "spec.seed",
        "spec.extra",
        "spec.storage",
        "spec.overrides.selfPlay.topP",
    ]


def test_nulls_and_whole_numbers_have_the_meaning_of_the_api_server(tmp_path: Path) -> None:
    text = yaml.safe_dump(VALID) + "".join(
        ["  seed: 3.0\n", "  training:\n", "  stopping: {goal: null, patience: }\n"]
    )
    # `spec` is the last key of the valid document
    evolution = load_evolution(_write(tmp_path, text))
    assert evolution.spec.seed == 3
    assert evolution.spec.training == EmotionEvolution.model_validate(VALID).spec.training
    assert evolution.spec.stopping.goal is None


def _write(folder: Path, text: str) -> Path:
    path = folder / "evolution.yaml"
    path.write_text(text)
    return path


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must contain one EmotionEvolution object"),
        ("[1, 2]", "must contain one EmotionEvolution object"),
        ("a: [1\nb: 2", "is not YAML: expected ',' or ']', but got ':' (line 2)"),
        (
            "a: 1\n---\na: 2\n",
            "contains several documents: put each document into its own file (line 2)",
        ),
        ("spec: {}\nspec: {}\n", "is not YAML: duplicate key 'spec' (line 2)"),
        ("a: &a [*a]", "is nested too deeply"),
        ("[" * 3000, "is nested too deeply"),
        ("a: !!python/object:os.system {}", "is not YAML: could not determine a constructor"),
        ("a: !!int x", "is not YAML: x is not a number (line 1)"),
        ("a: \x01", "is not YAML: "),
        ("{1: 2, [3]: 4}", "is not YAML: found unhashable key (line 1)"),
    ],
)
def test_file_without_one_object(text: str, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value).splitlines()) == 1


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvolution, match="cannot be read: No such file or directory"):
        load_evolution(tmp_path / "none.yaml")
    with pytest.raises(InvalidEvolution, match="cannot be read: Is a directory"):
        load_evolution(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe9")
    with pytest.raises(InvalidEvolution, match=r"is not UTF-8 \(byte 3\)"):
        load_evolution(path)


def test_a_problem_has_its_line(tmp_path: Path) -> None:
    sources = [SOURCE, {**DEV, "format": "XML"}]
    text = yaml.safe_dump(changed(spec__dataset__sources=sources))
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(_write(tmp_path, text))
    (problem,) = (p for p in caught.value.problems if "Unsupported" in p.message)
    assert problem.line is not None
    assert text.splitlines()[problem.line - 1].strip() in ("format: XML", "- format: XML")


def test_numbers_are_read_as_by_kubectl(tmp_path: Path) -> None:
    text = yaml.safe_dump(VALID) + "  training: {optimizer: {learningRate: 1e-6}}\n"
    assert load_evolution(_write(tmp_path, text)).spec.training.optimizer.learning_rate == 1e-6
    quoted = text.replace("1e-6", "'1e-6'")
    with pytest.raises(InvalidEvolution, match='must be of type number: "string"'):
        load_evolution(_write(tmp_path, quoted))


def test_status_of_a_file_is_ignored(tmp_path: Path) -> None:
    text = yaml.safe_dump({**VALID, "status": {"generation": 7, "unknown": 1}})
    assert load_evolution(_write(tmp_path, text)).status.generation == 0


def test_set_values(tmp_path: Path) -> None:
    path = _write(tmp_path, yaml.safe_dump(changed(spec__seed=1, spec__training=None)))
    changes = {"seed": 2, "selfPlay.maxTokens.responder": 9, "training.imitation": 0.5}
    spec = load_evolution(path, changes).spec
    assert (spec.seed, spec.self_play.max_tokens.responder) == (2, 9)
    assert spec.training.imitation == 0.5


def test_set_puts_a_setting_without_a_field_below_overrides(tmp_path: Path) -> None:
    path = _write(tmp_path, yaml.safe_dump(changed(spec__overrides={"training": {"epochs": 2}})))
    changes = {
        "training.clip.low": 0.1,
        "training.imitation": 3.0,
        "training.epochs": None,
        "overrides.reward.penalty": 0.1,
        "flywheel": {"keep": 0.5, "replay": 0.0, "consistency": {"min": 0.1}},
    }
    evolution = load_evolution(path, changes)
    assert evolution.written["training"] == {"imitation": 3.0}
    assert evolution.written["flywheel"] == {"keep": 0.5}
    assert evolution.written["overrides"] == {
        "training": {"epochs": None, "clip": {"low": 0.1}},
        "reward": {"penalty": 0.1},
        "flywheel": {"replay": 0.0, "consistency": {"min": 0.1}},
    }
    spec = evolution.spec
    assert (spec.training.epochs, spec.training.clip.low, spec.training.clip.high) == (1, 0.1, 0.28)
    assert (spec.flywheel.keep, spec.flywheel.replay, spec.reward.penalty) == (0.5, 0.0, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "spec.seed: Invalid value: -1: should be greater than or equal to 0"),
        ({"seed.x": 1}, "spec.seed: is not an object: `x` cannot be set"),
        ({"nonsense": 1}, "spec.nonsense: unknown field"),
        (
            {"training.epochs": 0},
            "spec.training.epochs: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            {"training.epochs": "many"},
            'spec.training.epochs: Invalid value: "string": must be of type integer: "string"',
        ),
        (
            {"training.clip": {"low": 1.0}},
            "spec.training.clip.low: Invalid value: 1: should be less than 1",
        ),
        (
            {"overrides.training.epochs": 0},
            "spec.overrides.training.epochs: Invalid value: 0: should be greater than or equal "
            "to 1",
        ),
        (
            {"overrides.training.imitation": 1.0},
            "spec.overrides.training.imitation: has a dedicated field: set `training.imitation` "
            "outside `overrides`",
        ),
        (
            {"recipe": "small-v99"},
            "spec.recipe: there is no recipe `small-v99`; available: small-v2, small-v1, "
            "qwen3-lora-v1, qwen3-600m-v1, qwen3-4b-v1, qwen3-8b-v1, paper-v1, tests-v1; "
            "did you mean `small-v2`?",
        ),
        (
            {"recipe": "other"},
            "spec.recipe: there is no recipe `other`; available: small-v2, small-v1, "
            "qwen3-lora-v1, qwen3-600m-v1, qwen3-4b-v1, qwen3-8b-v1, paper-v1, tests-v1",
        ),
        ({"seflPlay.engine": "VLLM"}, "spec.seflPlay: unknown field: did you mean `selfPlay`?"),
        (
            {"selfPlay.engien": "VLLM"},
            "spec.selfPlay.engien: unknown field: did you mean `engine`?",
        ),
        (
            {"selfPlay.engine": "vlm"},
            'spec.selfPlay.engine: Unsupported value: "vlm": supported values: "VLLM", '
            '"Transformers"; did you mean `VLLM`?',
        ),
        (
            {"training.learningRate": 1e-5},
            "spec.training.learningRate: unknown field: did you mean "
            "`spec.training.optimizer.learningRate`?",
        ),
        (
            {"patience": 2},
            "spec.patience: unknown field: did you mean `spec.stopping.patience` or "
            "`spec.overrides.warmStart.patience`?",
        ),
        (
            {"imitationn": 2},
            "spec.imitationn: unknown field",
        ),
        (
            {"overrides.training.epoch": 2},
            "spec.overrides.training.epoch: unknown field: did you mean `epochs`?",
        ),
        (
            {"dataset.sources": [{"nmae": "a"}]},
            "spec.dataset.sources[0].nmae: unknown field: did you mean `name`?",
        ),
    ],
)
def test_set_bad_values(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The problem has no line, because the value is not in the file."""
    path = _write(tmp_path, yaml.safe_dump(changed(spec__seed=1)))
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path, changes)
    assert str(caught.value).splitlines()[0] == f"{path}: {message}"
    only = "sources" not in message
    assert len(caught.value.problems) == 1 or not only


def test_several_documents() -> None:
    valid, other = yaml.safe_dump(VALID), yaml.safe_dump({**VALID, "metadata": {"name": "other"}})
    wrong = other.replace("storage:", "storrage:")
    text = f"# nothing\n---\n{valid}---\n---\n{wrong}---\n- 1\n---\n{other}"
    first, second, third, fourth = load_evolutions("all.yaml", text, {"seed": 3})
    assert isinstance(first, EmotionEvolution)
    assert isinstance(fourth, EmotionEvolution)
    assert (first.spec.seed, fourth.spec.seed, fourth.metadata.name) == (3, 3, "other")
    line = text.splitlines().index("  storrage:") + 1
    assert f"spec.storrage: unknown field: did you mean `storage`? (line {line})" in str(second)
    assert all(t.startswith("all.yaml (document 2): ") for t in str(second).splitlines())
    assert str(third) == "all.yaml (document 3): must contain one EmotionEvolution object"


def test_one_document_is_named_by_its_file() -> None:
    (error,) = load_evolutions("all.yaml", "---\nspec: 1\n---\n")
    assert str(error).startswith("all.yaml: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must contain one EmotionEvolution object"),
        ("---\n---\n", "must contain one EmotionEvolution object"),
        ("a: 1\n---\nb: 1\nb: 2\n", "is not YAML: duplicate key 'b' (line 4)"),
        ("a: 1\n---\nb: {\n", "is not YAML: "),
        ("[" * 3000, "is nested too deeply"),
    ],
)
def test_a_text_without_documents(text: str, message: str) -> None:
    with pytest.raises(InvalidEvolution) as caught:
        load_evolutions("all.yaml", text)
    assert str(caught.value).startswith(f"all.yaml: {message}")


def test_a_rule_that_the_values_of_the_recipe_break_is_a_problem() -> None:
    """The API server accepts it, because it does not have these values."""
    document = changed(spec__recipe="tests-v1", spec__selfPlay={"groupSize": 3})
    message = (
        "`training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not split"
    )
    assert check(document) == [Problem("spec", message)]
    assert check_written(document["spec"]) == []


def test_a_rule_is_run_on_a_long_list() -> None:
    """With celpy's own evaluation of `||`, this would take all memory."""
    labels = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(64)]
    assert check(changed(spec__dataset__labels=labels)) == []


# Any content of a file ----------------------------------------------------------------------------

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@FUZZ
@given(documents())
@example({**VALID, "spec": {**VALID["spec"], "deadlines": None}})  # stored without the null
def test_any_document_is_accepted_or_rejected_with_a_message(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    stored, problems = examine(document)
    assert check(document) == problems
    assert repr(document) == repr(before)
    assert all(p.message and "\n" not in p.field for p in problems)
    if not problems:
        spec = EmotionEvolution.model_validate(stored).spec
        # every value written out, over a recipe without values of its own
        spec = spec.model_copy(update={"recipe": "paper-v1", "overrides": {}})
        written = with_overrides(spec.to_json())
        complete = {**VALID, "metadata": document["metadata"], "spec": written}
        assert check(complete) == []
        again = EmotionEvolution.model_validate(complete).spec
        assert again.model_copy(update={"overrides": {}}) == spec


@FUZZ
@given(documents().map(lambda d: yaml.safe_dump(d, allow_unicode=True)) | st.text(max_size=60))
def test_any_file_is_accepted_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        evolution = load_evolution(path)
    except InvalidEvolution as error:
        assert error.problems
        assert str(error)
    else:
        assert isinstance(evolution, EmotionEvolution)
