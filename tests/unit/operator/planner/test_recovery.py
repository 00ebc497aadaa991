"""A damaged result of an earlier stage: the planner goes back to that stage, and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.planner.simulated_world import World, decide, spec_of
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.stages import STAGE_ORDER, Stage, stages_of
from selfemo_api.status import ConditionStatus, ConditionType, Outcome
from selfemo_operator.planner.plan import STALE_WAIT
from selfemo_operator.planner.recovery import MAX_RECOVERIES
from selfemo_operator.planner.types import CreateJob


def world_at(generation: int, stage: Stage, *, exact: bool = True, steps: int = 0) -> World:
    """Return a world in which a stage's Job runs."""
    spec = spec_of(stopping={"maxGenerations": 2}, warmStart={"steps": steps})
    world = World(spec=spec, exact=exact)
    to_stage(world, generation, stage)
    return world


def finish_current(world: World) -> None:
    """Let the current Job end, and run one pass."""
    assert world.current is not None
    world.succeed(world.current.name)
    world.reconcile()


def failures(world: World, stage: Stage) -> dict[str, int]:
    """Return the numbers of a stage's failed attempts, by reason."""
    return next(totals.failures for totals in world.status.stages if totals.stage is stage)


def test_the_damaged_stage_is_run_again_and_then_all_up_to_the_failed_one() -> None:
    world = world_at(1, Stage.TRAIN)
    world.damage(1, Stage.FLYWHEEL)
    results = world.status.current.results  # type: ignore[union-attr]
    world.started.clear()
    finish_current(world)
    status = world.status
    assert (status.stage, status.attempt, status.recoveries) == (Stage.FLYWHEEL, 2, 1)
    assert status.current is not None
    assert status.current.results == results
    condition = status.condition(ConditionType.RECOVERING)
    assert condition is not None
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, "ResultDamaged")
    assert condition.message == (
        "generation 1: the result of Flywheel was missing or damaged; the stages from Flywheel to "
        "Train run again (recovery 1)"
    )
    assert failures(world, Stage.TRAIN) == {"ResultDamaged": 1}
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.started[:3] == [(1, Stage.FLYWHEEL), (1, Stage.TRAIN), (1, Stage.EVALUATE)]
    assert world.made.count((1, Stage.FLYWHEEL)) == 2
    assert world.made.count((1, Stage.SCORE)) == world.made.count((1, Stage.TRAIN)) == 1
    assert world.status.condition(ConditionType.RECOVERING) is None
    assert world.status.recoveries == 0  # it counts one generation


def test_stages_that_are_run_again_check_their_stored_results() -> None:
    world = world_at(1, Stage.TRAIN)
    world.damage(1, Stage.SCORE)
    world.fail("demo-g001-train-1", 65, damaged=Stage.SCORE)
    repaired = []
    for _ in range(12):
        decision = decide(world.evolution, world.observed, world.now)
        if isinstance(decision.action, CreateJob):
            config = decision.action.config
            repaired.append((config.stage, decision.action.attempt, config.repair))
        world.step()
    assert repaired[:4] == [
        (Stage.SCORE, 2, True),
        (Stage.FLYWHEEL, 2, True),
        (Stage.TRAIN, 2, True),
        (Stage.EVALUATE, 1, False),
    ]


def test_a_result_that_is_used_again_keeps_its_time() -> None:
    world = world_at(1, Stage.EVALUATE)
    world.damage(1, Stage.TRAIN)
    world.settle()
    record = world.status.history[1]
    assert record.generation == 1
    assert record.stage_seconds == dict.fromkeys(
        ("SelfPlay", "Score", "Flywheel", "Train", "Evaluate"), 12.5
    )


@pytest.mark.parametrize("exact", [True, False])
def test_a_whole_generation_that_was_deleted_is_one_recovery(exact: bool) -> None:
    world = world_at(1, Stage.EVALUATE, exact=exact)
    for stage in stages_of(1)[:4]:
        world.damage(1, stage)
    for _ in range(8):
        world.step()
    assert world.status.stage is Stage.SELF_PLAY
    assert world.status.recoveries == 1
    assert world.status.recovery is not None
    assert (world.status.recovery.damaged, world.status.recovery.until) == (
        Stage.SELF_PLAY,
        Stage.EVALUATE,
    )
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert all(world.made.count((1, stage)) == 2 for stage in stages_of(1)[:4])


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.EVALUATE])
def test_publish_goes_back_and_the_generation_is_decided_again(stage: Stage) -> None:
    world = world_at(2, Stage.PUBLISH)
    best, previous = world.status.best, world.status.history[1]
    assert best is not None
    assert best.generation == 2
    world.damage(2, stage)
    finish_current(world)
    status = world.status
    assert status.stage is stage
    assert status.best is not None
    assert (status.best.generation, status.best.model_uri) == (1, previous.model_uri)
    assert status.without_improvement == 0
    assert [record.generation for record in status.history] == [0, 1]
    world.settle()
    assert world.status.best == best
    assert world.status.history[-1].outcome is Outcome.PROMOTED
    assert world.made.count((2, stage)) == 2


