"""The local runner: how an attempt ended, and when a run has come to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.operator.controller.kube_objects import action_of, evolution_of
from tests.unit.operator.planner.simulated_world import World, spec_of

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.results import FailureMessage, encode_message
from selfemo_api.stages import Stage
from selfemo_api.status import Phase
from selfemo_operator.local.runner import ProcessRunner, run_local
from selfemo_operator.local.state import LocalState
from selfemo_operator.planner.types import JobState


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[ProcessRunner]:
    state = LocalState(tmp_path / "state")
    yield ProcessRunner(state, {})
    state.close()


class Ended:
    """A process that has ended."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = ExitCode.TERMINATED

    def wait(self, timeout: float | None = None) -> int | None:
        return self.code


def test_a_shard_that_cannot_read_a_result_explains_the_end_of_all(runner: ProcessRunner) -> None:
    """The others are terminated because of it, and their messages say only that."""
    action = action_of(evolution_of())
    folder = runner.state.create_job(action.name, action.attempt, action.config)
    terminated = FailureMessage(error="ended by SIGTERM", kind="Terminated")
    damaged = FailureMessage(error="a part is gone", kind="DamagedResult", damaged=Stage.CHECK)
    for shard, message in enumerate((terminated, damaged)):
        (folder.path / f"termination-{shard}.json").write_text(encode_message(message))
    runner.processes[action.name] = [Ended(None), Ended(65)]  # type: ignore[list-item]
    (job,) = runner.observe().jobs
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert (job.failure.message, job.failure.exit_code) == ("a part is gone", 65)
    assert job.failure.damaged is Stage.CHECK


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_stage_that_the_runner_stops_has_not_failed(
    runner: ProcessRunner, is_stopped: bool
) -> None:
    """Another SIGTERM, for example of a machine that shuts down, is a disruption."""
    action = action_of(evolution_of())
    folder = runner.state.create_job(action.name, action.attempt, action.config)
    message = FailureMessage(error="ended by SIGTERM", kind="Terminated")
    (folder.path / "termination-0.json").write_text(encode_message(message))
    code = None if is_stopped else ExitCode.TERMINATED
    runner.processes[action.name] = [Ended(code)]  # type: ignore[list-item]
    runner.observe()
    runner.close()
    (job,) = runner.observe().jobs
    assert (job.state, runner.processes) == (JobState.FAILED, {})
    assert job.failure is not None
    assert (job.failure.exit_code, job.failure.stopped) == (ExitCode.TERMINATED, is_stopped)


class EndlessLoop(Exception):
    """A run did not return."""


def run_to_rest(evolution: EmotionEvolution, runner: ProcessRunner) -> EmotionEvolution:
    """Return the evolution after it has run. A run in which nothing is left to do is short."""
    passes = 0

    def on_pass(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes > 5:
            raise EndlessLoop

    return run_local(evolution, runner, on_pass)


def test_a_run_does_not_depend_on_who_manages_the_evolution_on_a_cluster(
    runner: ProcessRunner,
) -> None:
    evolution = World(spec=spec_of(managedBy="example.com/other", suspend=True)).evolution
    ended = run_to_rest(evolution, runner)
    assert (ended.status.phase, ended.status.stage) == (Phase.SUSPENDED, Stage.CHECK)


@pytest.mark.parametrize("ttl", [0, 100])
def test_a_time_to_live_that_has_passed_ends_no_run_and_deletes_nothing(
    runner: ProcessRunner, ttl: int
) -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 1}, ttlSecondsAfterFinished=ttl))
    while not world.status.finished:
        world.step()
    runner.state.save(world.evolution)  # the clock of the runner is later
    assert run_to_rest(world.evolution, runner) == world.evolution
    assert (runner.state.folder / "evolution.json").is_file()
