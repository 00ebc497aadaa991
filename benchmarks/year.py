"""A year of many evolutions in minutes: the planner, the work queue and a cluster, simulated.

``PYTHONPATH=. python benchmarks/year.py [--evolutions 10000] [--days 365] [--load 0.8]`` runs the
real planner on the real work queue, with a simulated clock, API server and cluster. Evolutions come
at random times, half of them in sweeps of a hundred, from twenty namespaces of very different size.
GPUs are few, so Jobs wait in a queue. Stages fail, nodes are taken away, people suspend, and the
operator is restarted. A pass of the operator takes a fixed time of one worker.

One in fifty evolutions is checked at every step, as in the tests of the planner: order of stages,
one Job at a time, no result lost, conditions, promotion. It prints one JSON line. It holds if

- every evolution comes to its end, and none waits without a cause: from each event (a Job that
  starts or ends, a time that comes, an edit) to its pass it takes less than ``MOST_SECONDS``;
- the work queue never holds more keys than there are unfinished evolutions;
- the status of no evolution grows past its limit.

The periodic resync is simulated once in six hours, not each minute: its passes come last, and they
decide nothing where no event was lost.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from tests.unit.operator.planner.simulated_world import START, World, spec_of

from selfemo_api.stages import Stage
from selfemo_operator.controller.kube import workqueue
from selfemo_operator.controller.kube.fair_rotation import Limits
from selfemo_operator.planner.plan import plan
from selfemo_operator.planner.types import CreateJob, Decision, JobState

DAY = 86_400.0
#: The operator's workers, and the seconds of a pass: an API server takes 36 ms for a status.
WORKERS, PASS_SECONDS = 8, 0.05
#: Mean seconds of a stage that has its pods, and whether it needs a GPU.
STAGES = {
    Stage.CHECK: (40.0, False),
    Stage.WARM_START: (1500.0, True),
    Stage.SELF_PLAY: (1800.0, True),
    Stage.SCORE: (1200.0, True),
    Stage.FLYWHEEL: (90.0, False),
    Stage.TRAIN: (2400.0, True),
    Stage.EVALUATE: (300.0, True),
    Stage.PUBLISH: (30.0, False),
}
#: The shares of attempts that fail, and that lose their node.
FAIL, DISRUPT = 0.02, 0.03
#: The share of evolutions that somebody suspends for a day.
SUSPEND = 0.02
NAMESPACES, SWEEP, RESTARTS = 20, 100, 50
CHECK_EVERY = 50
MOST_SECONDS = 60.0
#: The generations after the baseline of most evolutions, for the number of GPUs.
_GENERATIONS = 3.0
_KINDS = {Stage.CHECK: 1.0, Stage.WARM_START: 1.0, Stage.EVALUATE: 1.0 + _GENERATIONS}


@dataclass
class Delays:
    """The seconds from an event to its pass."""

    values: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Return a quantile; 0 without values."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Cluster:
    """GPUs, and the Jobs that wait for one. First come, first served, as one Kueue queue does."""

    def __init__(self, gpus: int) -> None:
        self.free = gpus
        self.waiting: deque[tuple[str, str]] = deque()
        self.holders: set[tuple[str, str]] = set()
        self.most_waiting = 0

    def admit(self, start: Callable[[tuple[str, str]], bool]) -> None:
        """Start the Jobs at the front while there are GPUs."""
        while self.free and self.waiting:
            job = self.waiting.popleft()
            if start(job):
                self.free -= 1
                self.holders.add(job)

    def release(self, job: tuple[str, str]) -> None:
        """Take a Job's GPU back, if it has one."""
        if job in self.holders:
            self.holders.remove(job)
            self.free += 1