def test_a_generation_that_was_rolled_back_stays_so() -> None:
    spec = spec_of(stopping={"maxGenerations": 2, "patience": 5})
    world = World(spec=spec, f1s=(0.3, 0.2, 0.25))
    to_stage(world, 2, Stage.PUBLISH)
    assert world.status.without_improvement == 2
    world.damage(2, Stage.EVALUATE)
    finish_current(world)
    assert world.status.without_improvement == 1
    world.settle()
    assert world.status.without_improvement == 2
    assert [r.outcome.value for r in world.status.history] == [
        *("Baseline", "RolledBack", "RolledBack")
    ]


def test_the_generations_since_the_best_count_when_a_promotion_is_decided_again() -> None:
    spec = spec_of(stopping={"maxGenerations": 2, "patience": 5})
    world = World(spec=spec, f1s=(0.3, 0.2, 0.4))
    to_stage(world, 2, Stage.PUBLISH)
    assert [r.outcome.value for r in world.status.history] == [
        *("Baseline", "RolledBack", "Promoted")
    ]
    assert world.status.without_improvement == 0
    world.damage(2, Stage.EVALUATE)
    finish_current(world)
    assert world.status.stage is Stage.EVALUATE
    assert world.status.without_improvement == 1


def test_a_collapsed_generation_does_not_count_when_the_next_one_is_decided_again() -> None:
    spec = spec_of(stopping={"maxGenerations": 3})
    world = World(spec=spec, collapses=frozenset({(2, Stage.SCORE)}))
    world.settle()
    assert world.summary == "Collapsed"
    world.edit(flywheel={"keep": 0.5})
    to_stage(world, 3, Stage.EVALUATE)
    assert world.status.without_improvement == 0
    to_stage(world, 3, Stage.PUBLISH)
    assert world.status.history[-1].outcome is Outcome.PROMOTED
    world.damage(3, Stage.EVALUATE)
    finish_current(world)
    assert world.status.stage is Stage.EVALUATE
    assert world.status.without_improvement == 0


@pytest.mark.parametrize("steps", [0, 100])
def test_the_baseline_is_measured_again(steps: int) -> None:
    world = world_at(0, Stage.PUBLISH, steps=steps)
    baseline = world.status.baseline
    world.damage(0, Stage.WARM_START if steps else Stage.EVALUATE)
    finish_current(world)
    assert world.status.best is world.status.baseline is world.status.baseline_uri is None
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.status.baseline == baseline


def test_a_stage_that_damages_its_parent_ends_the_run_after_three_recoveries() -> None:
    world = world_at(1, Stage.SCORE)
    for _ in range(MAX_RECOVERIES + 1):
        to_stage(world, 1, Stage.SCORE)
        world.damage(1, Stage.SELF_PLAY)
        finish_current(world)
    assert world.summary == "BadInput"
    condition = world.status.condition(ConditionType.SUCCEEDED)
    assert condition is not None
    assert "has gone back 3 times to regenerate damaged results" in condition.message
    assert "s3://bucket/runs/default/demo-01234567" in condition.message
    assert world.made.count((1, Stage.SELF_PLAY)) == MAX_RECOVERIES + 1
    # once the cause is gone, an edit lets the run continue with new recoveries
    world.edit(stopping={"patience": 9})
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.made.count((1, Stage.SELF_PLAY)) == MAX_RECOVERIES + 2


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.CHECK, Stage.WARM_START])
def test_a_stage_that_is_not_an_earlier_one_is_never_run(stage: Stage) -> None:
    world = world_at(1, Stage.SCORE)
    world.fail("demo-g001-score-1", 65, damaged=stage)
    world.reconcile()
    assert world.summary == "BadInput"
    assert failures(world, Stage.SCORE) == {"BadInput": 1}


def test_the_exit_code_alone_is_an_ordinary_failure() -> None:
    """The message that names the stage was lost."""
    world = world_at(1, Stage.SCORE)
    world.fail("demo-g001-score-1", 65)
    world.reconcile()
    assert (world.status.stage, world.status.attempt) == (Stage.SCORE, 2)
    assert world.status.recovery is None


