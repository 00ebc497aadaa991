"""Generations are compared with equal settings and equal files, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import SOURCES, World, score_of, spec_of
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.status import ConditionType, EvolutionStatus

EASIER = [*SOURCES[:2], {**SOURCES[2], "uri": "file:///easier.jsonl"}]


def message(status: EvolutionStatus) -> str:
    condition = status.condition(ConditionType.SUCCEEDED)
    return condition.message if condition else ""


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"dataset": {"sources": EASIER}}, "dataset.sources[demo].uri"),
        ({"dataset": {"sources": [*SOURCES[:2], {**SOURCES[2], "limit": 3}]}}, "limit"),
        ({"dataset": {"context": {"past": 1}}}, "dataset.context"),
        ({"dataset": {"labelMap": {"happy": "joy"}}}, "dataset.labelMap"),
        ({"model": {"prompts": "compact-v1"}}, "model.prompts"),
        ({"model": {"maxPromptTokens": 64}}, "model.maxPromptTokens"),
        ({"evaluation": {"engine": "Transformers"}}, "evaluation.engine"),
        ({"selfPlay": {"engineArgs": {"dtype": "float16"}}}, "selfPlay.engineArgs"),
        ({"selfPlay": {"maxTokens": {"recognizer": 4}}}, "selfPlay.maxTokens.recognizer"),
        ({"evaluation": {"multiLabel": "Never"}}, "evaluation.multiLabel"),
    ],
)
def test_an_edit_of_what_scores_follow_from_is_refused_at_the_next_generation(
    edit: dict[str, Any], path: str
) -> None:
    """The F1 after it would be compared with the baseline's: a false promotion."""
    world = World(spec=spec_of(stopping={"maxGenerations": 3}))
    before = world.spec
    to_stage(world, 1, Stage.SCORE)
    world.edit(**edit)
    world.settle()
    assert (world.summary, world.status.generation) == ("BadInput", 1)
    assert f"{path}` is " in message(world.status) or f".{path}` is " in message(world.status)
    assert "Restore it, or start another evolution" in message(world.status)
    assert world.status.history[-1].generation == 1, "the generation with the old settings counts"
    # an edit of something else does not hide it
    world.edit(stopping={"patience": 9})
    world.settle()
    assert (world.summary, world.status.generation) == ("BadInput", 1)
    assert world.status.best is not None
    assert world.status.best.generation == 1
    world.spec = EvolutionSpec.model_validate(before.to_json())
    world.generation += 1
    world.settle()
    assert (world.summary, world.status.generation) == ("MaxGenerationsReached", 3)


def test_a_generation_that_failed_is_not_repeated_with_other_settings() -> None:
    world = World(spec=spec_of())
    world.fail(to_stage(world, 1, Stage.EVALUATE), 2)
    world.settle()
    world.edit(dataset={"context": {"past": 1}})
    world.settle()
    assert "`dataset.context` is " in message(world.status)
    assert world.status.best is not None
    assert world.status.best.generation == 0


def test_before_the_baseline_is_measured_everything_may_be_edited() -> None:
    world = World(spec=spec_of())
    world.fail(to_stage(world, 0, Stage.CHECK), 2)
    world.settle()
    world.edit(dataset={"context": {"past": 1}, "sources": EASIER})
    world.settle()
    assert world.summary == "MaxGenerationsReached"


def test_settings_that_place_the_work_may_be_edited() -> None:
    world = World(spec=spec_of())
    to_stage(world, 1, Stage.SCORE)
    arguments = {"gpu_memory_utilization": 0.5, "tensor_parallel_size": 2}
    world.edit(selfPlay={"engineArgs": arguments}, evaluation={"bootstrap": 0, "batchSize": 4})
    world.settle()
    assert world.summary == "MaxGenerationsReached"


@pytest.mark.parametrize(
    ("measured", "now", "ends"),
    [("a", "a", False), ("a", "b", True), (None, "b", False), ("a", None, False)],
)
def test_a_score_on_other_files_is_not_compared(
    measured: str | None, now: str | None, ends: bool
) -> None:
    world = World(spec=spec_of())
    to_stage(world, 1, Stage.EVALUATE)
    status = world.status
    assert status.baseline is not None
    baseline = status.baseline.model_copy(update={"sha256": measured and measured * 64})
    world.status = status.model_copy(update={"baseline": baseline})
    name = "demo-g001-evaluate-1"
    world.succeed(name)
    job = world.jobs[name]
    assert job.result is not None
    score = score_of(0.9 if ends else 0.4, sha256=now and now * 64)
    result = job.result.model_copy(update={"scores": [score]})
    world.jobs[name] = replace(job, result=result)
    world.reconcile()
    assert (world.summary == "BadInput") == ends
    best = world.status.best
    assert best is not None
    assert best.generation == (0 if ends else 1)
    if ends:
        assert message(world.status) == (
            "demo has changed since the baseline was measured (SHA-256 aaaaaaaaaaaa… then, "
            "bbbbbbbbbbbb… now): scores on it cannot be compared. Restore the files and edit the "
            "spec to continue, or start another evolution"
        )