class Year:
    """The simulation.

    Parameters
    ----------
    evolutions
        The number of evolutions that come.
    days
        The days in which they come.
    load
        The share of the GPUs that is used on average.
    seed
        The seed of everything.
    """

    def __init__(self, evolutions: int, days: float, load: float, seed: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.days = days
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.worlds: dict[str, World] = {}
        self.known: dict[str, dict[str, int]] = {}
        self.outdated: Counter[tuple[str, str]] = Counter()
        self.since: dict[str, float] = {}
        self.requeues: dict[str, float] = {}
        self.delays = Delays()
        self.ends: Counter[str] = Counter()
        self.passes = self.stages = self.most_queued = self.most_unfinished = 0
        self.over_queue = 0
        self.busy = 0
        self.cluster = Cluster(gpus_for(evolutions, days, load))
        self.queue: workqueue.WorkQueue[str] = self.new_queue()
        self.plan_arrivals(evolutions)
        for _ in range(RESTARTS if days >= 30 else 1):
            self.at(self.chance.random() * days * DAY, self.restart)
        for number in range(1, int(days * 4)):
            self.at(number * DAY / 4, self.resync)

    # Time ------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self.count += 1
        heapq.heappush(self.events, (when, self.count, action))

    def run(self) -> None:
        """Let the time pass until all evolutions have ended."""
        workqueue.time = SimpleNamespace(monotonic=lambda: self.now)  # type: ignore[assignment]
        try:
            while self.events:
                self.now, _, action = heapq.heappop(self.events)
                action()
                self.serve()
                if not self.worlds and self.now > self.days * DAY:
                    return
        finally:
            workqueue.time = time

    # The operator ----------------------------------------------------------------------------

    def new_queue(self) -> workqueue.WorkQueue[str]:
        """Return the work queue of an operator that starts."""
        namespace = Limits(workers=WORKERS, group_of=lambda key: key.split("/")[0])
        return workqueue.WorkQueue(namespace)

    def touch(self, name: str) -> None:
        """Add an evolution to the work queue, because something has happened."""
        if name in self.worlds:
            self.since.setdefault(name, self.now)
            self.queue.add(name)

    def serve(self) -> None:
        """Let free workers take keys."""
        queued = len(self.queue)
        self.most_queued = max(self.most_queued, queued)
        self.over_queue += queued > len(self.worlds) + WORKERS
        while self.busy < WORKERS:
            self.queue._add_due()
            name = self.queue._pop()
            if name is None:
                break
            self.queue._usage.take(name)
            self.busy += 1
            queue = self.queue
            self.at(self.now + PASS_SECONDS, lambda n=name, q=queue: self.end_pass(n, q))

    def end_pass(self, name: str, queue: workqueue.WorkQueue[str]) -> None:
        """End a pass: its decision is carried out."""
        if queue is not self.queue:
            return  # of an operator that was killed
        self.busy -= 1
        world = self.worlds.get(name)
        if world is not None:
            world.now = START + timedelta(seconds=self.now)
            began = self.since.pop(name, None)
            self.requeues.pop(name, None)
            if began is not None:
                self.delays.values.append(self.now - began)
            self.passes += 1
            decision = self.reconcile(name, world)
            if decision.requeue_at is not None:
                seconds = (decision.requeue_at - world.now).total_seconds()
                self.queue.add_after(name, seconds)
                due = self.requeues[name] = self.now + max(0.0, seconds) + 1e-3
                self.at(due, lambda: self.come_due(name, due))
            self.follow_jobs(name, world)
            if world.status.finished and not world.spec.suspend:
                self.ends[world.summary] += 1
                del self.worlds[name], self.known[name]
        self.queue.done(name)

    def come_due(self, name: str, due: float) -> None:
        """Count from now on how long a pass takes whose time has come."""
        if self.requeues.get(name) == due and name in self.worlds:
            self.since.setdefault(name, self.now)

    def reconcile(self, name: str, world: World) -> Decision:
        """Run a pass: with all checks of the planner's tests for some evolutions."""
        if int(name.rsplit("-", 1)[1]) % CHECK_EVERY == 0:
            decision = world.reconcile()
            changed = decision.action is not None
        else:
            decision = plan(world.evolution, world.observed, world.now)
            changed = decision.status != world.status or decision.action is not None
            world.status = decision.status
            if decision.action is not None:
                world._act(decision, True, suspended=world.spec.suspend)
        self.stages += isinstance(decision.action, CreateJob)
        if changed:  # what was written comes back through the watch
            self.queue.add(name)
        return decision

    def restart(self) -> None:
        """Replace the operator: the queue is lost, and each evolution is listed."""
        self.queue, self.busy = self.new_queue(), 0
        for name in self.worlds:
            self.touch(name)

    def resync(self) -> None:
        """Add all evolutions with low priority."""
        for name in self.worlds:
            self.queue.add_low_priority(name)

    # People ----------------------------------------------------------------------------------

    def plan_arrivals(self, evolutions: int) -> None:
        """Draw when each evolution comes."""
        weights = [1.0 / (rank + 1) for rank in range(NAMESPACES)]
        number = 0
        while number < evolutions:
            sweep = self.chance.random() < 1 / SWEEP
            size = min(SWEEP if sweep else 1, evolutions - number)
            when = self.chance.random() * self.days * DAY
            (tenant,) = self.chance.choices(range(NAMESPACES), weights)
            for _ in range(size):
                name = f"tenant{tenant:02d}/evolution-{number}"
                self.at(when, lambda n=name: self.arrive(n))
                number += 1

    def arrive(self, name: str) -> None:
        """Let a person create an evolution."""
        chance = self.chance
        f1 = chance.uniform(0.3, 0.5)
        f1s = [f1]
        for _ in range(4):
            f1s.append(min(0.99, max(f1s) + chance.gauss(0.004, 0.01)))
        world = World(
            spec=spec_of(
                stopping={"maxGenerations": chance.randint(1, 4), "patience": 2},
                warmStart={"steps": 100 if chance.random() < 0.7 else 0},
                queue={"name": "gpus"},
                failurePolicy={"maxAttempts": 5, "maxDisruptions": 20},
            ),
            f1s=tuple(round(value, 4) for value in f1s),
            now=START + timedelta(seconds=self.now),
        )
        self.worlds[name] = world
        self.known[name] = {}
        self.most_unfinished = max(self.most_unfinished, len(self.worlds))
        self.touch(name)
        if chance.random() < SUSPEND:
            when = self.now + chance.random() * DAY
            self.at(when, lambda: self.suspend(name, suspended=True))
            self.at(when + DAY, lambda: self.suspend(name, suspended=False))

    def suspend(self, name: str, *, suspended: bool) -> None:
        """Let a person suspend or resume an evolution."""
        world = self.worlds.get(name)
        if world is not None:
            world.now = START + timedelta(seconds=self.now)
            world.edit(suspend=suspended)
            self.touch(name)

    # The cluster -----------------------------------------------------------------------------

    def follow_jobs(self, name: str, world: World) -> None:
        """Let the cluster see which Jobs were created, suspended, resumed or deleted."""
        known = self.known[name]
        for job in [job for job in known if job not in world.jobs]:
            self.forget(name, job)
            del known[job]
        for job in list(world.jobs.values()):
            waits = job.state in (JobState.PENDING, JobState.QUEUED)
            if job.state is JobState.SUSPENDED and known.get(job.name) == 1:
                self.forget(name, job.name)
                known[job.name] = 0
                world.set_job(job.name, JobState.QUEUED)
            elif waits and known.get(job.name) != 1:
                known[job.name] = 1
                if STAGES[job.stage][1]:
                    world.set_job(job.name, JobState.QUEUED, start_time=None, pending_since=None)
                    self.cluster.waiting.append((name, job.name))
                    waiting = len(self.cluster.waiting)
                    self.cluster.most_waiting = max(self.cluster.most_waiting, waiting)
                else:
                    self.start((name, job.name))
        self.cluster.admit(self.start)

    def forget(self, name: str, job: str) -> None:
        """End what a Job does, and free its GPU."""
        self.outdated[name, job] += 1
        self.cluster.release((name, job))
        if (name, job) in self.cluster.waiting:
            self.cluster.waiting.remove((name, job))
        self.at(self.now, lambda: self.cluster.admit(self.start))

    def start(self, place: tuple[str, str]) -> bool:
        """Give a Job its pods; return whether it still wants them."""
        name, job = place
        world = self.worlds.get(name)
        if world is None or job not in world.jobs:
            return False
        version = self.outdated[place]
        mean = STAGES[world.jobs[job].stage][0]
        seconds = mean * self.chance.lognormvariate(-0.125, 0.5)
        self.at(self.now + 5, lambda: self.change(place, version, JobState.RUNNING))
        draw = self.chance.random()
        if draw < FAIL + DISRUPT:
            when = self.now + 6 + seconds * self.chance.random()
            state = "fail" if draw < FAIL else "disrupt"
            self.at(when, lambda: self.end_job(place, version, state))
        else:
            self.at(self.now + 6 + seconds, lambda: self.end_job(place, version, "succeed"))
        return True

    def change(self, place: tuple[str, str], version: int, state: JobState) -> None:
        """Let a Job come to a state, unless it was suspended or deleted since."""
        name, job = place
        world = self.worlds.get(name)
        if world is None or self.outdated[place] != version or job not in world.jobs:
            return
        world.now = START + timedelta(seconds=self.now)
        world.set_job(job, state)
        self.touch(name)

    def end_job(self, place: tuple[str, str], version: int, how: str) -> None:
        """Let a Job end."""
        name, job = place
        world = self.worlds.get(name)
        if world is None or self.outdated[place] != version or job not in world.jobs:
            return
        world.now = START + timedelta(seconds=self.now)
        if how == "succeed":
            world.succeed(job)
        else:
            world.fail(job, 1, disrupted=how == "disrupt")
        self.cluster.release(place)
        self.touch(name)
        self.cluster.admit(self.start)


def gpus_for(evolutions: int, days: float, load: float) -> int:
    """Return the number of GPUs at which a share of them is used on average."""
    seconds = sum(
        mean * _KINDS.get(stage, _GENERATIONS if stage is not Stage.WARM_START else 0.7)
        for stage, (mean, on_gpu) in STAGES.items()
        if on_gpu
    )
    return max(1, math.ceil(evolutions * seconds / (days * DAY) / load))


def simulate(evolutions: int, days: float, load: float = 0.8, seed: int = 0) -> dict[str, Any]:
    """Return the JSON line of a simulated year."""
    began = time.perf_counter()
    year = Year(evolutions, days, load, seed)
    gpus = year.cluster.free
    year.run()
    slowest = year.delays.quantile(1.0)
    return {
        "name": f"year: {evolutions:,} evolutions in {days:g} days, longest wait for a pass",
        "value": round(slowest, 2),
        "unit": "s",
        "goal": MOST_SECONDS,
        "holds": not year.worlds and slowest < MOST_SECONDS and not year.over_queue,
        "p50": round(year.delays.quantile(0.5), 3),
        "p99": round(year.delays.quantile(0.99), 3),
        "unfinished": len(year.worlds),
        "ends": dict(year.ends.most_common()),
        "stages": year.stages,
        "passes": year.passes,
        "mostQueuedKeys": year.most_queued,
        "mostUnfinishedEvolutions": year.most_unfinished,
        "gpus": gpus,
        "mostJobsWaitingForGpus": year.cluster.most_waiting,
        "days": round(year.now / DAY, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run the simulation and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evolutions", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    line = simulate(arguments.evolutions, arguments.days, arguments.load, arguments.seed)
    print(json.dumps(line))
    sys.exit(0 if line["holds"] else 1)


if __name__ == "__main__":
    main()
