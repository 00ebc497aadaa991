"""When the pods of a Job that has not started are listed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from selfemo_api.stages import Stage
from selfemo_operator.controller.reconcile.pod_checks import (
    FIRST_LOOK,
    LATEST_LOOK,
    LOOKS_A_MINUTE,
    PodChecks,
)
from selfemo_operator.planner.types import JobState, Observed, StageJob

KEY, NOW = ("team", "demo"), datetime(2026, 1, 1, tzinfo=UTC)


def observed(
    name: str, state: JobState, created: datetime = NOW, *, queued: bool = False
) -> Observed:
    job = StageJob(name, 1, Stage.SCORE, 1, state, create_time=created, queued=queued)
    return Observed((job,))


def checks_after(*seconds: float, state: JobState = JobState.RUNNING) -> PodChecks:
    """Return the checks after Jobs that took these times to start."""
    checks = PodChecks()
    for number, wait in enumerate(seconds):
        name = f"job-{number}"
        checks.created(KEY, name, NOW)
        checks.next_check(KEY, observed(name, JobState.PENDING), NOW)
        checks.next_check(KEY, observed(name, state), NOW + timedelta(seconds=wait))
        checks.next_check(KEY, observed(name, state), NOW + timedelta(hours=9))
    return checks


def test_a_job_is_looked_at_after_a_few_seconds() -> None:
    checks = checks_after(2, 3, 2)
    assert checks.created(KEY, "next", NOW) == NOW + FIRST_LOOK


def test_it_is_looked_at_twice_and_then_no_more() -> None:
    checks, job = PodChecks(), observed("job", JobState.PENDING)
    first = checks.next_check(KEY, job, NOW)
    assert first == NOW + FIRST_LOOK
    second = checks.next_check(KEY, job, first)
    assert second is not None
    assert checks.next_check(KEY, job, second) is None


def test_a_job_without_running_pods_is_looked_at_each_minute() -> None:
    job = StageJob("job", 1, Stage.SCORE, 1, JobState.RUNNING, idle_since=NOW)
    at, looks = NOW, []
    for _ in range(3):
        found = PodChecks().next_check(KEY, Observed((job,)), at)
        assert found is not None
        looks.append(round((found - NOW).total_seconds()))
        at = found
    assert looks == [31, 91, 151]


def test_where_jobs_take_long_to_start_a_job_is_looked_at_later() -> None:
    assert checks_after(*[20.0] * 8).created(KEY, "next", NOW) == NOW + timedelta(seconds=40)
    assert checks_after(*[1.0] * 8).created(KEY, "next", NOW) == NOW + FIRST_LOOK
    assert checks_after(*[7200.0] * 8).created(KEY, "next", NOW) == NOW + LATEST_LOOK
    assert checks_after(*[1.0] * 9, *[7200.0] * 8).created(KEY, "next", NOW) == NOW + FIRST_LOOK


def test_where_the_first_look_comes_late_there_is_no_second_one_before_it() -> None:
    checks, job = checks_after(*[20.0] * 8), observed("job", JobState.PENDING)
    first = checks.next_check(KEY, job, NOW)
    assert first == NOW + timedelta(seconds=40)
    assert checks.next_check(KEY, job, first) is None


def test_with_many_jobs_that_wait_looks_are_further_apart() -> None:
    def look(waiting: int) -> timedelta:
        checks = checks_after(*[100.0] * 8)
        times = [checks.created(("team", f"e{n}"), "job", NOW) for n in range(waiting)]
        return times[-1] - NOW

    assert look(LOOKS_A_MINUTE) == LATEST_LOOK
    assert look(2 * LOOKS_A_MINUTE) == 2 * LATEST_LOOK
    assert look(9 * LOOKS_A_MINUTE) == timedelta(seconds=200)


def test_the_usual_time_follows_the_last_jobs() -> None:
    checks = checks_after(*[20.0] * 64, *[1.0] * 64)
    assert checks.created(KEY, "next", NOW) == NOW + FIRST_LOOK


def test_a_wait_in_a_queue_does_not_count() -> None:
    checks = PodChecks()
    for number in range(8):
        checks.created(KEY, f"job-{number}", NOW)
        running = observed(f"job-{number}", JobState.RUNNING, queued=True)
        checks.next_check(KEY, running, NOW + timedelta(seconds=50))
    assert checks.created(KEY, "next", NOW) == NOW + FIRST_LOOK
