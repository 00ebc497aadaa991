"""Leader election: never two leaders at the same time, and always one in the end."""

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
    """A client with one Lease, with resource versions."""

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
    """A stop event that advances a clock when it is waited for."""

    def __init__(self, clock: Clock, after: float = 1000.0) -> None:
        self.clock, self.after = clock, after

    def is_set(self) -> bool:
        return self.clock.now >= self.after

    def wait(self, seconds: float) -> bool:
        self.clock.now += seconds
        return self.is_set()


def new_elector(leases: Leases, identity: str, clock: Clock) -> LeaderElector:
    return LeaderElector(leases, NAMESPACE, NAME, identity, clock)  # type: ignore[arg-type]


def test_the_first_acquires_and_renews_the_lease() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    assert one.try_acquire_or_renew()
    assert one.try_acquire_or_renew()
    assert leases.holder == "one"
    assert leases.writes == 2
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 0


def test_the_second_waits_for_the_lease_duration() -> None:
    leases, clock = Leases(), Clock()
    one, two = new_elector(leases, "one", clock), new_elector(leases, "two", clock)
    one.try_acquire_or_renew()
    assert not two.try_acquire_or_renew()
    clock.now += LEASE_DURATION - 1
    one.try_acquire_or_renew()  # renewed: the duration starts again
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
    assert new_elector(leases, "one", here).try_acquire_or_renew()
    two = new_elector(leases, "two", there)
    assert not two.try_acquire_or_renew()


def test_a_released_lease_is_acquired_at_once() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    one.try_acquire_or_renew()
    one.release()
    assert leases.holder == ""
    assert new_elector(leases, "two", clock).try_acquire_or_renew()
    one.release()
    assert leases.holder == "two", "the Lease of another is not released"


def test_a_lease_without_a_spec_is_acquired() -> None:
    leases = Leases(lease={"metadata": {"resourceVersion": "1"}})
    assert new_elector(leases, "one", Clock()).try_acquire_or_renew()
    assert leases.holder == "one"


def test_a_conflict_does_not_acquire_the_lease() -> None:
    leases, clock = Leases(), Clock()
    two = new_elector(leases, "two", clock)

    def get(path: str) -> Json:
        lease = Leases.get(leases, path)
        new_elector(copy.copy(leases), "x", clock)
        leases.version += 1
        assert leases.lease is not None
        leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        return lease

    new_elector(leases, "one", clock).try_acquire_or_renew()
    leases.lease["spec"]["holderIdentity"] = ""  # type: ignore[index]
    leases.get = get  # type: ignore[method-assign]
    assert not two.try_acquire_or_renew()


def test_renewing_ends_with_the_stop() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    one.try_acquire_or_renew()
    assert one.renew(Stop(clock, after=60.0))  # type: ignore[arg-type]
    assert leases.writes > 10


def test_an_isolated_leader_stops_before_another_may_start() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    one.try_acquire_or_renew()
    leases.down = True
    assert not one.renew(Stop(clock))  # type: ignore[arg-type]
    assert RENEW_DEADLINE < clock.now <= RENEW_DEADLINE + RETRY_PERIOD
    # the worst case: the last attempt takes two requests of the longest duration
    assert RENEW_DEADLINE + RETRY_PERIOD + 2 * REQUEST_TIMEOUT < LEASE_DURATION
    assert leases.limits == [REQUEST_TIMEOUT], "a hanging request must not block a leader"


def test_all_times_are_scaled_with_the_duration() -> None:
    """With a Lease of four times the length, all of them are four times as long."""
    leases, clock = Leases(), Clock()
    kube: Any = leases
    one = LeaderElector(kube, NAMESPACE, NAME, "one", clock, duration=4 * LEASE_DURATION)
    two = LeaderElector(kube, NAMESPACE, NAME, "two", clock, duration=4 * LEASE_DURATION)
    assert one.try_acquire_or_renew()
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseDurationSeconds"] == 60
    assert not two.try_acquire_or_renew()
    leases.down = True
    assert not one.renew(Stop(clock))  # type: ignore[arg-type]
    assert 4 * RENEW_DEADLINE < clock.now <= 4 * (RENEW_DEADLINE + RETRY_PERIOD)
    assert leases.limits == [4 * REQUEST_TIMEOUT] * 2
    leases.down = False
    clock.now = 60.0
    assert not two.try_acquire_or_renew()
    clock.now = 61.0
    assert two.try_acquire_or_renew()


def test_a_replaced_leader_stops_at_once() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    one.try_acquire_or_renew()
    assert leases.lease is not None
    leases.lease["spec"]["holderIdentity"] = "two"
    assert not one.renew(Stop(clock))  # type: ignore[arg-type]
    assert clock.now <= 3.0


def test_a_short_outage_does_not_lose_the_lease() -> None:
    leases, clock = Leases(), Clock()
    one = new_elector(leases, "one", clock)
    one.try_acquire_or_renew()

    class Flaky(Stop):
        def wait(self, seconds: float) -> bool:
            ended = super().wait(seconds)
            leases.down = 5 < clock.now % 20 < 10
            return ended

    assert one.renew(Flaky(clock, after=200.0))  # type: ignore[arg-type]


def test_acquiring_ends_with_the_stop() -> None:
    leases, clock = Leases(), Clock()
    new_elector(leases, "one", clock).try_acquire_or_renew()
    stop = threading.Event()
    stop.set()
    assert not new_elector(leases, "two", clock).acquire(stop)


def test_identities_are_unique_and_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "")
    jobs = JobSettings(image="i")
    one, two = Settings(jobs=jobs).identity, Settings(jobs=jobs).identity
    assert one
    assert one != two
    monkeypatch.setenv("POD_NAME", "pod-7")
    assert Settings(jobs=jobs).identity == "pod-7"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 8.0)), max_size=60))
def test_there_are_never_two_leaders(attempts: list[tuple[str, float]]) -> None:
    """After a success an elector leads until its deadline; no two lead at the same time."""
    leases, clock = Leases(), Clock()
    electors = {name: new_elector(leases, name, clock) for name in "ab"}
    until = dict.fromkeys("ab", -1.0)
    for name, seconds in attempts:
        clock.now += seconds
        if electors[name].try_acquire_or_renew():
            other = "b" if name == "a" else "a"
            assert until[other] <= clock.now, "two leaders"
            until[name] = clock.now + RENEW_DEADLINE + RETRY_PERIOD + 2 * REQUEST_TIMEOUT
        else:
            until[name] = -1.0
