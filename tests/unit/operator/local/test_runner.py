"""The local runner records how an attempt ended: the message of the shard that failed counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.operator.controller.kube_objects import action_of, evolution_of

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage, encode_message
from selfemo_api.stages import Stage
from selfemo_operator.local.runner import ProcessRunner
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