def test_a_number_of_an_attempt_is_not_used_again() -> None:
    """Names of Jobs follow from it: the result of an old Job would be taken."""
    world = world_at(1, Stage.SCORE)
    old = world.jobs["demo-g001-selfplay-1"]
    world.jobs["demo-g001-selfplay-5"] = replace(old, name="demo-g001-selfplay-5", attempt=5)
    world.fail("demo-g001-score-1", 65, damaged=Stage.SELF_PLAY)
    decision = decide(world.evolution, world.observed, world.now)
    assert isinstance(decision.action, CreateJob)
    assert decision.action.name == "demo-g001-selfplay-6"


def test_jobs_that_a_recovery_has_left_behind_do_not_make_it_wait() -> None:
    """They come after the current stage, as if the status had been read before they were made."""
    world = world_at(1, Stage.SCORE)
    world.damage(1, Stage.SELF_PLAY)
    finish_current(world)
    assert world.current is not None
    finish_current(world)
    assert world.status.stage is Stage.SCORE
    assert world.current is not None
    assert world.current.name == "demo-g001-score-2"


def test_a_stale_read_in_a_recovery_waits() -> None:
    """An active Job of a later stage is the current one: it has not been left behind."""
    world = world_at(1, Stage.SCORE)
    world.damage(1, Stage.SELF_PLAY)
    finish_current(world)
    before = world.evolution
    finish_current(world)
    assert [job.name for job in world.active] == ["demo-g001-score-2"]
    decision = decide(before, world.observed, world.now)
    assert (decision.status, decision.action) == (before.status, None)
    assert decision.requeue_at == world.now + STALE_WAIT


@pytest.mark.parametrize("exact", [True, False])
def test_after_a_restored_backup_an_old_failure_makes_no_whole_result_again(exact: bool) -> None:
    """The old Job still names a stage whose result was made again since: it is only checked."""
    world = World(spec=spec_of(stopping={"maxGenerations": 1}), exact=exact)
    backup = world.back_up()
    to_stage(world, 1, Stage.TRAIN)
    world.damage(1, Stage.FLYWHEEL)
    finish_current(world)
    finish_current(world)
    assert world.status.stage is Stage.TRAIN
    assert not world.damaged
    made = list(world.made)
    world.restore(backup)
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.started.count((1, Stage.FLYWHEEL)) == 3
    assert world.made == [*made, (1, Stage.TRAIN), (1, Stage.EVALUATE), (1, Stage.PUBLISH)]


def test_an_edit_in_a_recovery_continues_with_the_damaged_stage() -> None:
    world = world_at(1, Stage.TRAIN)
    world.damage(1, Stage.SCORE)
    world.fail("demo-g001-train-1", 65, damaged=Stage.SCORE)
    world.reconcile()
    assert world.current is not None
    world.fail(world.current.name, 2)
    world.settle()
    assert world.summary == "BadInput"
    assert world.status.condition(ConditionType.RECOVERING) is None
    world.edit(stopping={"patience": 9})
    world.reconcile()
    assert (world.status.stage, world.status.attempt) == (Stage.SCORE, 3)
    world.settle()
    assert world.summary == "MaxGenerationsReached"


DAMAGE = st.tuples(st.integers(0, 40), st.lists(st.integers(0, 7), min_size=1, max_size=4))


@settings(max_examples=10, deadline=None)
@given(damages=st.lists(DAMAGE, max_size=6), exact=st.booleans(), steps=st.sampled_from([0, 100]))
def test_in_whatever_order_results_are_damaged_the_run_ends(
    damages: list[tuple[int, list[int]]], exact: bool, steps: int
) -> None:
    """`World` checks at each step where the evolution goes, and that no whole result is lost."""
    world = world_at(0, Stage.CHECK, exact=exact, steps=steps)
    at = dict(damages)
    harmed = 0
    for number in range(42):
        for index in at.get(number, []):
            key = (world.status.generation, STAGE_ORDER[index])
            if key in world.manifests:
                world.damage(*key)
                harmed += 1
        world.step()
    world.settle()
    if world.summary != "MaxGenerationsReached":
        assert world.summary == "BadInput"
        world.edit(stopping={"patience": 9})  # the cause is gone: the run continues
        world.settle()
    assert world.summary == "MaxGenerationsReached"
    stages = [s for g in (0, 1, 2) for s in [(g, s) for s in stages_of(g, warm_start=steps > 0)]]
    again = sum(world.made.count(key) - 1 for key in stages)
    assert again >= 0
    if exact:
        assert again <= harmed, "a result that was whole has been made again"
