"""Scores are added to the model of the generation, and to no other one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.jobs.stages.publish.planned_runs import (
    Killed,
    MemoryStore,
    PlannedRun,
    context_of,
    publish,
)
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.contract import StageConfig
from selfemo_api.model_description import ModelDescription
from selfemo_api.stages import Stage
from selfemo_jobs.models.description_file import parse_description
from selfemo_jobs.stages.publish.description import add_scores
from selfemo_jobs.store import Store, join

F1S = (0.3, 0.4, 0.35, 0.5)


def describing(config: StageConfig, store: Store) -> None:
    add_scores(context_of(config, store))
    publish(config, store)


def run_of(f1s: tuple[float, ...] = F1S, **more: Any) -> PlannedRun:
    spec = {"stopping": {"maxGenerations": 3, "patience": 5}, **more.pop("spec", {})}
    run = PlannedRun(spec_of(**spec), f1s, publishes=describing, described=True, **more)
    run.settle()
    return run


def description(run: PlannedRun, generation: int, stage: str = "train") -> ModelDescription:
    uri = f"{run.run_uri}/generations/{generation:03d}/{stage}/model/selfemo.json"
    return parse_description(run.store.get(uri), uri)


def f1s(scores: list[Any]) -> list[tuple[str, float]]:
    return [(score.source, score.weighted_f1) for score in scores]


def test_each_model_has_its_scores_and_those_of_the_baseline() -> None:
    run = run_of()
    for generation in (1, 2, 3):
        described = description(run, generation)
        assert f1s(described.scores) == [("demo", F1S[generation])]
        assert f1s(described.baseline_scores) == [("demo", 0.3)]
        assert described.origin is not None
        assert described.origin.generation == generation
        card = run.store.get(f"{run.run_uri}/generations/{generation:03d}/train/model/README.md")
        assert f"{F1S[generation]:.3f}" in card.decode()


def test_the_baseline_has_no_gain_over_itself() -> None:
    run = run_of(spec={"warmStart": {"steps": 100}})
    described = description(run, 0, "warmstart")
    assert f1s(described.scores) == [("demo", 0.3)]
    assert described.baseline_scores == []


def test_a_base_model_is_left_alone() -> None:
    run = run_of()
    assert isinstance(run.store, MemoryStore)
    assert not [uri for uri in run.store.objects if not uri.startswith(run.run_uri)]
    (config,) = (c for c in run.configs if c.stage is Stage.PUBLISH and c.generation == 0)
    for place in ("s3://bucket/runs/models/base", f"{run.run_uri}/generations/002/train/model"):
        run.store.writes_left = 0
        add_scores(context_of(config.model_copy(update={"policy_uri": place}), run.store))
    other = "s3://bucket/runs/default/other-01234567/generations/000/warmstart/model"
    add_scores(context_of(config.model_copy(update={"policy_uri": other}), run.store))


@pytest.mark.parametrize("stage", [Stage.SELF_PLAY, Stage.EVALUATE])
def test_a_collapsed_generation(stage: Stage) -> None:
    run = run_of(collapses=frozenset({(2, stage)}))
    assert run.status.phase == "Collapsed"
    assert f1s(description(run, 1).scores) == [("demo", 0.4)]
    if stage is Stage.EVALUATE:
        assert f1s(description(run, 2).scores) == [("demo", 0.35)]
    else:
        assert 2 not in run.models()


def test_it_writes_once_and_may_be_killed_at_each_write() -> None:
    run = run_of()
    store = run.store
    assert isinstance(store, MemoryStore)
    expected = dict(store.objects)
    (config,) = (c for c in run.configs if c.stage is Stage.PUBLISH and c.generation == 3)
    store.writes_left = 0
    add_scores(context_of(config, store))
    before = description(run, 3).model_copy(update={"scores": [], "baseline_scores": []})
    from selfemo_jobs.models.stage_models import put_description

    for writes in (0, 1):
        store.writes_left = None
        put_description(store, config.policy_uri, before)
        store.writes_left = writes
        with pytest.raises(Killed):
            add_scores(context_of(config, store))
        store.writes_left = None
        add_scores(context_of(config, store))
        assert store.objects == expected


def test_a_removed_model_is_not_made_again() -> None:
    run = run_of(spec={"storage": {"keep": "Best"}})
    (config,) = (c for c in run.configs if c.stage is Stage.PUBLISH and c.generation == 2)
    add_scores(context_of(config, run.store))
    assert list(run.models()) == [3]
    assert run.store.list(join(run.run_uri, "generations/002/train/model")) == []
