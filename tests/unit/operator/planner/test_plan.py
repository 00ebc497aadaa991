"""Each rule of the planner by example."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import (
    BROKEN,
    LABEL_PRIOR,
    SOURCES,
    WHOLE,
    World,
    decide,
    merged,
    result_of,
    score_of,
    spec_of,
)

from selfemo_api.contract import Earlier
from selfemo_api.evolution import NAME_MAX
from selfemo_api.results import ExpressionChange, ExpressionScore
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, job_name
from selfemo_api.status import ConditionStatus, ConditionType, Outcome, Phase
from selfemo_operator.planner.stage_config import stage_config
from selfemo_operator.planner.types import CreateJob, DeleteEvolution, DeleteJob, JobState

LATER_STAGES = (
    *(Stage.SELF_PLAY, Stage.SCORE, Stage.FLYWHEEL, Stage.TRAIN),
    *(Stage.EVALUATE, Stage.PUBLISH),
)


def world_of(f1s: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7), **changes: Any) -> World:
    return World(spec=spec_of(**changes), f1s=f1s)


def to_stage(world: World, generation: int, stage: Stage) -> str:
    """Go on until a stage's Job runs, and return the Job's name."""
    for _ in range(200):
        world.reconcile()
        job = world.current
        if job is None:
            continue
        if (job.generation, job.stage) == (generation, stage):
            world.set_job(job.name, JobState.RUNNING)
            return job.name
        if job.state in (JobState.PENDING, JobState.RUNNING):
            world.succeed(job.name)
    raise AssertionError(f"never came to {stage}: {world.status.to_json()}")


def outcomes(world: World) -> list[Outcome]:
    return [entry.outcome for entry in world.status.history]


# The order of things ----------------------------------------------------------------------------


def test_runs_each_stage_once_in_order() -> None:
    world = world_of(stopping={"maxGenerations": 2})
    world.settle()
    expected = [(0, Stage.CHECK), (0, Stage.EVALUATE), (0, Stage.PUBLISH)]
    expected += [(g, s) for g in (1, 2) for s in LATER_STAGES]
    assert world.started == expected
    assert world.summary == "MaxGenerationsReached"
    assert world.status.phase is Phase.SUCCEEDED


def test_a_warm_start_makes_the_model_of_generation_0() -> None:
    world = world_of(warmStart={"steps": 100}, stopping={"maxGenerations": 2})
    to_stage(world, 0, Stage.EVALUATE)
    assert world.started == [(0, Stage.CHECK), (0, Stage.WARM_START), (0, Stage.EVALUATE)]
    warm_start = world.manifests[(0, Stage.WARM_START)]
    config = stage_config(world.evolution, world.status, world.spec, Stage.EVALUATE)
    assert config.parents == {"warmstart": warm_start.manifest}
    assert config.policy_uri == warm_start.model_uri
    to_stage(world, 1, Stage.SELF_PLAY)
    status, current = world.status, world.status.current
    assert status.best is not None
    assert current is not None
    assert status.baseline_uri == status.best.model_uri == warm_start.model_uri
    assert status.history[0].model_uri == warm_start.model_uri
    assert list(status.history[0].stage_seconds) == ["Check", "WarmStart", "Evaluate"]
    assert current.policy_uri == current.judge_uri == warm_start.model_uri
    world.settle()
    assert world.started[3] == (0, Stage.PUBLISH)
    assert world.started[4:] == [(g, s) for g in (1, 2) for s in LATER_STAGES]


def test_the_model_of_the_spec_is_the_baseline_without_a_warm_start() -> None:
    world = world_of()
    to_stage(world, 1, Stage.SELF_PLAY)
    assert world.status.baseline_uri == "file:///model"


def test_the_warm_start_is_the_baseline_of_later_generations() -> None:
    """The frozen judge, and the weights that each training starts from."""
    world = world_of(
        (0.3, 0.5, 0.6),
        warmStart={"steps": 100},
        reward={"judge": {"model": "Baseline"}},
        training={"start": "Baseline"},
    )
    to_stage(world, 2, Stage.TRAIN)
    made = world.manifests[(0, Stage.WARM_START)].model_uri
    config = stage_config(world.evolution, world.status, world.spec, Stage.TRAIN)
    assert config.policy_uri == config.judge_uri == made


@pytest.mark.parametrize("model", [{}, {"resumeFrom": "file:///other/train/manifest.json"}])
def test_training_may_start_from_the_model_before_the_warm_start(model: dict[str, str]) -> None:
    steps = 0 if model else 100
    start = {"warmStart": {"steps": steps}, "training": {"start": "Model"}}
    world = world_of((0.3, 0.5, 0.6), model={"uri": "file:///base", **model}, **start)
    to_stage(world, 2, Stage.TRAIN)
    config = stage_config(world.evolution, world.status, world.spec, Stage.TRAIN)
    assert config.policy_uri == "file:///base"
    assert config.judge_uri != config.policy_uri


def test_an_evaluation_gets_what_expression_is_compared_with() -> None:
    world = world_of((0.3, 0.5, 0.4), stopping={"maxGenerations": 3}, warmStart={"steps": 100})
    to_stage(world, 0, Stage.EVALUATE)
    first = stage_config(world.evolution, world.status, world.spec, Stage.EVALUATE)
    assert (first.baseline_uri, first.earlier_evaluations) == (None, {})
    folder = first.output.replace("/000/", "/{:03d}/") + "/manifest.json"
    made = world.manifests[(0, Stage.WARM_START)].model_uri
    for generation, best in ((1, None), (2, 1), (3, 1)):
        to_stage(world, generation, Stage.EVALUATE)
        config = stage_config(world.evolution, world.status, world.spec, Stage.EVALUATE)
        assert config.baseline_uri == made
        manifests = {Earlier.BASELINE: folder.format(0)}
        if best is not None:
            manifests[Earlier.BEST] = folder.format(best)
        assert config.earlier_evaluations == manifests
        other = stage_config(world.evolution, world.status, world.spec, Stage.TRAIN)
        assert (other.baseline_uri, other.earlier_evaluations) == (None, {})


def test_the_expression_of_an_evaluation_is_recorded() -> None:
    world = world_of()
    name = to_stage(world, 1, Stage.EVALUATE)
    expression = ExpressionScore(
        source="demo",
        responses=14,
        dialogues=2,
        as_intended=0.3,
        consistency=0.6,
        diversity=0.7,
        words=9.0,
        named=0.1,
        well_formed=1.0,
        over_baseline=ExpressionChange(generation=0, change=0.1),
    )
    result = world.work(name).model_copy(update={"expression": expression})
    world.set_job(name, JobState.SUCCEEDED, result=result)
    world.settle()
    records = {record.generation: record for record in world.status.history}
    assert records[1].expression == expression
    assert records[0].expression is None


def test_an_edit_can_take_the_warm_start_out_and_put_it_back() -> None:
    world = world_of(warmStart={"steps": 100})
    world.fail(to_stage(world, 0, Stage.WARM_START), 2)
    world.settle()
    world.edit(warmStart={"steps": 0})
    world.fail(to_stage(world, 0, Stage.EVALUATE), 2)
    world.settle()
    world.edit(warmStart={"steps": 50})
    assert to_stage(world, 0, Stage.WARM_START) == "demo-g000-warmstart-2"
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.status.baseline_uri == world.manifests[(0, Stage.WARM_START)].model_uri


def test_the_label_prior_of_the_check_is_pinned() -> None:
    world = world_of(flywheel={"useLabelPrior": True})
    world.label_prior = LABEL_PRIOR
    world.reconcile()
    assert _pinned(world).dataset.label_prior is None
    to_stage(world, 0, Stage.EVALUATE)
    assert world.status.label_prior == LABEL_PRIOR
    assert _pinned(world).dataset.label_prior == LABEL_PRIOR
    to_stage(world, 2, Stage.SCORE)
    world.succeed(world.current.name)  # type: ignore[union-attr]
    action = decide(world.evolution, world.observed, world.now).action
    assert isinstance(action, CreateJob)
    assert action.config.spec.flywheel_label_prior == LABEL_PRIOR
    assert _pinned(world).evaluation_label_prior is None


def test_a_label_prior_of_the_spec_counts_more_than_that_of_the_check() -> None:
    own = dict.fromkeys(LABEL_PRIOR, 1 / 7)
    world = world_of(dataset={"labelPrior": own}, flywheel={"useLabelPrior": True})
    world.label_prior = LABEL_PRIOR
    to_stage(world, 1, Stage.FLYWHEEL)
    assert world.status.label_prior == LABEL_PRIOR
    assert _pinned(world).flywheel_label_prior == own


def test_the_status_names_what_differs_from_the_recipe() -> None:
    world = world_of(training={"epochs": 3}, stopping={"maxGenerations": 2})
    world.reconcile()
    current = world.status.current
    assert current is not None
    assert current.changes == ["stopping.maxGenerations=2", "training.epochs=3"]
    world.edit(training={"epochs": 1}, reward={"judge": {"views": [{"past": 1}]}})
    to_stage(world, 1, Stage.SELF_PLAY)
    current = world.status.current
    assert current is not None
    assert current.changes == [
        'reward.judge.views=[{"past": 1, "future": 0}]',
        "stopping.maxGenerations=2",
    ]


def test_stage_reads_its_parents_manifest_and_evaluates_the_model_made() -> None:
    world = world_of()
    to_stage(world, 1, Stage.TRAIN)
    made = world.manifests
    world.succeed(world.current.name)  # type: ignore[union-attr]
    decision = decide(world.evolution, world.observed, world.now)
    assert isinstance(decision.action, CreateJob)
    config = decision.action.config
    assert config.parents == {"train": made[(1, Stage.TRAIN)].manifest}
    assert config.policy_uri == made[(1, Stage.TRAIN)].model_uri
    assert config.output == "s3://bucket/runs/default/demo-01234567/generations/001/evaluate"
    assert config.baseline is not None
    assert config.baseline.weighted_f1 == 0.3


def test_every_attempt_is_told_the_same() -> None:
    world = world_of()
    name = to_stage(world, 1, Stage.SCORE)
    first = decide(world.evolution, replace(world.observed, jobs=()), world.now).action
    world.fail(name, 1)
    world.reconcile()
    world.wait(600)
    second = decide(world.evolution, world.observed, world.now).action
    assert isinstance(first, CreateJob)
    assert isinstance(second, CreateJob)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.config == second.config


def test_name_fits_with_the_longest_parts() -> None:
    name = job_name("n" * NAME_MAX, 999, Stage.SELF_PLAY, 9999)
    assert len(f"{name}-1023") <= 63


# Promotion, and which model comes next ----------------------------------------------------------


def test_worse_generation_is_rolled_back() -> None:
    world = world_of((0.3, 0.5, 0.4, 0.6))
    to_stage(world, 3, Stage.SELF_PLAY)
    assert outcomes(world) == [Outcome.BASELINE, Outcome.PROMOTED, Outcome.ROLLED_BACK]
    best, current = world.status.best, world.status.current
    assert best is not None
    assert current is not None
    assert (best.generation, best.f1) == (1, 0.5)
    assert current.policy_uri == best.model_uri == world.manifests[(1, Stage.TRAIN)].model_uri


def test_worse_generation_is_built_upon_where_asked() -> None:
    world = world_of((0.3, 0.5, 0.4, 0.6), promotion={"onRegression": "Continue"})
    to_stage(world, 3, Stage.SELF_PLAY)
    assert outcomes(world)[-1] is Outcome.CONTINUED
    current = world.status.current
    assert current is not None
    assert current.policy_uri == world.manifests[(2, Stage.TRAIN)].model_uri
    assert current.judge_uri == world.manifests[(1, Stage.TRAIN)].model_uri


@pytest.mark.parametrize(
    ("before", "after", "generation"),
    [
        ("RollBack", "Continue", 1),
        ("Stop", "Continue", 1),
        ("Continue", "RollBack", 1),
        ("Continue", "Continue", 2),
    ],
)
def test_what_was_rolled_back_stays_rolled_back(before: str, after: str, generation: int) -> None:
    """Publish may have removed its model (`storage.keep`)."""
    world = world_of((0.3, 0.5, 0.4, 0.6), promotion={"onRegression": before})
    if before == "Stop":
        world.settle()
        assert world.summary == "Regressed"
    else:
        to_stage(world, 2, Stage.PUBLISH)
    world.edit(promotion={"onRegression": after})
    to_stage(world, 3, Stage.SELF_PLAY)
    current = world.status.current
    assert current is not None
    assert current.policy_uri == world.manifests[(generation, Stage.TRAIN)].model_uri


@pytest.mark.parametrize(("delta", "best"), [(0.0, 1), (0.05, 0)])
def test_min_delta(delta: float, best: int) -> None:
    world = world_of((0.3, 0.35), stopping={"maxGenerations": 1}, promotion={"minDelta": delta})
    world.settle()
    assert world.status.best is not None
    assert world.status.best.generation == best


@pytest.mark.parametrize(("judge", "stage_of"), [("Baseline", None), ("Best", 1)])
def test_judge(judge: str, stage_of: int | None) -> None:
    world = world_of((0.3, 0.5, 0.4, 0.6), reward={"judge": {"model": judge}})
    for generation in (2, 3):
        to_stage(world, generation, Stage.SELF_PLAY)
        current = world.status.current
        assert current is not None
        made = world.manifests[(1, Stage.TRAIN)].model_uri
        assert current.judge_uri == (made if stage_of else "file:///model")


def test_training_can_start_from_the_baseline() -> None:
    world = world_of((0.3, 0.5, 0.6), training={"start": "Baseline"})
    to_stage(world, 2, Stage.TRAIN)
    config = stage_config(world.evolution, world.status, world.spec, Stage.TRAIN)
    made = world.manifests[(1, Stage.TRAIN)].model_uri
    assert config.policy_uri == "file:///model"
    config = stage_config(world.evolution, world.status, world.spec, Stage.SELF_PLAY)
    assert config.policy_uri == made


def test_a_policy_that_grades_itself() -> None:
    """Also where a worse generation plays on: the judge follows it, not the best."""
    world = world_of(
        (0.3, 0.5, 0.4, 0.6),
        reward={"judge": {"model": "Policy"}},
        promotion={"onRegression": "Continue"},
    )
    to_stage(world, 3, Stage.SELF_PLAY)
    current = world.status.current
    assert current is not None
    assert current.judge_uri == world.manifests[(2, Stage.TRAIN)].model_uri
    assert current.policy_uri == current.judge_uri


def test_the_selection_dataset_decides() -> None:
    sources = [
        {"name": n, "uri": f"file:///{n}.csv", "format": "MELD", "use": "Evaluation"}
        for n in ("first", "second")
    ]
    world = world_of(
        dataset={"sources": [SOURCES[0], *sources]}, evaluation={"selectionDataset": "second"}
    )
    name = to_stage(world, 0, Stage.EVALUATE)
    scores = [score_of(0.9, source="first"), score_of(0.2, source="second")]
    result = result_of(0, Stage.EVALUATE, scores=scores)
    world.set_job(name, JobState.SUCCEEDED, result=result)
    status = decide(world.evolution, world.observed, world.now).status
    assert status.best is not None
    assert status.best.f1 == status.f1 == 0.2


def test_starts_from_another_run() -> None:
    manifest = "s3://bucket/other/generations/003/evaluate/manifest.json"
    world = world_of(model={"resumeFrom": manifest}, reward={"judge": {"model": "Baseline"}})
    to_stage(world, 2, Stage.SELF_PLAY)
    current = world.status.current
    assert current is not None
    assert current.judge_uri == manifest
    assert world.status.history[0].model_uri == manifest


# Ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f1s", "policy", "reason", "generation"),
    [
        ((0.3, 0.4, 0.5), {"goal": 0.4}, "GoalReached", 1),
        ((0.3,), {"goal": 0.3}, "GoalReached", 0),
        ((0.3, 0.4, 0.5), {"maxGenerations": 2}, "MaxGenerationsReached", 2),
        ((0.3, 0.4, 0.4, 0.4), {"patience": 2}, "Plateaued", 3),
        ((0.3, 0.2, 0.4, 0.1, 0.2), {"patience": 2}, "Plateaued", 4),
    ],
)
def test_good_ends(
    f1s: tuple[float, ...], policy: dict[str, Any], reason: str, generation: int
) -> None:
    world = world_of(f1s, stopping={"maxGenerations": 9, **policy})
    world.settle()
    assert (world.summary, world.status.generation) == (reason, generation)
    assert world.status.phase is Phase.SUCCEEDED


def test_a_regression_can_be_the_end() -> None:
    world = world_of(
        (0.3, 0.4, 0.2), stopping={"maxGenerations": 9}, promotion={"onRegression": "Stop"}
    )
    world.settle()
    assert (world.summary, world.status.generation) == ("Regressed", 2)
    assert world.status.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("stage", [Stage.SELF_PLAY, Stage.SCORE, Stage.EVALUATE])
def test_collapse_ends_with_the_best_kept(stage: Stage) -> None:
    world = world_of()
    world.collapses = frozenset({(2, stage)})
    world.settle()
    status = world.status
    assert (world.summary, status.phase, status.generation) == ("Collapsed", Phase.COLLAPSED, 2)
    stalled = status.condition(ConditionType.STALLED)
    assert stalled is not None
    assert (stalled.status, stalled.reason) == (ConditionStatus.TRUE, "Collapsed")
    assert "below" in stalled.message or "above" in stalled.message
    assert status.best is not None
    assert status.best.generation == 1
    assert status.history[-1].outcome is Outcome.COLLAPSED
    measured = stage is Stage.EVALUATE
    assert status.history[-1].f1 == (0.5 if measured else None)


def test_generation_0_cannot_collapse() -> None:
    world = world_of(stopping={"maxGenerations": 1})
    world.collapses = frozenset({(0, Stage.EVALUATE)})
    world.settle()
    assert world.summary == "MaxGenerationsReached"


def test_collapse_by_divergence() -> None:
    world = world_of()
    name = to_stage(world, 1, Stage.EVALUATE)
    moved = score_of(0.3, predicted_shares=[1.0, 0, 0, 0, 0, 0, 0])
    world.set_job(name, JobState.SUCCEEDED, result=result_of(1, Stage.EVALUATE, scores=[moved]))
    status = decide(world.evolution, world.observed, world.now).status
    assert (status.stage, status.history[-1].outcome) == (Stage.PUBLISH, Outcome.COLLAPSED)
    assert (
        status.history[-1].message
        == "the divergence from the baseline's labels is 0.689, above 0.3"
    )


@pytest.mark.parametrize(("imitation", "stage"), [(10.0, Stage.FLYWHEEL), (0.0, Stage.PUBLISH)])
def test_unanimous_groups_end_the_run_unless_they_are_imitated(
    imitation: float, stage: Stage
) -> None:
    world = world_of(training={"imitation": imitation})
    name = to_stage(world, 1, Stage.SCORE)
    metrics = {"zeroVarianceShare": 0.995, "zeroVarianceShareRecognizer": 0.995}
    world.set_job(name, JobState.SUCCEEDED, result=result_of(1, Stage.SCORE, metrics=metrics))
    assert decide(world.evolution, world.observed, world.now).status.stage is stage


@pytest.mark.parametrize(
    ("min_delta", "outcome"), [(0.0, Outcome.PROMOTED), (0.1, Outcome.COLLAPSED)]
)
def test_a_better_generation_with_other_labels_is_promoted(
    min_delta: float, outcome: Outcome
) -> None:
    world = world_of(promotion={"minDelta": min_delta})
    name = to_stage(world, 1, Stage.EVALUATE)
    moved = score_of(0.4, predicted_shares=[1.0, 0, 0, 0, 0, 0, 0])
    world.set_job(name, JobState.SUCCEEDED, result=result_of(1, Stage.EVALUATE, scores=[moved]))
    status = decide(world.evolution, world.observed, world.now).status
    assert status.history[-1].outcome is outcome
    assert status.best is not None
    assert status.best.generation == (1 if outcome is Outcome.PROMOTED else 0)


# Publish ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("collapses", [frozenset(), frozenset({(2, Stage.SCORE)})])
def test_a_publish_that_fails_loses_nothing_and_is_repeated_after_an_edit(
    collapses: frozenset[tuple[int, Stage]],
) -> None:
    world = world_of((0.3, 0.5, 0.6), stopping={"maxGenerations": 2})
    world.collapses = collapses
    world.fail(to_stage(world, 2, Stage.PUBLISH), 2)
    world.settle()
    assert (world.summary, world.status.phase) == ("BadInput", Phase.FAILED)
    before = world.status
    assert before.best is not None
    assert before.history[-1].generation == 2
    started = list(world.started)
    world.wait(60)
    world.edit(publish="file:///elsewhere")
    world.settle()
    assert world.started[len(started) :] == [(2, Stage.PUBLISH)]
    assert world.status.history == before.history
    assert world.status.best == before.best
    assert world.summary == ("Collapsed" if collapses else "MaxGenerationsReached")


def test_publish_learns_the_outcomes_and_what_the_next_generation_starts_from() -> None:
    world = world_of((0.3, 0.5, 0.4), promotion={"onRegression": "Continue"})
    to_stage(world, 2, Stage.PUBLISH)
    config = stage_config(world.evolution, world.status, world.spec, Stage.PUBLISH)
    known = config.outcomes
    assert known is not None
    assert [(o.generation, o.outcome.value) for o in known.generations] == [
        (0, "Baseline"),
        (1, "Promoted"),
        (2, "Continued"),
    ]
    assert known.best.generation == 1
    assert known.next_policy_uri == known.generations[-1].model_uri == config.policy_uri
    assert known.baseline_uri == world.spec.baseline_uri
    assert set(config.parents) == {"train", "evaluate"}


# Failures ---------------------------------------------------------------------------------------


def test_bad_input_is_not_tried_again() -> None:
    world = world_of()
    world.fail(to_stage(world, 0, Stage.EVALUATE), 2)
    world.settle()
    assert (world.summary, world.started) == (
        "BadInput",
        [(0, Stage.CHECK), (0, Stage.EVALUATE)],
    )
    condition = world.status.condition(ConditionType.SUCCEEDED)
    assert condition is not None
    assert condition.message == "generation 0, Evaluate: it broke"


@pytest.mark.parametrize(
    ("code", "disrupted", "waits"),
    [
        (1, False, [10, 20]),
        (137, False, [10, 20]),
        (None, False, [10, 20]),
        (75, False, [10, 20, 40, 80]),
        (143, False, [10, 20, 40, 80]),
        (137, True, [0, 0, 0, 0]),
    ],
)
def test_back_off(code: int | None, disrupted: bool, waits: list[int]) -> None:
    world = world_of(failurePolicy={"maxAttempts": 3, "maxDisruptions": 4})
    seen = []
    for attempt in range(1, 20):
        name = to_stage(world, 0, Stage.EVALUATE)
        assert name == f"demo-g000-evaluate-{attempt}"
        world.fail(name, code, disrupted=disrupted)
        decision = world.reconcile()
        if world.status.finished:
            break
        assert decision.action is None
        after = world.status.retry_after
        assert after is not None
        assert decision.requeue_at == after
        seen.append((after - world.now).total_seconds())
        if seen[-1]:
            assert world.reconcile().action is None, "it waits"
        world.now = after
    assert seen == waits
    assert world.summary == "StageFailed"


def test_a_rejected_pod_backs_off() -> None:
    """The next one may come to the same node, and 20 disruptions would be over in a minute."""
    world = world_of(failurePolicy={"maxAttempts": 1, "maxDisruptions": 3})
    waits = []
    for _ in range(3):
        world.fail(to_stage(world, 0, Stage.EVALUATE), None, disrupted=True, rejected=True)
        world.reconcile()
        assert world.status.retry_after is not None
        waits.append((world.status.retry_after - world.now).total_seconds())
        world.now = world.status.retry_after
    assert waits == [10, 20, 40]
    assert (world.status.failures, world.status.disruptions) == (0, 3)


def test_back_off_is_bounded() -> None:
    world = world_of(failurePolicy={"maxAttempts": 100, "backoffSeconds": 86_400})
    world.fail(to_stage(world, 0, Stage.EVALUATE), 1)
    decision = world.reconcile()
    assert decision.requeue_at == world.now + timedelta(minutes=10)


def test_a_recorded_result_clears_the_count() -> None:
    world = world_of()
    world.fail(to_stage(world, 0, Stage.EVALUATE), 1)
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert (world.status.failures, world.status.disruptions) == (0, 0)


def test_a_clock_put_back_does_not_hold_a_retry() -> None:
    world = world_of()
    world.fail(to_stage(world, 0, Stage.EVALUATE), 1)
    world.reconcile()
    world.wait(-86_400)
    assert isinstance(world.reconcile().action, CreateJob)


def test_lost_result_is_read_again_from_the_manifest() -> None:
    world = world_of()
    world.succeed(to_stage(world, 1, Stage.SCORE), lost=True)
    world.reconcile()
    assert (world.status.stage, world.status.attempt) == (Stage.SCORE, 2)
    assert (world.status.failures, world.status.disruptions) == (0, 1)
    to_stage(world, 1, Stage.FLYWHEEL)
    result = world.status.result(Stage.SCORE)
    assert result is not None
    assert result.reused


def test_a_job_that_was_never_seen_is_created_under_its_name() -> None:
    """The response to its creation was lost, or the operator did not run."""
    world = world_of()
    name = to_stage(world, 1, Stage.TRAIN)
    world.vanish(name, noticed=False)
    action = world.reconcile().action
    assert isinstance(action, CreateJob)
    assert action.name == name
    assert world.status.disruptions == 0


RESULTS_OF_OTHERS = [
    (Stage.SCORE, {"stage": Stage.FLYWHEEL}, "it returned a result for generation 1, Flywheel"),
    (Stage.SCORE, {"generation": 3}, "it returned a result for generation 3, Score"),
    (Stage.TRAIN, {"model_uri": None}, "its result names no model"),
    (
        Stage.SCORE,
        {"label_shares": [0.5, 0.5]},
        "its result contains 2 label frequencies for 7 labels",
    ),
    (
        Stage.EVALUATE,
        {"scores": [score_of(0.5, source="x")]},
        "its result contains no score for demo",
    ),
]


def test_a_warm_start_without_a_model_is_a_failure() -> None:
    world = world_of(failurePolicy={"maxAttempts": 1}, warmStart={"steps": 100})
    name = to_stage(world, 0, Stage.WARM_START)
    world.set_job(name, JobState.SUCCEEDED, result=result_of(0, Stage.WARM_START, model_uri=None))
    world.settle()
    assert world.summary == "StageFailed"
    condition = world.status.condition(ConditionType.SUCCEEDED)
    assert condition is not None
    assert condition.message == "generation 0, WarmStart: its result names no model"


@pytest.mark.parametrize(("stage", "changes", "message"), RESULTS_OF_OTHERS)
def test_a_result_that_is_not_an_answer_is_a_failure(
    stage: Stage, changes: dict[str, Any], message: str
) -> None:
    world = world_of(failurePolicy={"maxAttempts": 1})
    name = to_stage(world, 1, stage)
    result = result_of(1, stage).model_copy(update=changes)
    world.set_job(name, JobState.SUCCEEDED, result=result)
    world.reconcile()
    condition = world.status.condition(ConditionType.SUCCEEDED)
    assert condition is not None
    assert condition.reason == "StageFailed"
    assert condition.message == f"generation 1, {stage.value}: {message}"


# Deadlines --------------------------------------------------------------------------------------


def test_stage_deadline() -> None:
    world = world_of(deadlines={"stageActiveSeconds": 100})
    name = to_stage(world, 0, Stage.EVALUATE)
    assert world.reconcile().requeue_at == world.now + timedelta(seconds=100)
    world.wait(99)
    world.reconcile()
    assert not world.status.finished
    world.wait(1)
    decision = world.reconcile()
    assert world.summary == "DeadlineExceeded"
    assert decision.action == DeleteJob(name, "it is not the Job of the current stage")
    world.settle()
    assert not world.active


def test_run_deadline_does_not_count_suspension() -> None:
    world = world_of(deadlines={"runActiveSeconds": 100})
    to_stage(world, 0, Stage.EVALUATE)
    world.edit(suspend=True)
    world.reconcile()
    world.wait(1000)
    world.reconcile()
    assert not world.status.finished
    world.edit(suspend=False)
    world.reconcile()
    world.wait(99)
    world.reconcile()
    assert not world.status.finished
    world.wait(1)
    world.reconcile()
    assert world.summary == "DeadlineExceeded"


def test_a_result_is_recorded_even_past_the_deadline() -> None:
    world = world_of(deadlines={"runActiveSeconds": 100})
    world.succeed(to_stage(world, 0, Stage.EVALUATE))
    world.wait(1000)
    world.reconcile()
    assert world.summary == "DeadlineExceeded"
    assert world.status.best is not None


def test_pending_too_long_says_why() -> None:
    world = world_of()
    world.reconcile()
    (job,) = world.active
    world.set_job(job.name, JobState.PENDING, waiting="ErrImagePull: no such image " * 200)
    world.wait(1799)
    world.reconcile()
    progressing = world.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert (progressing.reason, len(progressing.message)) == ("Waiting", 2048)
    world.wait(1)
    world.reconcile()
    assert world.summary == "PendingTooLong"


def test_waiting_in_a_queue_has_no_deadline() -> None:
    world = world_of(queue={"name": "gpus"})
    world.reconcile()
    (job,) = world.active
    world.set_job(job.name, JobState.QUEUED)
    world.wait(1_000_000)
    decision = world.reconcile()
    assert (world.status.phase, decision.action, decision.requeue_at) == (Phase.QUEUED, None, None)


def test_time_in_a_queue_is_not_time_without_progress() -> None:
    world = world_of(queue={"name": "gpus"})
    world.reconcile()
    (job,) = world.active
    world.set_job(job.name, JobState.QUEUED)
    world.reconcile()
    world.wait(8 * 3600)
    world.set_job(job.name, JobState.RUNNING)
    world.reconcile()
    assert world.status.phase is Phase.RUNNING
    assert world.status.last_progress_time == world.now  # of the first stage, too
    world.wait(3600)
    world.reconcile()
    assert world.status.last_progress_time == world.now - timedelta(hours=1)


# Suspension -------------------------------------------------------------------------------------


def test_a_suspension_is_not_time_without_progress() -> None:
    world = world_of()
    name = to_stage(world, 1, Stage.TRAIN)
    world.reconcile()
    world.edit(suspend=True)
    world.reconcile()
    world.wait(3 * 86_400)
    world.edit(suspend=False)
    world.reconcile()
    world.set_job(name, JobState.RUNNING)
    world.reconcile()
    assert world.status.phase is Phase.RUNNING
    assert world.status.last_progress_time == world.now


def test_suspend_and_resume_keep_the_job() -> None:
    world = world_of()
    name = to_stage(world, 1, Stage.TRAIN)
    world.edit(suspend=True)
    world.reconcile()
    assert world.jobs[name].state is JobState.SUSPENDED
    assert world.status.phase is Phase.SUSPENDED
    assert world.reconcile().action is None
    world.edit(suspend=False)
    world.reconcile()
    assert world.jobs[name].state is JobState.PENDING
    world.settle()
    assert world.started.count((1, Stage.TRAIN)) == 1


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_queued_evolution_gives_its_place_up(state: JobState) -> None:
    """A queue would start a suspended Job again."""
    world = world_of(queue={"name": "gpus"})
    name = to_stage(world, 1, Stage.TRAIN)
    world.set_job(name, state)
    world.edit(suspend=True)
    world.reconcile()
    assert name not in world.jobs
    assert world.reconcile().action is None
    world.edit(suspend=False)
    world.reconcile()
    assert world.active[0].name == "demo-g001-train-2", "no name is used again"
    assert (world.status.failures, world.status.disruptions) == (0, 0)


# Edits ------------------------------------------------------------------------------------------


def test_spec_is_pinned_until_the_next_generation() -> None:
    world = world_of()
    to_stage(world, 1, Stage.SELF_PLAY)
    world.edit(training={"optimizer": {"learningRate": 0.5}})
    to_stage(world, 1, Stage.TRAIN)
    assert _rate(world) == 1e-6
    to_stage(world, 2, Stage.SELF_PLAY)
    assert _rate(world) == 0.5


def _rate(world: World) -> float:
    return _pinned(world).training.optimizer.learning_rate


def _pinned(world: World) -> EvolutionSpec:
    assert world.status.current is not None
    return EvolutionSpec.model_validate(world.status.current.spec)


def test_fixed_input_goes_on_with_the_same_stage() -> None:
    world = world_of()
    world.fail(to_stage(world, 1, Stage.TRAIN), 2)
    world.settle()
    assert world.summary == "BadInput"
    started = len(world.started)
    world.edit(training={"optimizer": {"learningRate": 0.5}})
    world.reconcile()
    assert world.status.attempt == 2
    assert not world.status.finished
    assert _rate(world) == 0.5
    world.settle()
    assert world.started[started] == (1, Stage.TRAIN)
    assert world.summary == "MaxGenerationsReached"


BROKEN_RULE = (
    "spec: `training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not split"
)


def _stalled(world: World) -> tuple[str, str]:
    condition = world.status.condition(ConditionType.STALLED)
    assert condition is not None
    return condition.reason, condition.message


def test_a_spec_that_breaks_a_rule_is_never_pinned() -> None:
    """The API server cannot check the values of a recipe."""
    world = world_of(**BROKEN)
    world.settle()
    assert (world.started, world.status.current) == ([], None)
    assert world.status.phase is Phase.FAILED
    reason, message = _stalled(world)
    assert reason == "BadInput"
    assert BROKEN_RULE in message
    world.edit(seed=3)
    world.settle()
    assert (world.started, world.status.current) == ([], None)
    world.wait(100)
    world.edit(**WHOLE)
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.started[0] == (0, Stage.CHECK)


def test_a_bad_edit_ends_the_evolution_before_the_next_generation() -> None:
    world = world_of((0.3, 0.5, 0.6))
    to_stage(world, 1, Stage.TRAIN)
    world.edit(**BROKEN)
    world.settle()
    assert (world.status.generation, world.status.stage) == (1, Stage.PUBLISH)
    assert outcomes(world) == [Outcome.BASELINE, Outcome.PROMOTED]
    assert BROKEN_RULE in _stalled(world)[1]
    started = list(world.started)
    world.edit(**WHOLE)
    world.settle()
    assert world.started[len(started)] == (2, Stage.SELF_PLAY)
    assert len(set(world.started)) == len(world.started)
    assert world.summary == "MaxGenerationsReached"


def test_a_bad_edit_that_ends_the_evolution_at_its_goal() -> None:
    world = world_of((0.3, 0.5, 0.6))
    to_stage(world, 1, Stage.TRAIN)
    world.edit(**BROKEN)
    world.settle()
    world.edit(stopping={"maxGenerations": 1})
    world.settle()
    assert (world.summary, world.status.generation) == ("MaxGenerationsReached", 1)


def test_a_failed_stage_is_not_tried_again_with_a_bad_edit() -> None:
    world = world_of()
    world.fail(to_stage(world, 1, Stage.TRAIN), 2)
    world.settle()
    pinned, started = _pinned(world), list(world.started)
    world.edit(**BROKEN)
    world.settle()
    assert BROKEN_RULE in _stalled(world)[1]
    assert (_pinned(world), world.started) == (pinned, started)
    world.edit(**WHOLE)
    assert to_stage(world, 1, Stage.TRAIN) == "demo-g001-train-2"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            {"evaluation": {"selectionDataset": "demo-2"}},
            "spec: `overrides.evaluation.selectionDataset` is immutable: generations are compared "
            "on it",
        ),
        (
            {"evaluation": {"useLabelPrior": True}},
            "spec: `evaluation.useLabelPrior` is immutable: scores must remain comparable",
        ),
    ],
)
def test_generations_stay_comparable(edit: dict[str, Any], message: str) -> None:
    """An edit of `recipe` or `overrides` is checked when it is pinned."""
    world = world_of(dataset={"sources": [*SOURCES, {**SOURCES[2], "name": "demo-2"}]})
    to_stage(world, 1, Stage.SELF_PLAY)
    before = world.spec.to_json()
    world.edit(**edit)
    world.settle()
    assert world.status.generation == 1
    assert _stalled(world) == ("BadInput", message)
    world.spec, world.generation = EvolutionSpec.model_validate(before), world.generation + 1
    world.settle()
    assert world.summary == "MaxGenerationsReached"


def test_more_generations_go_on_from_the_best() -> None:
    world = world_of((0.3, 0.5, 0.4, 0.6), stopping={"maxGenerations": 2})
    world.settle()
    world.wait(1_000_000)
    world.edit(stopping={"maxGenerations": 3})
    to_stage(world, 3, Stage.SELF_PLAY)
    current, best = world.status.current, world.status.best
    assert current is not None
    assert best is not None
    assert current.policy_uri == best.model_uri
    world.settle()
    assert world.status.best is not None
    assert world.status.best.f1 == 0.6


def test_time_at_rest_counts_for_no_deadline() -> None:
    world = world_of(stopping={"maxGenerations": 1}, deadlines={"runActiveSeconds": 100})
    world.settle()
    world.wait(1_000_000)
    world.edit(stopping={"maxGenerations": 2})
    world.settle()
    assert (world.summary, world.status.generation) == ("MaxGenerationsReached", 2)


def test_a_collapsed_run_goes_on_from_its_best_without_the_bad_groups() -> None:
    world = world_of()
    world.collapses = frozenset({(2, Stage.EVALUATE)})
    world.settle()
    world.edit(training={"optimizer": {"learningRate": 1e-7}})
    to_stage(world, 3, Stage.SELF_PLAY)
    current, best = world.status.current, world.status.best
    assert current is not None
    assert best is not None
    assert current.policy_uri == best.model_uri
    to_stage(world, 3, Stage.SCORE)
    world.succeed(world.current.name)  # type: ignore[union-attr]
    action = decide(world.evolution, world.observed, world.now).action
    assert isinstance(action, CreateJob)
    assert action.config.replay == [
        world.manifests[(1, Stage.FLYWHEEL)].manifest.replace(
            "runs/x", "runs/default/demo-01234567"
        )
    ]


@pytest.mark.parametrize("replay", [0.0, 0.2])
def test_replay_is_newest_first(replay: float) -> None:
    world = world_of(flywheel={"replay": replay})
    to_stage(world, 3, Stage.SCORE)
    world.succeed(world.current.name)  # type: ignore[union-attr]
    action = decide(world.evolution, world.observed, world.now).action
    assert isinstance(action, CreateJob)
    assert [uri.split("/")[-3] for uri in action.config.replay] == (
        ["002", "001"] if replay else []
    )


def test_an_edit_that_leaves_no_room_changes_nothing() -> None:
    world = world_of(stopping={"maxGenerations": 1})
    world.settle()
    world.edit(training={"optimizer": {"learningRate": 0.5}})
    decision = world.reconcile()
    assert decision.action is None
    assert world.status.finished
    assert world.status.observed_generation == world.generation
    assert {c.observed_generation for c in world.status.conditions} == {world.generation}


def test_history_is_bounded() -> None:
    world = world_of((0.3,), stopping={"maxGenerations": 12, "patience": 20})
    world.settle()
    assert [entry.generation for entry in world.status.history] == list(range(3, 13))
    assert world.status.best is not None
    assert world.status.best.generation == 0


# The rest ---------------------------------------------------------------------------------------


def test_the_plan_is_the_same_whoever_manages_the_evolution() -> None:
    """The operator decides before the plan whether it manages an evolution."""
    world = world_of(managedBy="kueue.x-k8s.io/multikueue")
    assert isinstance(world.reconcile().action, CreateJob)


def test_time_to_live() -> None:
    world = world_of(stopping={"maxGenerations": 1}, ttlSecondsAfterFinished=60)
    world.settle()
    decision = world.reconcile()
    assert decision.action is None
    assert decision.requeue_at == world.now + timedelta(seconds=60)
    world.wait(60)
    decision = world.reconcile()
    assert decision.action == DeleteEvolution()
    assert decision.requeue_at is None


def test_a_stale_read_waits() -> None:
    world = world_of()
    old = world.status
    to_stage(world, 1, Stage.SCORE)
    world.wait(30)
    world.status = old
    decision = world.reconcile()
    assert (decision.status, decision.action) == (old, None)
    assert decision.requeue_at == world.now + timedelta(seconds=2)


def test_a_stale_read_of_a_finished_status_deletes_nothing() -> None:
    world = world_of()
    world.fail(to_stage(world, 0, Stage.EVALUATE), 2)
    world.settle()
    before = world.evolution
    world.edit(training={"optimizer": {"learningRate": 0.5}})
    name = to_stage(world, 0, Stage.EVALUATE)
    assert decide(before, world.observed, world.now).action is None
    world.wait(61)
    assert decide(before, world.observed, world.now).action == DeleteJob(
        name, "it is not the Job of the current stage"
    )


def test_a_restored_status_goes_on_and_repeats_no_work() -> None:
    world = world_of()
    to_stage(world, 1, Stage.SELF_PLAY)
    backup = world.back_up()
    name = to_stage(world, 1, Stage.TRAIN)
    world.vanish("demo-g001-selfplay-1")
    world.restore(backup)
    world.settle()
    assert name not in world.jobs or world.jobs[name].state.is_final
    assert world.summary == "MaxGenerationsReached"
    scored = world.manifests[(1, Stage.SCORE)]
    assert not scored.reused


def test_status_stays_small_at_its_largest() -> None:
    """Results come through a message of 4 KiB, so even the widest status is bounded."""
    names = [f"source-{i:02d}" for i in range(16)]
    labels = [f"emotion-{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(64)]
    evaluation = [{"name": n, "uri": f"file:///{n}.csv", "use": "Evaluation"} for n in names]
    wide = spec_of(
        dataset={"labels": labels, "sources": [*SOURCES[:2], *evaluation]},
        stopping={"maxGenerations": 12, "patience": 20},
    )
    world = World(
        spec=wide,
        f1s=(0.123456789012345,),
        label_prior=dict.fromkeys(labels, 0.015625),
        n_labels=64,
        size_limit=64 * 1024,
    )
    world.settle()
    assert len(world.status.history) == 10
    assert {len(entry.scores) > 1 for entry in world.status.history} == {True}


def test_merged_takes_keys_out() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"c": 2}}


# Totals: for metrics, nothing decides by them ---------------------------------------------------


def test_figures_of_a_stage_outlast_their_generation() -> None:
    world = world_of((0.3, 0.5, 0.4, 0.6))
    to_stage(world, 2, Stage.SELF_PLAY)
    totals = {t.stage: t for t in world.status.stages}
    assert list(totals) == [Stage.CHECK, *LATER_STAGES]
    score = totals[Stage.SCORE]
    assert (score.generation, score.runs, score.metrics["rewardMean"]) == (1, 1, 0.4)
    evaluated = totals[Stage.EVALUATE]
    assert (evaluated.generation, evaluated.runs) == (1, 2)
    assert evaluated.total_seconds == 2 * evaluated.seconds == 25.0


def test_failures_are_counted_by_reason_and_never_forgotten() -> None:
    world = world_of(failurePolicy={"maxAttempts": 2, "backoffSeconds": 0})
    world.fail(to_stage(world, 1, Stage.SCORE), 1)
    world.fail(to_stage(world, 1, Stage.SCORE), None, disrupted=True)
    to_stage(world, 1, Stage.TRAIN)
    (score,) = (t for t in world.status.stages if t.stage is Stage.SCORE)
    assert (score.runs, score.failures) == (1, {"Failed": 1, "Disrupted": 1})
    assert world.status.failures == 0
    world.fail(to_stage(world, 1, Stage.TRAIN), 2)
    world.settle()
    assert world.summary == "BadInput"
    (train,) = (t for t in world.status.stages if t.stage is Stage.TRAIN)
    assert train.failures == {"BadInput": 1}
