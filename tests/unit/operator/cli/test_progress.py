"""The bars of `selfemo run`: what a terminal shows while stages run and end."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyte
import pytest
from rich.console import Console
from tests.support import recorded

from selfemo_api.stages import Stage, job_name
from selfemo_api.status import StageResult
from selfemo_operator.cli.output_format import PlainConsole
from selfemo_operator.cli.terminal.progress import Progress
from selfemo_operator.local.state import JobFolder, LocalState
from selfemo_operator.planner.types import Failure, JobState, Observed, StageJob

ROWS, COLUMNS = 24, 100
END = recorded.evolution()
STAGES = (Stage.SELF_PLAY, Stage.SCORE, Stage.FLYWHEEL, Stage.TRAIN, Stage.EVALUATE, Stage.PUBLISH)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[LocalState]:
    folder = LocalState(tmp_path / "default" / "demo", "selfemo run")
    yield folder
    folder.close()


def job(generation: int, stage: Stage) -> StageJob:
    name = job_name("demo", generation, stage, 1)
    return StageJob(name, generation, stage, 1, JobState.RUNNING)


def done(running: StageJob) -> StageJob:
    result = StageResult(
        stage=running.stage,
        generation=running.generation,
        manifest="file:///manifest.json",
        manifest_sha256="0" * 64,
        rows=3,
        seconds=2.0,
        metrics={"loss": 0.25},
    )
    return replace(running, state=JobState.SUCCEEDED, result=result)


def failed(running: StageJob, message: str) -> StageJob:
    return replace(running, state=JobState.FAILED, failure=Failure(message, exit_code=1))


def terminal() -> Console:
    return PlainConsole(file=io.StringIO(), force_terminal=True, width=COLUMNS, height=ROWS)


def screen(console: Console) -> list[str]:
    """Return the lines that a terminal shows after all that was written to it."""
    shown = pyte.Screen(COLUMNS, ROWS)
    shown.set_mode(pyte.modes.LNM)  # as a terminal's driver, which adds the carriage return
    pyte.Stream(shown).feed(console.file.getvalue())  # type: ignore[attr-defined]
    return [line.rstrip() for line in shown.display if line.strip()]


def test_the_running_stage_is_on_the_screen_after_any_number_of_stages(state: LocalState) -> None:
    console = terminal()
    jobs: list[StageJob] = []
    with Progress(console, state) as progress:
        for generation in range(1, 9):
            for stage in STAGES:
                jobs.append(job(generation, stage))
                progress.update(END, Observed(tuple(jobs)))
                jobs[-1] = done(jobs[-1])
                progress.update(END, Observed(tuple(jobs)))
        jobs.append(job(9, Stage.TRAIN))
        folder = JobFolder(state.jobs / jobs[-1].name)
        folder.path.mkdir()
        line = {"message": "progress", "done": 3, "total": 10, "loss": 0.5}
        folder.log.write_text(json.dumps(line) + "\n")
        progress.update(END, Observed(tuple(jobs)))
        progress._bars.refresh()
        lines = screen(console)
    assert lines[-1].startswith("generation 9 Train")
    assert "3/10" in lines[-1]
    assert lines[-1].endswith("loss 0.5")
    assert lines[-2] == "generation 8 Publish  : 3 rows in 2 s loss 0.25"
    ended = [line for line in console.file.getvalue().splitlines() if "rows in" in line]  # type: ignore[attr-defined]
    assert len(ended) == 8 * len(STAGES), "each ended stage has one line"


def test_a_failed_stage_is_a_line_and_its_next_attempt_a_bar(state: LocalState) -> None:
    console = terminal()
    first = job(1, Stage.TRAIN)
    second = replace(first, name=job_name("demo", 1, Stage.TRAIN, 2), attempt=2)
    with Progress(console, state) as progress:
        progress.update(END, Observed((first,)))
        progress.update(END, Observed((failed(first, "it was killed\nby signal 9"),)))
        progress.update(END, Observed((failed(first, "it was killed\nby signal 9"), second)))
        progress._bars.refresh()
        lines = screen(console)
    assert lines[0] == "generation 1 Train    : it was killed"
    assert lines[1].startswith("generation 1 Train     (attempt 2)")
    assert len(lines) == 2


def test_without_a_terminal_a_stage_has_a_line_at_its_begin_and_at_its_end(
    state: LocalState,
) -> None:
    console = PlainConsole(file=io.StringIO(), width=COLUMNS)
    running = job(0, Stage.EVALUATE)
    with Progress(console, state) as progress:
        for now in (running, running, done(running), done(running)):
            progress.update(END, Observed((now,)))
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "generation 0 Evaluate  …",
        "generation 0 Evaluate : 3 rows in 2 s loss 0.25",
    ]
