"""Attempts that end without the end of their Job: no Job is created under a name that had one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import Fault, World, decide, spec_of
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.stages import Stage
from selfemo_api.status import ConditionType, StageTotals
from selfemo_operator.planner.replacement import NO_POD_LIMIT
from selfemo_operator.planner.types import CreateJob, DeleteJob, JobState

FIRST, SECOND, THIRD = (f"demo-g001-score-{attempt}" for attempt in (1, 2, 3))
WAITING = (JobState.PENDING, JobState.QUEUED, JobState.SUSPENDED)


def world_at_score(**spec: Any) -> World:
    """Return a world in which the first attempt of Score runs."""
    world = World(spec=spec_of(**spec))
    assert to_stage(world, 1, Stage.SCORE) == FIRST
    return world


def totals(world: World, stage: Stage = Stage.SCORE) -> StageTotals:
    """Return the totals of a stage."""
    return next((t for t in world.status.stages if t.stage is stage), StageTotals(stage=stage))


def without_pod(world: World, name: str) -> None:
    """Let a Job have no pod from now on."""
    world.set_job(name, JobState.PENDING, missing_pods_since=world.now)


# Deleted by the operator --------------------------------------------------------------------------


@pytest.mark.parametrize("state", WAITING)
def test_an_outdated_job_is_replaced_under_another_name(state: JobState) -> None:
    world = world_at_score()
    world.set_job(FIRST, state, outdated=True)
    decision = world.reconcile()
    assert decision.action == DeleteJob(
        FIRST, "it has not started, and its pod template was edited"
    )
    assert decision.status.attempt == 2, "written before the deletion"
    action = world.reconcile().action
    assert isinstance(action, CreateJob)
    assert (action.name, action.attempt) == (SECOND, 2)
    status = world.status
    assert (status.failures, status.disruptions, status.last_failure) == (0, 0, None)
    assert (totals(world).replaced, totals(world).failures) == (1, {})


@pytest.mark.parametrize("suspend", [False, True])
def test_a_crash_before_the_deletion_leaves_one_job(suspend: bool) -> None:
    world = world_at_score(queue={"name": "gpus"} if suspend else None)
    world.set_job(FIRST, JobState.QUEUED if suspend else JobState.PENDING, outdated=not suspend)
    world.edit(suspend=suspend)
    world.reconcile(Fault.DIES_BETWEEN)
    assert FIRST in world.jobs
    assert isinstance(world.reconcile().action, DeleteJob)
    assert not world.jobs.keys() & {FIRST, SECOND}
    world.edit(suspend=False)
    world.settle()
    assert totals(world).replaced == 1
    assert [name for name in world.jobs if "g001-score" in name] == [SECOND]


def test_a_job_that_runs_is_not_replaced() -> None:
    world = world_at_score()
    world.set_job(FIRST, JobState.RUNNING, outdated=True)
    assert world.reconcile().action is None
    assert world.status.attempt == 1


def test_the_number_of_a_new_attempt_is_not_that_of_another_job() -> None:
    """After a restored backup, Jobs of later attempts may exist."""
    world = world_at_score()
    world.fail(FIRST)
    world.reconcile()
    world.wait(60)
    world.reconcile()
    world.fail(SECOND)
    world.status = world.status.model_copy(update={"attempt": 1})
    world.wait(61)
    world.set_job(FIRST, JobState.PENDING, outdated=True, failure=None)
    assert decide(world.evolution, world.observed, world.now).status.attempt == 3


def test_a_replaced_attempt_counts_when_an_edit_leads_back_to_its_stage() -> None:
    """The warm start is left out and comes back: its next Job has a new name."""
    world = World(spec=spec_of(warmStart={"steps": 100}))
    name = to_stage(world, 0, Stage.WARM_START)
    world.set_job(name, JobState.PENDING, outdated=True)
    world.reconcile()
    world.reconcile()
    second = world.active[0].name
    world.fail(second, 2)
    world.reconcile()
    world.edit(warmStart={"steps": 0})
    world.fail(to_stage(world, 0, Stage.EVALUATE), 2)
    world.reconcile()
    world.edit(warmStart={"steps": 100})
    third = to_stage(world, 0, Stage.WARM_START)
    assert [name[-1] for name in (name, second, third)] == ["1", "2", "3"]


def test_a_refused_edit_ends_the_evolution_and_replaces_nothing() -> None:
    world = world_at_score()
    world.set_job(FIRST, JobState.PENDING, outdated=True)
    observed = replace(world.observed, refusal="privileged is not allowed")
    decision = decide(world.evolution, observed, world.now)
    assert decision.status.attempt == 1
    summary = decision.status.condition(ConditionType.SUCCEEDED)
    assert summary is not None
    assert (summary.reason, summary.message) == ("BadInput", "privileged is not allowed")
    assert decision.action == DeleteJob(FIRST, "it is not the Job of the current stage")


def test_a_refusal_does_not_end_a_stage_that_runs() -> None:
    world = world_at_score()
    observed = replace(world.observed, refusal="privileged is not allowed")
    decision = decide(world.evolution, observed, world.now)
    assert (decision.status.finished, decision.action) == (False, None)


def test_a_queued_job_that_has_succeeded_is_not_replaced_by_a_suspension() -> None:
    world = world_at_score(queue={"name": "gpus"})
    world.succeed(FIRST)
    world.edit(suspend=True)
    assert world.reconcile().action is None
    assert world.status.attempt == 1
    world.edit(suspend=False)
    world.reconcile()
    assert world.status.stage is Stage.FLYWHEEL
    assert totals(world).replaced == 0


# Stopped by the local runner ----------------------------------------------------------------------


def test_a_stopped_attempt_counts_as_no_failure_however_often() -> None:
    """A person stops a run as often as the machine is needed for something else."""
    world = world_at_score()
    for attempt in range(1, 31):
        world.stop(f"demo-g001-score-{attempt}")
        action = world.reconcile().action  # at once
        assert isinstance(action, CreateJob)
        assert action.name == f"demo-g001-score-{attempt + 1}"
    status = world.status
    assert (status.failures, status.disruptions, status.last_failure) == (0, 0, None)
    assert (totals(world).replaced, totals(world).failures) == (30, {})
    world.settle()
    assert world.status.best is not None


# Deleted by hand ----------------------------------------------------------------------------------


def test_a_deleted_job_is_a_disruption() -> None:
    world = world_at_score()
    world.vanish(FIRST)
    decision = world.reconcile()
    assert decision.action is None
    assert (decision.status.attempt, decision.status.disruptions) == (2, 1)
    assert decision.status.last_failure == "its Job was deleted before its result was recorded"
    action = world.reconcile().action
    assert isinstance(action, CreateJob)
    assert action.name == SECOND
    assert (world.status.failures, totals(world).failures) == (0, {"Disrupted": 1})


def test_after_a_restored_backup_a_deleted_job_gives_no_number_that_is_used() -> None:
    """A Job of a later attempt is active: it is deleted, and its number is not used again."""
    world = world_at_score()
    world.fail(FIRST)
    world.reconcile()
    world.wait(60)
    world.reconcile()
    world.status = world.status.model_copy(update={"attempt": 1})
    world.wait(61)
    world.vanish(FIRST)
    decision = decide(world.evolution, world.observed, world.now)
    assert decision.status.attempt == 3
    assert decision.action == DeleteJob(SECOND, "it is not the Job of the current stage")


def test_deletions_by_hand_are_bounded() -> None:
    world = world_at_score(failurePolicy={"maxDisruptions": 2})
    for name in (FIRST, SECOND, THIRD):
        assert to_stage(world, 1, Stage.SCORE) == name
        world.vanish(name)
        world.reconcile()
    assert world.summary == "StageFailed"


def test_a_job_that_is_deleted_during_a_suspension_is_counted_after_it() -> None:
    world = world_at_score()
    world.edit(suspend=True)
    world.reconcile()
    world.vanish(FIRST)
    world.reconcile()
    assert world.status.disruptions == 0
    world.edit(suspend=False)
    world.reconcile()
    assert (world.status.attempt, world.status.disruptions) == (2, 1)


# Without a pod ------------------------------------------------------------------------------------


def test_a_job_without_a_pod_is_replaced_once() -> None:
    world = world_at_score()
    without_pod(world, FIRST)
    assert world.reconcile().requeue_at == world.now + NO_POD_LIMIT
    world.wait(NO_POD_LIMIT.total_seconds() - 1)
    assert world.reconcile().action is None
    world.wait(1)
    decision = world.reconcile()
    assert decision.action == DeleteJob(FIRST, "it has no pod")
    assert (decision.status.attempt, decision.status.disruptions) == (2, 1)
    world.reconcile()
    without_pod(world, SECOND)
    world.wait(600)
    decision = world.reconcile()
    assert decision.action is None, "a quota forbids it: another name does not help"
    assert (decision.status.attempt, decision.status.disruptions) == (2, 1)
    assert decision.requeue_at is None or decision.requeue_at > world.now


def test_a_job_without_a_pod_waits_on_if_no_disruption_is_allowed() -> None:
    world = world_at_score(failurePolicy={"maxDisruptions": 0})
    without_pod(world, FIRST)
    world.wait(600)
    decision = world.reconcile()
    assert decision.action is None
    assert (decision.status.finished, decision.status.attempt) == (False, 1)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_only_a_job_that_is_to_start_needs_a_pod(state: JobState) -> None:
    world = world_at_score()
    world.set_job(FIRST, state, missing_pods_since=world.now)
    world.wait(600)
    assert world.reconcile().status.attempt == 1


def test_the_clock_is_set_back_while_a_pod_is_missing() -> None:
    world = world_at_score()
    without_pod(world, FIRST)
    world.wait(-3600)
    assert world.reconcile().action is None
    world.now += timedelta(seconds=3600) + NO_POD_LIMIT
    assert world.reconcile().status.attempt == 2
