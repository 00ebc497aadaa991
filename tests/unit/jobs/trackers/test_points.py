"""Manifests become points: names, steps, and rows that never change."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.contract import GenerationOutcome, RunOutcomes
from selfemo_api.results import ExpressionChange, ExpressionScore, SourceScore
from selfemo_api.spec import EvolutionSpec, Tracker
from selfemo_api.stages import Stage
from selfemo_api.status import Best, Outcome
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.runtime.step_curve import STEP_CURVE
from selfemo_jobs.trackers.points import (
    Axis,
    TrackedGeneration,
    TrackedPoint,
    generation_points,
    rows_of,
    training_steps,
)
from selfemo_jobs.trackers.settings import flat_settings, run_tags


def manifest(stage: Stage, generation: int = 1, **fields: Any) -> Manifest:
    fields = {"seed": 1, "config_sha256": "", "config": {}, **fields}
    return Manifest(run="default/demo-00000000", stage=stage, generation=generation, **fields)


def by_name(points: list[TrackedPoint]) -> dict[str, TrackedPoint]:
    assert len({p.name for p in points}) == len(points)
    return {p.name: p for p in points}


def score(**fields: Any) -> SourceScore:
    shares = {"unparsable": 0.0, "label_entropy": 0.9, "accuracy": 0.4, "macro_f1": 0.3}
    return SourceScore(
        source="dev", utterances=7, weighted_f1=0.5, strict_weighted_f1=0.5, **shares, **fields
    )


def test_a_figure_is_named_by_its_stage_and_metric() -> None:
    selfplay = manifest(Stage.SELF_PLAY, 4, metrics={"tokens": 12.0})
    flywheel = manifest(Stage.FLYWHEEL, 4, metrics={"dropped:balance": 3.0})
    outcome = GenerationOutcome(
        generation=4, outcome=Outcome.PROMOTED, f1=0.5, model_uri="file:///m"
    )
    points = generation_points(
        [selfplay, flywheel], seconds={Stage.FLYWHEEL: 1.5}, labels=[], outcome=outcome
    )
    assert {p.name: (p.step, p.value) for p in points} == {
        "selfplay/tokens": (4, 12.0),
        "flywheel/dropped/balance": (4, 3.0),
        "flywheel/seconds": (4, 1.5),
        "outcome/promoted": (4, 1.0),
        "outcome/f1": (4, 0.5),
    }


def test_each_source_has_its_scores_and_each_label_its_f1() -> None:
    evaluate = manifest(Stage.EVALUATE, scores=[score(f1_by_label=[0.25, 0.75], jaccard=0.6)])
    points = by_name(generation_points([evaluate], seconds={}, labels=["开心", "joy & pride"]))
    assert points["evaluate/dev/weightedF1"].value == 0.5
    assert points["evaluate/dev/jaccard"].value == 0.6
    assert points["evaluate/dev/f1/开心"].value == 0.25
    assert points["evaluate/dev/f1/joy _ pride"].value == 0.75
    assert "evaluate/dev/microF1" not in points


def test_expression_has_its_figures_changes_and_emotions() -> None:
    figures = {"as_intended": 0.4, "consistency": 0.6, "diversity": 0.7, "words": 9.5}
    expression = ExpressionScore(
        source="dev",
        responses=14,
        dialogues=2,
        named=0.1,
        well_formed=1.0,
        as_intended_by_label=[0.25, 0.55],
        over_baseline=ExpressionChange(generation=0, change=0.05, low=-0.1, high=0.2),
        **figures,
    )
    evaluate = manifest(Stage.EVALUATE, scores=[score()], expression=expression)
    points = by_name(generation_points([evaluate], seconds={}, labels=["joy", "fear"]))
    assert points["evaluate/expression/asIntended"].value == 0.4
    assert points["evaluate/expression/emotion/fear"].value == 0.55
    assert points["evaluate/expression/overBaseline"].value == 0.05
    assert "evaluate/expression/overBest" not in points
    assert "evaluate/expression/human" not in points


def test_the_steps_of_all_trainings_are_counted_together() -> None:
    curve = {"step": [5, 10], "loss": [0.5, 0.25]}
    train = manifest(Stage.TRAIN, metrics={"steps": 10.0}, report={STEP_CURVE: curve})
    assert training_steps([manifest(Stage.SELF_PLAY), train]) == 10
    points = generation_points([train], seconds={}, labels=[], earlier_steps=30)
    assert points == generation_points([train], seconds={}, labels=[], earlier_steps=30)
    steps = [(p.name, p.step, p.value) for p in points if p.axis is Axis.TRAIN_STEP]
    assert steps == [("train-steps/loss", 35, 0.5), ("train-steps/loss", 40, 0.25)]


def test_the_warm_start_has_a_curve_of_its_evaluations() -> None:
    evaluations = [
        {"step": 0, "weightedF1": 0.1, "loss": None},
        {"step": 40, "weightedF1": 0.3, "loss": 2.0},
    ]
    stage = manifest(Stage.WARM_START, 0, report={"evaluations": evaluations})
    points = generation_points([stage], seconds={}, labels=[])
    assert [(p.name, p.step, p.value, p.axis) for p in points] == [
        ("warmstart-steps/weightedF1", 0, 0.1, Axis.WARM_START_STEP),
        ("warmstart-steps/loss", 40, 2.0, Axis.WARM_START_STEP),
        ("warmstart-steps/weightedF1", 40, 0.3, Axis.WARM_START_STEP),
    ]


POINTS = st.builds(
    TrackedPoint,
    name=st.sampled_from(["score/rewardMean", "train/loss"]),
    step=st.just(1),
    value=st.floats(-1, 1),
)
CURVE = st.builds(
    TrackedPoint,
    name=st.just("train-steps/loss"),
    step=st.integers(1, 5),
    value=st.floats(-1, 1),
    axis=st.just(Axis.TRAIN_STEP),
)
GENERATIONS = st.lists(st.lists(POINTS | CURVE, max_size=8), max_size=5).map(
    lambda lists: [
        TrackedGeneration(generation=n, time=0.0, points=points) for n, points in enumerate(lists)
    ]
)


@given(GENERATIONS)
def test_the_rows_of_a_generation_stay_when_the_run_goes_on(
    generations: list[TrackedGeneration],
) -> None:
    rows = rows_of(generations)
    assert [row.number for row in rows] == list(range(len(rows)))
    for count in range(len(generations)):
        earlier = rows_of(generations[:count])
        assert rows[: len(earlier)] == earlier
    for generation in generations:
        values = {
            (name, row.values.get(str(axis)))
            for row in rows
            if row.generation == generation.generation
            for axis in Axis
            if str(axis) in row.values
            for name in row.values
            if "/" in name
        }
        assert values == {(p.name, float(p.step)) for p in generation.points}


def test_no_secret_and_no_pod_is_among_the_settings(make_spec: Any) -> None:
    template = {"template": {"env": [{"name": "WANDB_API_KEY", "value": "hunter2"}]}}
    spec: EvolutionSpec = make_spec(
        podTemplate=[template],
        storage={"credentialsSecretRef": {"name": "s3-keys"}},
        trackers=[Tracker.MLFLOW],
    )
    settings = flat_settings(spec)
    assert "hunter2" not in str(settings)
    assert "s3-keys" not in str(settings)
    assert settings["dataset.sources.dev.use"] == "Evaluation"
    assert settings["trackers"] == '["MLflow"]'
    assert settings["selfPlay.groupSize"] == 4
    assert settings["dataset.labels"].startswith('["neutral", ')  # type: ignore[union-attr]


def test_labels_with_signs_are_not_part_of_a_name(make_spec: Any) -> None:
    """MLflow refuses a run that has one parameter with such a name."""
    spec = make_spec(dataset={"labelMap": {"joy & pride": "joy", "don't know": ""}})
    settings = flat_settings(spec)
    assert settings["dataset.labelMap"] == json.dumps(dict(spec.dataset.label_map))
    assert [name for name in settings if not re.fullmatch(r"[\w./ -]+", name)] == []


def test_labels_that_are_alike_have_names_of_their_own() -> None:
    labels = ["joy", "joy/pride", "joy & pride", "joy + pride"]
    evaluate = manifest(Stage.EVALUATE, scores=[score(f1_by_label=[0.1, 0.2, 0.3, 0.4])])
    points = generation_points([evaluate], seconds={}, labels=labels)
    values = {p.name: p.value for p in points if "/f1/" in p.name}
    assert values == {
        "evaluate/dev/f1/joy": 0.1,
        "evaluate/dev/f1/joy_pride": 0.2,
        "evaluate/dev/f1/joy _ pride": 0.3,
        "evaluate/dev/f1/joy _ pride-2": 0.4,
    }


@pytest.mark.parametrize("known", [True, False])
def test_tags_name_the_recipe_and_the_best_model(make_spec: Any, known: bool) -> None:
    outcomes = RunOutcomes(
        best=Best(generation=2, f1=0.5, model_uri="file:///best"),
        generations=[],
        baseline_uri="file:///base",
        next_policy_uri="file:///best",
        changes=["seed=7", "model.uri=x"],
    )
    tags = run_tags(
        make_spec(), "default/demo-0", "file:///s/default/demo-0", outcomes if known else None
    )
    assert tags["selfemo.run"] == "default/demo-0"
    assert tags.get("selfemo.best.model") == ("file:///best" if known else None)
    assert tags.get("selfemo.changes") == ("seed=7\nmodel.uri=x" if known else None)
