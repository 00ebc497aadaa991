"""`selfemo logs`: which Jobs are printed, and how."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from tests.support.selfemo_commands import Outcome, invoke
from tests.unit.operator.cli.runs.test_run_list import named

from selfemo_api.stages import Stage, job_name
from selfemo_operator.local.state import JobFolder, LocalState, write_record

TIME = "2026-11-28T18:00:0{}.123+00:00"


class Run:
    """A state folder with the logs of stages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = LocalState(root / "default" / "demo", "selfemo run")
        self.state.save(named("demo"))
        self.count = 0

    def job(self, generation: int, stage: Stage, *lines: str, attempt: int = 1) -> Path:
        """Add a Job, and return its log."""
        self.count += 1
        folder = JobFolder(self.state.jobs / job_name("demo", generation, stage, attempt))
        folder.path.mkdir()
        created = f"2026-11-28T18:00:{self.count:02d}+00:00"
        record = {"generation": generation, "stage": stage.value, "attempt": attempt}
        write_record(folder, {**record, "createTime": created})
        folder.log.write_text("".join(f"{line}\n" for line in lines))
        return folder.log

    def logs(self, *options: str) -> Outcome:
        return invoke("selfemo", "logs", "demo", "--state", str(self.root), *options)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "state")


def line(number: int, message: str, **fields: object) -> str:
    head = {"time": TIME.format(number), "level": "info", "stage": "x", "logger": "y"}
    return json.dumps({**head, "message": message, **fields})


def test_the_newest_stage_is_printed_as_text(run: Run) -> None:
    run.job(0, Stage.EVALUATE, line(1, "first"))
    error = json.dumps({**json.loads(line(3, "it failed")), "level": "error", "traceback": "a\nb"})
    run.job(1, Stage.TRAIN, line(2, "progress", done=1, loss=0.123456), "a library", error)
    outcome = run.logs()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "18:00:02Z   1 Train      progress done=1 loss=0.1235\n"
        "            1 Train      a library\n"
        "18:00:03Z   1 Train      ERROR it failed\n"
        "18:00:03Z   1 Train      a\n"
        "18:00:03Z   1 Train      b\n"
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-11-28T18:00:01.123+00:00", "18:00:01Z"),
        ("2026-11-28T19:30:01+01:30", "18:00:01Z"),
        ("2026-11-28T18:00:01", "18:00:01"),  # of a library, in a zone that it does not name
        ("2026-12-01T\x1b[2J\x1b[H", ""),
        ("0001-01-01T00:00:00+01:00", ""),  # before the first time that UTC has
        (1764352801, ""),
        (None, ""),
    ],
    ids=ascii,
)
def test_a_time_is_shown_only_if_it_is_one(run: Run, written: object, shown: str) -> None:
    run.job(1, Stage.TRAIN, json.dumps({"time": written, "message": "hello"}))
    assert run.logs().out == f"{shown:9}   1 Train      hello\n"


def test_stages_and_generations_are_selected(run: Run) -> None:
    run.job(0, Stage.EVALUATE, line(1, "baseline"))
    run.job(1, Stage.TRAIN, line(2, "killed"))
    run.job(1, Stage.TRAIN, line(3, "trained"), attempt=2)
    run.job(1, Stage.EVALUATE, line(4, "evaluated"))
    messages = {
        (): ["evaluated"],
        ("--generation", "1"): ["killed", "trained", "evaluated"],
        ("--stage", "Evaluate"): ["baseline", "evaluated"],
        ("--stage", "Train", "--generation", "1"): ["killed", "trained"],
    }
    for options, expected in messages.items():
        lines = run.logs(*options, "-o", "json").out.splitlines()
        assert [json.loads(text)["message"] for text in lines] == expected
    assert "1 Train     (2)  trained" in run.logs("--stage", "Train").out


def test_json_lines_are_as_they_are(run: Run) -> None:
    run.job(1, Stage.TRAIN, line(1, "é", x=[1]), "a library\x1b[31m")
    assert run.logs("-o", "json").out == f"{line(1, 'é', x=[1])}\na library\x1b[31m\n"
    assert "\x1b" not in run.logs().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no stage of demo has started"),
        (("--stage", "Train"), "demo: Train has not started: `selfemo status demo` shows its"),
        (("--generation", "3"), "demo: no stage of generation 3 has started"),
        (("--stage", "Train", "--generation", "3"), "demo: Train of generation 3 has not started"),
    ],
)
def test_nothing_to_print(run: Run, options: tuple[str, ...], message: str) -> None:
    run.state.close()
    outcome = run.logs(*options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"selfemo logs: {message}")


def test_following_ends_with_the_runner_and_goes_on_to_later_stages(run: Run) -> None:
    run.job(1, Stage.SCORE, line(1, "before"))
    log = run.job(1, Stage.TRAIN, line(2, "one"))
    log.write_text(log.read_text() + line(3, "half")[:20])  # the rest comes later

    def write() -> None:
        time.sleep(0.5)
        with log.open("a") as file:
            file.write(line(3, "half")[20:] + "\n")
        run.job(1, Stage.EVALUATE, line(4, "evaluated"))
        time.sleep(0.5)
        run.state.close()

    writer = threading.Thread(target=write)
    writer.start()
    out = run.logs("--follow", "-o", "json").out
    writer.join()
    messages = [json.loads(text)["message"] for text in out.splitlines()]
    assert messages == ["one", "half", "evaluated"]


def test_following_a_run_that_has_ended_prints_what_is_there(run: Run) -> None:
    log = run.job(1, Stage.TRAIN, line(2, "one"))
    log.write_text(log.read_text() + "no line break")
    run.state.close()
    assert run.logs("-f", "-o", "json").out.splitlines()[-1] == "no line break"
