"""After an edit, the stages run again whose results would follow from an earlier spec."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import (
    BROKEN,
    LABEL_PRIOR,
    SOURCES,
    World,
    settings_of,
    spec_of,
)
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.recipes.recipe import leaves
from selfemo_api.stages import Stage, stages_of
from selfemo_api.status import ConditionType, Outcome
from selfemo_jobs.stages.check import stage as check
from selfemo_jobs.stages.evaluate import stage as evaluate
from selfemo_jobs.stages.flywheel import stage as flywheel
from selfemo_jobs.stages.score import stage as score
from selfemo_jobs.stages.selfplay import stage as selfplay
from selfemo_jobs.stages.train import stage as train
from selfemo_jobs.stages.warmstart import stage as warmstart
from selfemo_operator.planner.edits import _PLACEMENT, first_reader
from selfemo_operator.planner.pinning import pinned_spec
from selfemo_operator.planner.types import DeleteJob

#: The settings that the result of each stage follows from.
RELEVANT = {
    Stage.CHECK: check.RELEVANT,
    Stage.WARM_START: warmstart.RELEVANT,
    Stage.SELF_PLAY: selfplay.RELEVANT,
    Stage.SCORE: score.RELEVANT,
    Stage.FLYWHEEL: flywheel.RELEVANT,
    Stage.TRAIN: train.RELEVANT,
    Stage.EVALUATE: evaluate.RELEVANT,
}
UNLABELED = [SOURCES[0], SOURCES[2]]
OTHER_LABELS = [SOURCES[0], {**SOURCES[1], "uri": "file:///other.jsonl"}, SOURCES[2]]


def message(world: World, kind: ConditionType = ConditionType.SUCCEEDED) -> str:
    condition = world.status.condition(kind)
    return condition.message if condition else ""


def failed_at(world: World, generation: int, stage: Stage) -> None:
    """Let the evolution end at a stage."""
    world.fail(to_stage(world, generation, stage), 2)
    world.settle()
    assert world.summary == "BadInput"
    world.started.clear()


@pytest.mark.parametrize("generation", [0, 1])
def test_no_stage_reads_a_setting_before_its_first_reader(generation: int) -> None:
    """The lists of the stages decide. A result that follows from an earlier spec would be used."""
    order = stages_of(generation, warm_start=True)
    paths = leaves(spec_of(training={"lora": {"rank": 8}}).to_json())
    for stage in order[:-1]:
        relevant = {r if "sources" not in r else "dataset.sources" for r in RELEVANT[stage]}
        for read in relevant - {"model.revision"}:  # it is immutable
            for path in {p for p in paths if f"{p}.".startswith(f"{read}.")} or {read}:
                if any(f"{path}.".startswith(f"{place}.") for place in _PLACEMENT):
                    assert first_reader(generation, path) is None
                    continue
                first = first_reader(generation, path)
                assert first is not None, path
                assert order.index(first) <= order.index(stage), (path, stage)


@pytest.mark.parametrize(
    ("edit", "failed", "again"),
    [
        ({"selfPlay": {"temperature": 0.5}}, Stage.TRAIN, Stage.SELF_PLAY),
        ({"reward": {"consensus": 0.3}}, Stage.TRAIN, Stage.SCORE),
        ({"flywheel": {"keep": 0.5}}, Stage.EVALUATE, Stage.FLYWHEEL),
        ({"training": {"epochs": 2}}, Stage.EVALUATE, Stage.TRAIN),
        ({"training": {"epochs": 2}}, Stage.TRAIN, Stage.TRAIN),
        ({"selfPlay": {"engineArgs": {"dtype": "float16"}}}, Stage.SCORE, None),
        ({"training": {"epochs": 2}}, Stage.SCORE, Stage.SCORE),
        ({"failurePolicy": {"maxAttempts": 7}}, Stage.TRAIN, Stage.TRAIN),
        ({"resources": {"gpusPerNode": 2}}, Stage.TRAIN, Stage.TRAIN),
        ({"evaluation": {"batchSize": 4}}, Stage.EVALUATE, Stage.EVALUATE),
        (
            {"selfPlay": {"engineArgs": {"gpu_memory_utilization": 0.5}}},
            Stage.SCORE,
            Stage.SCORE,
        ),
    ],
)
def test_a_generation_goes_back_to_the_first_stage_that_reads_what_was_edited(
    edit: dict[str, Any], failed: Stage, again: Stage | None
) -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    failed_at(world, 1, failed)
    world.edit(**edit)
    world.settle()
    if again is None:
        assert "`selfPlay.engineArgs` is " in message(world), "generations are compared with it"
        return
    assert world.summary == "MaxGenerationsReached"
    stages = stages_of(1)
    assert world.started == [(1, stage) for stage in stages[stages.index(again) :]]
    assert world.status.current is not None
    for result in world.status.current.results:
        expected = settings_of(world.spec, result.stage)
        assert world.made_with[result.manifest_sha256] == expected


def test_a_result_from_equal_settings_is_used_again_and_keeps_its_time() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    failed_at(world, 1, Stage.TRAIN)
    world.edit(reward={"consensus": 0.3}, flywheel={"keep": 0.5})
    world.settle()
    assert world.made.count((1, Stage.SELF_PLAY)) == 1
    assert world.made.count((1, Stage.SCORE)) == world.made.count((1, Stage.FLYWHEEL)) == 2
    assert world.status.history[1].stage_seconds["SelfPlay"] == 12.5
    configs = {name: config.repair for name, config in world.configs.items() if "g001" in name}
    assert configs == {
        "demo-g001-selfplay-1": False,
        "demo-g001-score-1": False,
        "demo-g001-flywheel-1": False,
        "demo-g001-train-1": False,
        "demo-g001-score-2": True,
        "demo-g001-flywheel-2": True,
        "demo-g001-train-2": True,
        "demo-g001-evaluate-1": False,
        "demo-g001-publish-1": False,
    }


def test_the_condition_says_that_the_spec_was_edited() -> None:
    world = World(spec=spec_of())
    failed_at(world, 1, Stage.TRAIN)
    world.edit(flywheel={"keep": 0.5})
    world.reconcile()
    condition = world.status.condition(ConditionType.RECOVERING)
    assert condition is not None
    assert condition.reason == "SpecEdited"
    assert condition.message == (
        "generation 1: the spec was edited; the stages from Flywheel to Train run again"
    )
    # damage that is found on the way is a recovery of its own
    world.damage(1, Stage.SCORE)
    world.step()
    world.step()
    world.step()
    assert (world.status.stage, world.status.recoveries) == (Stage.SCORE, 1)
    assert "the result of Score was missing or damaged" in message(world, ConditionType.RECOVERING)
    world.settle()
    assert world.summary == "MaxGenerationsReached"


def test_a_warm_start_is_not_evaluated_with_other_prompts() -> None:
    world = World(spec=spec_of(warmStart={"steps": 100}))
    failed_at(world, 0, Stage.EVALUATE)
    world.edit(model={"prompts": "compact-v1"})
    world.settle()
    assert world.started[:2] == [(0, Stage.WARM_START), (0, Stage.EVALUATE)]
    assert world.made.count((0, Stage.WARM_START)) == 2
    assert world.summary == "MaxGenerationsReached"


def test_the_label_prior_is_counted_again_in_a_retry_of_generation_0() -> None:
    spec = spec_of(warmStart={"steps": 100}, flywheel={"useLabelPrior": True})
    world = World(spec=spec, label_prior=LABEL_PRIOR)
    failed_at(world, 0, Stage.WARM_START)
    assert world.status.label_prior == LABEL_PRIOR
    world.label_prior = dict.fromkeys(LABEL_PRIOR, 1 / 7)
    world.edit(dataset={"sources": OTHER_LABELS})
    assert to_stage(world, 0, Stage.CHECK) == "demo-g000-check-2"
    assert world.status.label_prior is pinned_spec(world.status).flywheel_label_prior is None
    to_stage(world, 1, Stage.FLYWHEEL)
    assert pinned_spec(world.status).flywheel_label_prior == world.label_prior


def test_a_label_prior_that_was_not_counted_is_required() -> None:
    labels = list(LABEL_PRIOR)
    world = World(spec=spec_of(dataset={"labels": labels, "sources": UNLABELED}))
    to_stage(world, 1, Stage.SCORE)
    world.edit(dataset={"sources": list(SOURCES)}, flywheel={"useLabelPrior": True})
    world.settle()
    assert (world.summary, world.status.generation) == ("BadInput", 1)
    assert "Set `dataset.labelPrior`" in message(world)
    world.edit(dataset={"labelPrior": LABEL_PRIOR})
    to_stage(world, 2, Stage.FLYWHEEL)
    assert pinned_spec(world.status).flywheel_label_prior == LABEL_PRIOR


#: Edits of settings that generations are compared with, and the stages that run because of them.
COMPARED = [
    ({"model": {"prompts": "compact-v1"}}, (Stage.EVALUATE,)),
    ({"evaluation": {"multiLabel": "Never"}}, (Stage.EVALUATE,)),
    ({"dataset": {"labelMap": {"happy": "joy"}}}, (Stage.CHECK, Stage.EVALUATE)),
    ({"dataset": {"context": {"past": 3}}}, (Stage.CHECK, Stage.EVALUATE)),
]


@pytest.mark.parametrize(("edit", "again"), COMPARED)
def test_an_edit_of_what_is_compared_counts_at_once_before_the_baseline_is_measured(
    edit: dict[str, Any], again: tuple[Stage, ...]
) -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    to_stage(world, 0, Stage.EVALUATE)
    world.started.clear()
    world.edit(**edit)
    decision = world.reconcile()
    assert decision.action == DeleteJob(
        "demo-g000-evaluate-1", "it is not the Job of the current stage"
    )
    assert (world.status.stage, world.status.failures) == (again[0], 0)
    totals = next(t for t in world.status.stages if t.stage is Stage.EVALUATE)
    assert (totals.replaced, totals.failures) == (1, {})
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert tuple(stage for generation, stage in world.started if generation == 0) == (
        *again,
        Stage.PUBLISH,
    )
    assert "demo-g000-evaluate-2" in world.jobs
    assert [record.outcome for record in world.status.history] == [
        Outcome.BASELINE,
        Outcome.PROMOTED,
    ]


def test_a_result_that_was_not_recorded_before_the_edit_does_not_count() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    world.succeed(to_stage(world, 0, Stage.EVALUATE))
    world.edit(model={"prompts": "compact-v1"})
    world.reconcile()
    assert world.status.best is None
    world.settle()
    assert world.made.count((0, Stage.EVALUATE)) == 2
    assert world.summary == "MaxGenerationsReached"


def test_an_edit_while_it_is_suspended_counts_when_it_goes_on() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    to_stage(world, 0, Stage.EVALUATE)
    world.edit(suspend=True)
    world.settle()
    world.edit(model={"prompts": "compact-v1"})
    world.settle()
    assert world.status.attempt == 1
    world.edit(suspend=False)
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert "demo-g000-evaluate-2" in world.jobs


@pytest.mark.parametrize(
    "edit", [BROKEN, {"training": {"epochs": 2}}, {"dataset": {"sources": UNLABELED}}]
)
def test_other_edits_wait_for_the_next_generation(edit: dict[str, Any]) -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}))
    name = to_stage(world, 0, Stage.EVALUATE)
    world.edit(**edit)
    assert world.reconcile().action is None
    assert world.current is not None
    assert world.current.name == name


def test_a_retry_with_another_judge_is_judged_by_it() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 2}))
    failed_at(world, 2, Stage.SCORE)
    assert world.status.current is not None
    assert world.status.current.judge_uri != world.status.baseline_uri
    world.edit(reward={"judge": {"model": "Baseline"}})
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    judges = [c.judge_uri for c in world.configs.values() if c.stage is Stage.SCORE]
    assert judges[-1] == world.status.baseline_uri
    assert judges[-2] != judges[-1]


def test_a_retry_of_publish_keeps_the_settings_of_the_generation() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 2}))
    failed_at(world, 1, Stage.PUBLISH)
    epochs = world.spec.training.epochs
    world.edit(training={"epochs": epochs + 1}, publish="hf://owner/other")
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    published, following = (
        world.configs[f"demo-g{name}"] for name in ("001-publish-2", "002-train-1")
    )
    assert (published.spec.publish, published.spec.training.epochs) == ("hf://owner/other", epochs)
    assert published.outcomes is not None
    assert not [change for change in published.outcomes.changes if "epochs" in change]
    assert following.spec.training.epochs == epochs + 1


def test_a_retry_of_publish_keeps_the_warm_started_model() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}, warmStart={"steps": 100}))
    failed_at(world, 0, Stage.PUBLISH)
    world.edit(warmStart={"steps": 0})
    world.settle()
    model = world.configs["demo-g000-publish-2"].policy_uri
    assert model.endswith("generations/000/warmstart/model")


def test_an_edit_after_a_recovery_of_generation_0_is_not_reported_as_damage() -> None:
    world = World(spec=spec_of(warmStart={"steps": 100}, stopping={"maxGenerations": 1}))
    to_stage(world, 0, Stage.EVALUATE)
    recovered = {"recoveries": 1, "recovery": None}
    world.status = world.status.model_copy(update=recovered)
    world.edit(model={"prompts": "compact-v1"})
    world.reconcile()
    condition = world.status.condition(ConditionType.RECOVERING)
    assert condition is not None
    assert (condition.reason, world.status.last_failure) == ("SpecEdited", None)
