"""Pods that wait, that outlive their Job, or that the platform removes again and again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.operator.planner.simulated_world import World, decide, spec_of
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.stages import Stage
from selfemo_api.status import ConditionType
from selfemo_operator.planner.attempts import REMOVAL_WINDOW, TIMES_MAX
from selfemo_operator.planner.plan import LIVE_POD_WAIT
from selfemo_operator.planner.types import (
    CreateJob,
    Decision,
    JobState,
    Observed,
    Removal,
    ResumeJob,
    SetDeadline,
)

PENDING_BOUND = {"deadlines": {"stagePendingSeconds": 600}}


def world_at(stage: Stage, **spec: object) -> tuple[World, str]:
    """Return a world in which a stage of generation 1 runs, and the name of its Job."""
    world = World(spec=spec_of(**spec))
    return world, to_stage(world, 1, stage)


def plan_after(world: World, seconds: float) -> Decision:
    """Return the decision after a time."""
    world.wait(seconds)
    return decide(world.evolution, world.observed, world.now)


# More pods than capacity --------------------------------------------------------------------------


def test_shards_that_wait_while_another_one_runs_pass_no_deadline() -> None:
    world, name = world_at(Stage.SELF_PLAY, selfPlay={"shards": 4}, **PENDING_BOUND)
    world.set_job(
        name,
        JobState.RUNNING,
        pending_since=world.now,
        waiting="Unschedulable: no GPU is free",
        has_running_pods=True,
    )
    decision = plan_after(world, 36_000)
    assert not decision.status.finished
    condition = decision.status.condition(ConditionType.PROGRESSING)
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "Running")
    assert condition.message.endswith(
        "some pods are running, others are waiting: Unschedulable: no GPU is free"
    )
    # the last one that ran has just ended: the next one gets its node
    world.set_job(name, JobState.RUNNING, has_running_pods=False, idle_since=world.now)
    assert not plan_after(world, 599).status.finished
    decision = plan_after(world, 1)
    summary = decision.status.condition(ConditionType.SUCCEEDED)
    assert summary is not None
    assert summary.reason == "PendingTooLong"


def test_a_node_of_a_training_that_never_starts_blocks_the_others() -> None:
    """They wait for it before the first step, so the stage makes no progress."""
    world, name = world_at(Stage.TRAIN, resources={"nodes": 2}, **PENDING_BOUND)
    world.set_job(
        name, JobState.RUNNING, pending_since=world.now, waiting="no", has_running_pods=True
    )
    assert not plan_after(world, 599).status.finished
    assert plan_after(world, 1).status.finished


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.QUEUED])
def test_a_job_with_another_deadline_than_the_spec_gets_that_of_the_spec(state: JobState) -> None:
    world, name = world_at(Stage.SCORE, deadlines={"stageActiveSeconds": 100})
    world.set_job(name, state, deadline_outdated=True)
    assert plan_after(world, 1).action == SetDeadline(name, 100)
    world.set_job(name, state, deadline_outdated=False)
    assert plan_after(world, 1).action is None


def test_a_longer_deadline_saves_a_running_stage() -> None:
    world, name = world_at(Stage.SCORE, deadlines={"stageActiveSeconds": 100})
    world.wait(90)
    world.edit(deadlines={"stageActiveSeconds": 1000})
    world.set_job(name, JobState.RUNNING, deadline_outdated=True)
    decision = plan_after(world, 20)
    assert not decision.status.finished
    assert decision.action == SetDeadline(name, 1000)


def test_an_end_by_a_deadline_leaves_no_time_of_a_next_attempt() -> None:
    world, name = world_at(Stage.SCORE, deadlines={"runActiveSeconds": 100})
    world.wait(95)
    world.fail(name)
    world.reconcile()
    assert world.status.retry_after == world.now + timedelta(seconds=10)
    world.wait(5)
    world.reconcile()
    assert world.summary == "DeadlineExceeded"
    assert world.status.retry_after is None


def test_a_suspended_job_is_resumed_before_its_deadline_is_set() -> None:
    world, name = world_at(Stage.SCORE, deadlines={"stageActiveSeconds": 100})
    world.set_job(name, JobState.SUSPENDED, deadline_outdated=True)
    assert plan_after(world, 1).action == ResumeJob(name)


# Pods of earlier attempts -------------------------------------------------------------------------


def test_no_job_is_created_while_a_pod_of_an_earlier_attempt_is_alive() -> None:
    world, name = world_at(Stage.TRAIN, **PENDING_BOUND)
    world.vanish(name, noticed=False)
    assert isinstance(plan_after(world, 1).action, CreateJob)
    observed = replace(world.observed, live_pod="old", live_pod_since=world.now)
    decision = decide(world.evolution, observed, world.now)
    assert decision.action is None
    assert decision.requeue_at == world.now + LIVE_POD_WAIT
    condition = decision.status.condition(ConditionType.PROGRESSING)
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "Waiting")
    assert "the pod old of an earlier attempt has not ended" in condition.message
    end = decide(world.evolution, observed, world.now + timedelta(seconds=600)).status
    summary = end.condition(ConditionType.SUCCEEDED)
    assert summary is not None
    assert summary.reason == "PendingTooLong"
    assert "`kubectl delete pod --force`" in summary.message


def test_a_pod_of_an_earlier_attempt_passes_no_deadline_while_suspended() -> None:
    world, name = world_at(Stage.TRAIN, **PENDING_BOUND)
    world.vanish(name, noticed=False)
    world.edit(suspend=True)
    observed = Observed(live_pod="old", live_pod_since=world.now)
    later = world.now + timedelta(hours=9)
    assert not decide(world.evolution, observed, later).status.finished


# Pods that a Job creates again --------------------------------------------------------------------


def removal(world: World, seconds: float, pod: str) -> Removal:
    """Return the removal of a pod some seconds from now."""
    return Removal(world.now + timedelta(seconds=seconds), pod)


def test_each_removal_of_a_pod_counts_once() -> None:
    world, name = world_at(Stage.SCORE)
    removals = (removal(world, 10, "a"), removal(world, 20, "b"))
    world.set_job(name, JobState.RUNNING, removals=removals)
    for _ in range(3):
        world.reconcile()
    assert world.status.replaced_pods == 2
    assert world.status.disruptions == 0
    world.set_job(name, JobState.RUNNING, removals=(*removals, removal(world, 25, "c")))
    world.reconcile()
    assert world.status.replaced_pods == 3
    world.succeed(name)
    world.reconcile()
    assert world.status.replaced_pods == 0, "it counts one stage"
    assert world.status.recent_replacements is None


@pytest.mark.parametrize("seconds", [20, 15])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_removal_that_becomes_known_after_a_later_one_counts(
    seconds: float, restarted: bool
) -> None:
    """Pods that a drained node removes in the same second take different times to end."""
    world, name = world_at(Stage.SELF_PLAY, selfPlay={"shards": 4})
    known = (removal(world, 20, "a"), removal(world, 20, "b"))
    world.set_job(name, JobState.RUNNING, removals=known)
    world.reconcile()
    late = removal(world, seconds, "c")
    # pods that are gone are not known to another process
    world.set_job(name, JobState.RUNNING, removals=(late,) if restarted else (*known, late))
    for _ in range(2):
        world.reconcile()
    assert world.status.replaced_pods == 3
    world.set_job(name, JobState.RUNNING, removals=(*known, late))
    world.reconcile()
    assert world.status.replaced_pods == 3


@pytest.mark.parametrize(
    ("step", "kept"),
    [(0, 2000), (1, TIMES_MAX), (60, REMOVAL_WINDOW.total_seconds() // 60 + 1)],
)
def test_the_status_keeps_few_removals(step: float, kept: int) -> None:
    world, name = world_at(
        Stage.SELF_PLAY, selfPlay={"shards": 1024}, failurePolicy={"maxDisruptions": 9}
    )
    removals = tuple(removal(world, n * step, f"{n:04}") for n in range(2000))
    for known in (removals[:1500], removals):
        world.set_job(name, JobState.RUNNING, removals=known)
        for _ in range(2):
            world.reconcile()
        assert world.status.replaced_pods == len(known)
    recent = world.status.recent_replacements or []
    assert sum(len(item.pods) for item in recent) == kept
    assert len(recent) <= TIMES_MAX


def test_removals_beyond_the_pods_of_a_stage_are_not_kept() -> None:
    world, name = world_at(Stage.SELF_PLAY, selfPlay={"shards": 1024})
    removals = tuple(removal(world, n // 600, f"{n:04}") for n in range(1800))
    world.set_job(name, JobState.RUNNING, removals=removals)
    world.reconcile()
    assert [len(item.pods) for item in world.status.recent_replacements or []] == [600]
    assert world.status.last_replacement_time == removals[600].time


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("step", [0, 1])
def test_as_many_removals_as_the_stage_has_pods_are_one_disruption(
    shards: int, step: float
) -> None:
    """A drained node takes several shards with it, and each of them continues where it was."""
    world, name = world_at(
        Stage.SELF_PLAY,
        selfPlay={"shards": shards},
        failurePolicy={"maxDisruptions": 2, "maxAttempts": 3},
    )
    world.fail(name, disrupted=True)
    world.reconcile()
    world.reconcile()
    assert world.current is not None
    name = world.current.name
    allowed = 2 * shards - 1
    removals = tuple(removal(world, step * n, f"{n:04}") for n in range(allowed))
    world.set_job(name, JobState.RUNNING, removals=removals)
    world.reconcile()
    assert not world.status.finished
    world.set_job(name, JobState.RUNNING, removals=(*removals, removal(world, 0, "last")))
    world.reconcile()
    assert world.summary == "StageFailed"
    summary = world.status.condition(ConditionType.SUCCEEDED)
    assert summary is not None
    assert f"the platform removed {2 * shards} of its pods" in summary.message


# Suspension ---------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_shortens_no_suspension() -> None:
    world, _ = world_at(Stage.SCORE)
    for seconds in (100, -1000):
        world.edit(suspend=True)
        world.reconcile()
        world.wait(seconds)
        world.edit(suspend=False)
        world.reconcile()
        assert world.status.suspended_seconds == 100


@pytest.mark.parametrize("reason", ["StageFailed", "MaxGenerationsReached"])
def test_suspending_a_finished_evolution_does_not_continue_it(reason: str) -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}, failurePolicy={"maxAttempts": 1}))
    name = to_stage(world, 1, Stage.SCORE)
    if reason == "StageFailed":
        world.fail(name)
    world.settle()
    assert world.summary == reason
    ended = world.status.completion_time
    world.edit(suspend=True, stopping={"maxGenerations": 2})
    world.settle()
    assert (world.summary, world.status.completion_time) == (reason, ended)
    assert world.status.observed_generation == world.generation
    world.edit(suspend=False)
    world.settle()
    assert world.summary == "MaxGenerationsReached"
    assert world.status.generation == 2
