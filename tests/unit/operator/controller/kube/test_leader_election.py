"""Leader election: never two at once by their own clocks, and never none for ever."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.kube.leader_election import (
    LEASE_DURATION,
    RENEW_DEADLINE,
    REQUEST_TIMEOUT,
    RETRY_PERIOD,
    LeaderElector,
)
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.settings import JobSettings, Settings

Json = dict[str, Any]
NAMESPACE, NAME = "system", "selfemo-operator"
PATH = names.lease_path(NAMESPACE, NAME)


@dataclass
class Leases:
    """Holds one Lease, with resource versions."""

    lease: Json | None = None
    version: int = 0
    down: bool = False
    writes: int = 0
    limits: list[float] = field(default_factory=list)

    def with_timeout(self, seconds: float) -> Leases:
        self.limits.append(seconds)
        return self

    def get(self, path: str) -> Json:
        self._check()
        if self.lease is None:
            raise ApiError(404, "NotFound", path)
        return copy.deepcopy(self.lease)

    def create(self, path: str, body: Json) -> Json:
        self._check()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", path)
        return self._store(body)

    def replace(self, path: str, body: Json) -> Json:
        self._check()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        return self._store(body)

    def _check(self) -> None:
        if self.down:
            raise ApiError(0, "Unreachable", "down")

    def _store(self, body: Json) -> Json:
        self.version += 1
        self.writes += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Stop:
    """A stop flag whose waits move a clock, and call what happens meanwhile."""

    def __init__(self, clock: Clock, after: float = 1000.0) -> None:
        self.clock, self.after = clock, after

    def is_set(self) -> bool:
        return self.clock.now >= self.after

    def wait(self, seconds: float) -> bool:
        self.clock.now += seconds
        return self.is_set()


def elector(leases: Leases, identity: str, clock: Clock) -> LeaderElector:
    return LeaderElector(leases, NAMESPACE, NAME, identity, clock)  # type: ignore[arg-type]


def test_the_first_takes_it_and_renews() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    assert one.try_acquire_or_renew()
    assert one.try_acquire_or_renew()
    assert leases.holder == "one"
    assert leases.writes == 2
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 0


def test_the_second_waits_until_it_has_stood_still_for_its_duration() -> None:
    leases, clock = Leases(), Clock()
    one, two = elector(leases, "one", clock), elector(leases, "two", clock)
    one.try_acquire_or_renew()
    assert not two.try_acquire_or_renew()
    clock.now += LEASE_DURATION - 1
    one.try_acquire_or_renew()  # renewed: the count starts again
    assert not two.try_acquire_or_renew()
    clock.now += LEASE_DURATION
    assert not two.try_acquire_or_renew()
    clock.now += 1
    assert two.try_acquire_or_renew()
    assert leases.holder == "two"
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1
    assert not one.try_acquire_or_renew()


def test_clocks_of_two_machines_are_never_compared() -> None:
    leases = Leases()
    here, there = Clock(0.0), Clock(1_000_000.0)
    assert elector(leases, "one", here).try_acquire_or_renew()
    two = elector(leases, "two", there)
    assert not two.try_acquire_or_renew()


def test_one_that_was_given_back_is_taken_at_once() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    one.try_acquire_or_renew()
    one.release()
    assert leases.holder == ""
    assert elector(leases, "two", clock).try_acquire_or_renew()
    one.release()
    assert leases.holder == "two", "another's is not given back"


def test_a_lease_made_by_hand_without_a_spec_is_taken() -> None:
    leases = Leases(lease={"metadata": {"resourceVersion": "1"}})
    assert elector(leases, "one", Clock()).try_acquire_or_renew()
    assert leases.holder == "one"


def test_who_loses_the_race_does_not_lead() -> None:
    leases, clock = Leases(), Clock()
    two = elector(leases, "two", clock)

    def get(path: str) -> Json:
        found = Leases.get(leases, path)
        elector(copy.copy(leases), "x", clock)
        leases.version += 1
        assert leases.lease is not None
        leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        return found

    elector(leases, "one", clock).try_acquire_or_renew()
    leases.lease["spec"]["holderIdentity"] = ""  # type: ignore[index]
    leases.get = get  # type: ignore[method-assign]
    assert not two.try_acquire_or_renew()


def test_keeping_ends_well_when_told_to_stop() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    one.try_acquire_or_renew()
    assert one.renew(Stop(clock, after=60.0))  # type: ignore[arg-type]
    assert leases.writes > 10


def test_a_leader_that_is_cut_off_stops_before_another_may_start() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    one.try_acquire_or_renew()
    leases.down = True
    assert not one.renew(Stop(clock))  # type: ignore[arg-type]
    assert RENEW_DEADLINE < clock.now <= RENEW_DEADLINE + RETRY_PERIOD
    # the worst case: the last try takes two requests of their longest
    assert RENEW_DEADLINE + RETRY_PERIOD + 2 * REQUEST_TIMEOUT < LEASE_DURATION
    assert leases.limits == [REQUEST_TIMEOUT], (
        "a request that hangs must not hold a leader for a minute"
    )


def test_a_leader_that_was_replaced_stops_at_once() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    one.try_acquire_or_renew()
    assert leases.lease is not None
    leases.lease["spec"]["holderIdentity"] = "two"
    assert not one.renew(Stop(clock))  # type: ignore[arg-type]
    assert clock.now <= 3.0


def test_a_short_outage_costs_nothing() -> None:
    leases, clock = Leases(), Clock()
    one = elector(leases, "one", clock)
    one.try_acquire_or_renew()

    class Flaky(Stop):
        def wait(self, seconds: float) -> bool:
            ended = super().wait(seconds)
            leases.down = 5 < clock.now % 20 < 10
            return ended

    assert one.renew(Flaky(clock, after=200.0))  # type: ignore[arg-type]


def test_waiting_ends_with_the_stop() -> None:
    leases, clock = Leases(), Clock()
    elector(leases, "one", clock).try_acquire_or_renew()
    stop = threading.Event()
    stop.set()
    assert not elector(leases, "two", clock).acquire(stop)


def test_an_identity_is_never_empty_and_no_two_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "")
    jobs = JobSettings(image="i")
    one, two = Settings(jobs=jobs).identity, Settings(jobs=jobs).identity
    assert one
    assert one != two
    monkeypatch.setenv("POD_NAME", "pod-7")
    assert Settings(jobs=jobs).identity == "pod-7"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 8.0)), max_size=60))
def test_there_are_never_two_leaders(tries: list[tuple[str, float]]) -> None:
    """Each believes that it leads for LEASE_DURATION after a success, and no two do at once."""
    leases, clock = Leases(), Clock()
    electors = {name: elector(leases, name, clock) for name in "ab"}
    until = dict.fromkeys("ab", -1.0)
    for name, seconds in tries:
        clock.now += seconds
        if electors[name].try_acquire_or_renew():
            other = "b" if name == "a" else "a"
            assert until[other] <= clock.now, "two lead"
            until[name] = clock.now + RENEW_DEADLINE + RETRY_PERIOD + 2 * REQUEST_TIMEOUT
        else:
            until[name] = -1.0
