"""Whatever happens, the planner keeps its promises: a random world, checked at each step."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.unit.operator.planner.simulated_world import (
    BROKEN,
    LABEL_PRIOR,
    WHOLE,
    Backup,
    Fault,
    World,
    spec_of,
)

from selfemo_api.stages import Stage, stages_of
from selfemo_operator.planner.types import JobState

F1 = st.integers(min_value=0, max_value=20).map(lambda n: n / 20)
POLICIES = st.fixed_dictionaries(
    {
        "stopping": st.fixed_dictionaries(
            {
                "maxGenerations": st.integers(1, 4),
                "patience": st.integers(1, 3),
                "goal": st.none() | F1.filter(bool),
            }
        ),
        "promotion": st.fixed_dictionaries(
            {
                "onRegression": st.sampled_from(["RollBack", "Continue", "Stop"]),
                "minDelta": st.sampled_from([0.0, 0.07]),
            }
        ),
    }
)
#: The largest number of steps of the warm start. 0: there is none.
WARM_START_STEPS = st.sampled_from([0, 100])
EXITS = st.sampled_from([1, 2, 65, 75, 137, 143, None])


def come_to_rest(world: World) -> None:
    """Reconcile until nothing is done, and nothing is waited for or at work.

    A restored status is looked at again for a minute: it might be an old read.
    """
    for _ in range(100):
        decision = world.reconcile()
        world.wait(2)
        waits = decision.action is not None or decision.requeue_at is not None
        if not waits and not world.active and world.status.observed_generation:
            return
    raise AssertionError("work goes on while suspended")


class Planner(RuleBasedStateMachine):
    """Events in any order; `World` checks each decision."""

    world: World

    @initialize(
        f1s=st.lists(F1, min_size=5, max_size=5),
        policy=POLICIES,
        collapses=st.frozensets(
            st.tuples(
                st.integers(1, 3),
                st.sampled_from([Stage.SELF_PLAY, Stage.SCORE, Stage.EVALUATE]),
            ),
            max_size=1,
        ),
        queued=st.booleans(),
        bounded=st.booleans(),
        steps=WARM_START_STEPS,
        label_prior=st.sampled_from([None, LABEL_PRIOR]),
        exact=st.booleans(),
    )
    def begin(
        self,
        f1s: list[float],
        policy: dict[str, Any],
        collapses: frozenset[tuple[int, Stage]],
        queued: bool,
        bounded: bool,
        steps: int,
        label_prior: dict[str, float] | None,
        exact: bool,
    ) -> None:
        deadlines = {"stageActiveSeconds": 4000, "runActiveSeconds": 40_000} if bounded else {}
        spec = spec_of(
            **policy,
            warmStart={"steps": steps},
            queue={"name": "gpus"} if queued else None,
            deadlines=deadlines,
            failurePolicy={"maxAttempts": 3, "maxDisruptions": 4},
        )
        self.world = World(spec=spec, f1s=tuple(f1s), collapses=collapses, label_prior=label_prior)
        self.world.exact = exact
        self.backups: list[Backup] = []

    # The operator

    @rule(times=st.integers(1, 3))
    def reconcile(self, times: int) -> None:
        for _ in range(times):
            self.world.reconcile()

    @rule(fault=st.sampled_from([Fault.WRITE_FAILS, Fault.DIES_BETWEEN]))
    def reconcile_badly(self, fault: Fault) -> None:
        self.world.reconcile(fault)

    @precondition(lambda self: self.world.lagging())
    @rule(data=st.data())
    def reconcile_a_stale_read(self, data: st.DataObject) -> None:
        self.world.reconcile(seen=data.draw(st.sampled_from(self.world.lagging())))

    @rule(steps=st.integers(5, 30))
    def all_goes_well_for_a_while(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    # The cluster

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_job_goes_on(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.world.active))
        queued = [JobState.QUEUED] if self.world.spec.queue else []
        state = data.draw(st.sampled_from([JobState.PENDING, JobState.RUNNING, *queued]))
        waiting = "ErrImagePull" * 300 if state is JobState.PENDING else ""
        self.world.set_job(job.name, state, waiting=waiting)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data(), lost=st.booleans())
    def a_job_succeeds(self, data: st.DataObject, lost: bool) -> None:
        self.world.succeed(data.draw(st.sampled_from(self.world.active)).name, lost=lost)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data(), code=EXITS, disrupted=st.booleans(), done=st.booleans())
    def a_job_fails(
        self, data: st.DataObject, code: int | None, disrupted: bool, done: bool
    ) -> None:
        job = data.draw(st.sampled_from(self.world.active))
        if done:
            self.world.work(job.name)  # it fails after its manifest was written
        self.world.fail(job.name, code, disrupted=disrupted)

    @precondition(lambda self: self.world.manifests)
    @rule(data=st.data(), number=st.integers(1, 3))
    def results_are_damaged(self, data: st.DataObject, number: int) -> None:
        """Of the generation in progress mostly: others are read through their models only."""
        world = self.world
        now = [key for key in world.manifests if key[0] == world.status.generation]
        for _ in range(number):
            world.damage(*data.draw(st.sampled_from(now or list(world.manifests))))

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data(), noticed=st.booleans())
    def a_job_is_deleted_by_hand(self, data: st.DataObject, noticed: bool) -> None:
        self.world.vanish(data.draw(st.sampled_from(sorted(self.world.jobs))), noticed=noticed)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_job_gets_no_pod(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.world.active))
        self.world.set_job(job.name, JobState.PENDING, missing_pods_since=self.world.now)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data(), outdated=st.booleans())
    def the_pod_template_is_edited_or_set_back(self, data: st.DataObject, outdated: bool) -> None:
        job = data.draw(st.sampled_from(self.world.active))
        self.world.set_job(job.name, job.state, outdated=outdated)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def a_job_is_suspended_by_hand(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.world.active))
        self.world.set_job(job.name, JobState.SUSPENDED, start_time=None)

    @rule(seconds=st.sampled_from([1, 9, 31, 61, 700, 1900, 5000, -5, -4000]))
    def time_passes(self, seconds: int) -> None:
        self.world.wait(seconds)

    # People

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @rule(
        policy=POLICIES,
        rate=st.sampled_from([1e-6, 1e-5]),
        temperature=st.sampled_from([0.5, 1.0]),
    )
    def edit(self, policy: dict[str, Any], rate: float, temperature: float) -> None:
        self.world.edit(
            **policy,
            training={"optimizer": {"learningRate": rate}},
            selfPlay={"temperature": temperature},
        )

    @precondition(lambda self: self.world.status.best is None)
    @rule(prompts=st.sampled_from(["chat-v1", "compact-v1"]))
    def edit_what_is_compared(self, prompts: str) -> None:
        self.world.edit(model={"prompts": prompts})

    @rule(steps=WARM_START_STEPS)
    def edit_the_warm_start(self, steps: int) -> None:
        self.world.edit(warmStart={"steps": steps})

    @rule(broken=st.booleans())
    def edit_into_a_spec_that_breaks_a_rule_or_back(self, broken: bool) -> None:
        self.world.edit(**(BROKEN if broken else WHOLE))

    @rule()
    def back_up(self) -> None:
        self.backups.append(self.world.back_up())

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def restore_a_backup(self, data: st.DataObject) -> None:
        self.world.restore(data.draw(st.sampled_from(self.backups)))

    # What holds at any moment

    @invariant()
    def never_two_at_work(self) -> None:
        if hasattr(self, "world"):
            assert len(self.world.active) <= 1

    def teardown(self) -> None:
        """Whatever came before: a fair world comes to rest, suspended or finished."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.edit(suspend=True, **WHOLE)
        come_to_rest(world)
        assert world.reconcile().action is None
        world.edit(suspend=False)
        world.settle()
        _is_at_rest(world)


def _is_at_rest(world: World) -> None:
    assert world.status.finished
    assert not world.active
    assert world.status.observed_generation == world.generation
    for seconds in (0, 100, 100_000):
        world.wait(seconds)
        before = world.status
        decision = world.reconcile()
        assert decision.status == before
        assert decision.action is None
        assert decision.requeue_at is None
    for generation in range(world.status.generation):
        if (generation, Stage.EVALUATE) in world.collapses:
            continue
        for stage in stages_of(generation):  # a warm start may have been taken out again
            if (generation, stage) in world.collapses:
                break
            assert (generation, stage) in world.manifests


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
