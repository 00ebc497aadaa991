"""`selfemo watch` in a real terminal, over the state folder of a recorded run that is continued."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.support import recorded
from tests.support.terminal_screen import Screen

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_api.status import ConditionType, Outcome, Phase, Reason
from selfemo_api.text.files import write_atomically
from selfemo_operator.cli import watch
from selfemo_operator.cli.terminal.evolution_view import (
    FittingView,
    StageProgress,
    evolution_view,
    status_changes,
)
from selfemo_operator.local.state import LocalState, is_active

PROGRAM = str(Path(sys.executable).parent / "selfemo")
NOW = datetime(2026, 11, 23, 19, 30, tzinfo=UTC)
END = recorded.evolution()


def status(evolution: EmotionEvolution, **changes: object) -> EmotionEvolution:
    return evolution.model_copy(update={"status": evolution.status.model_copy(update=changes)})


def ended(phase: Phase, reason: Reason, message: str) -> EmotionEvolution:
    conditions = [
        c.model_copy(update={"reason": reason.value, "message": message})
        if c.type is ConditionType.SUCCEEDED
        else c
        for c in END.status.conditions
    ]
    return status(END, phase=phase, conditions=conditions)


def training() -> EmotionEvolution:
    """Return the recorded run as it was, roughly, during the training of generation 4."""
    conditions = [
        c.model_copy(update={"reason": "Running", "message": "generation 4: Train runs"})
        if c.type is ConditionType.PROGRESSING
        else c
        for c in END.status.conditions
    ]
    return status(
        END,
        phase=Phase.RUNNING,
        generation=4,
        stage=Stage.TRAIN,
        completion_time=None,
        history=END.status.history[:4],
        conditions=conditions,
        last_progress_time=datetime(2026, 11, 23, 19, 22, 38, tzinfo=UTC),
    )


def drawn(
    evolution: EmotionEvolution,
    progress: StageProgress,
    width: int = 120,
    encoding: str = "utf-8",
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width).print(evolution_view(evolution, progress, NOW))
    file.seek(0)
    return file.read()


# The view


def test_view_of_a_running_stage() -> None:
    text = drawn(training(), StageProgress(3, 4, "loss -0.0361"))
    assert "default/demo  Running  generation 4 Train for 7 min 22 s  at most 5 generations" in text
    assert "3/4 loss -0.0361" in text
    assert "0.3962 [0.330, 0.456]" in text
    assert "goal 0.42" in text
    best = next(line for line in text.splitlines() if "★" in line)
    assert best.lstrip().startswith("3 ")
    assert text.count("○") == 2  # rolled back
    score = END.status.history[3].scores[0]
    joy = next(line for line in text.splitlines() if "joy" in line)
    assert f"{score.f1_by_label[4]:.3f}" in joy
    assert "+0.031" in joy
    assert "(collapse below 0.35)" in text


def test_a_divergence_that_does_not_count_is_shown_as_such() -> None:
    evolution = training()
    promoted = evolution.status.history[3]
    assert promoted.outcome is Outcome.PROMOTED
    assert "labels: 0.009 (collapse above 0.3)" in drawn(evolution, StageProgress())
    moved = promoted.scores[0].model_copy(
        update={"predicted_shares": [0, 0, 0, 0, 0, 0, 1], "label_entropy": 1.0}
    )
    record = promoted.model_copy(update={"scores": [moved]})
    text = drawn(status(evolution, history=[record]), StageProgress())
    assert "the divergence from the baseline's labels: 0.892 (not counted as a collapse)" in text


def test_marks_are_at_the_columns_of_their_values() -> None:
    lines = [
        line for line in drawn(END, StageProgress()).splitlines() if "─" in line and "0.3" in line
    ]
    plots = [line for line in lines if "│" not in line]
    columns = {n: max(line.find(m) for m in "●○★") for n, line in enumerate(plots)}
    f1 = [record.f1 or 0 for record in END.status.history]
    ordered = [columns[n] for n in sorted(range(6), key=f1.__getitem__)]
    assert ordered == sorted(ordered)  # 0.3704 and 0.3719 share a column
    assert len(set(ordered)) == 5
    assert len({line.find("┊") for line in plots}) == 1


@pytest.mark.parametrize("width", [24, 40, 80, 100, 200])
def test_view_fits_any_width(width: int) -> None:
    for evolution in (training(), END):
        text = drawn(evolution, StageProgress(1, 4, "loss 1"), width)
        assert max(len(line) for line in text.splitlines()) <= width


def test_view_in_ascii() -> None:
    text = drawn(training(), StageProgress(3, 4, note="x"), encoding="ascii")
    assert "*" in text
    assert "#" in text


def live(evolution: EmotionEvolution, height: int) -> str:
    console = Console(file=io.StringIO(), width=120, height=height)
    console.print(FittingView(evolution, StageProgress(3, 4, "loss 1"), NOW))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("height", "generations", "plots"),
    [(21, "035", False), (24, "012345", False), (30, "0345", True), (60, "012345", True)],
)
def test_a_live_view_fits_the_height_and_says_what_it_leaves_out(
    height: int, generations: str, plots: bool
) -> None:
    """Of six generations, the third is the best."""
    text = live(status(END, completion_time=None, phase=Phase.RUNNING), height)
    assert text.count("\n") <= height
    assert text.index("Collapse indicators") < text.index("weighted F1 by generation")
    rows = [line.split("│")[1].split()[0] for line in text.splitlines() if line.startswith("│")]
    assert rows == list(generations)
    assert ("F1 by emotion" in text) is plots
    left_out = f"The terminal has {height} lines: the plots are omitted."
    assert (left_out in text) is not plots
    assert ("Omitted: " in text) is (len(generations) < 6)


def test_the_signs_of_collapse_are_shown_whatever_the_height() -> None:
    text = live(training(), 10)
    assert "Collapse indicators" in "\n".join(text.splitlines()[:10])


def test_failure_is_shown_unchanged() -> None:
    message = "train.jsonl:3: [red]labels[/nope] are missing; add them"
    evolution = status(training(), last_failure=message, failures=2, attempt=3)
    text = drawn(evolution, StageProgress(), 200)
    assert f"Last failure (failures: 2, disruptions: 0): {message}" in text
    assert "Train, attempt 3" in text


def test_view_before_the_run_starts() -> None:
    fresh = END.model_copy(update={"status": type(END.status)()})
    assert "not started" in drawn(fresh, StageProgress())


def test_each_change_is_reported_once() -> None:
    before = training()
    assert list(status_changes(None, before))[-1] == "Running: generation 4 Train"
    assert list(status_changes(before, before)) == []
    failed = status(before, last_failure="it was killed by signal 9", attempt=2)
    assert list(status_changes(before, failed)) == [
        "last failure: it was killed by signal 9",
        "Running: generation 4 Train, attempt 2",
    ]
    assert list(status_changes(failed, END)) == [
        "generation 4 rolled back: F1 0.3704 [0.307, 0.430], reward 0.261, 128 rows kept, "
        "2 min 12 s",
        "generation 5 rolled back: F1 0.3885 [0.327, 0.454], reward 0.211, 80 rows kept, "
        "1 min 29 s",
        "Succeeded: MaxGenerationsReached: generation 5 was the last; best is 3 with F1 0.3962",
    ]


# The command


class Run:
    """A state folder with an active runner, which is this test."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "evolution.yaml"
        document = {"apiVersion": END.api_version, "kind": END.kind, "metadata": {"name": "demo"}}
        self.file.write_text(yaml.safe_dump({**document, "spec": END.written}))
        self.root = folder / "state"
        self.state = LocalState(self.root / "default" / "demo")

    def save(self, evolution: EmotionEvolution) -> None:
        self.state.save(evolution)

    def log(self, *lines: str) -> None:
        folder = self.state.jobs / "demo-g004-train-1"
        folder.mkdir(exist_ok=True)
        with (folder / "log.jsonl").open("a") as file:
            file.writelines(line + "\n" for line in lines)

    def command(self, *options: str) -> list[str]:
        return [PROGRAM, "watch", str(self.file), "--state", str(self.root), *options]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    active = Run(tmp_path)
    yield active
    active.state.close()


def recorded_log() -> list[str]:
    path = recorded.STATE / "jobs" / "demo-g004-train-1" / "log.jsonl"
    return path.read_text().splitlines()


def test_a_terminal_shows_one_view_that_changes(run: Run) -> None:
    lines = recorded_log()
    run.save(training())
    with Screen(run.command()) as screen:
        screen.wait("generation 4 Train")
        assert screen.cursor_hidden
        run.log(*lines[:4])
        screen.wait("2/4 loss -0.06568")
        run.log(lines[4])
        screen.wait("3/4 loss -0.0361")
        run.save(status(training(), last_failure="it was killed by signal 9", attempt=2))
        screen.wait("Last failure")
        run.save(END)
        assert screen.end() == 0
        assert "best is 3 with F1 0.3962" in screen.text
        assert screen.text.count("default/demo") == 1  # drawn in place, not repeated
        assert "No runner is active" not in screen.raw.decode()
        assert not screen.cursor_hidden


def test_a_low_terminal_shows_the_signs_and_the_newest_generation(run: Run) -> None:
    run.save(training())
    with Screen(run.command(), rows=24) as screen:
        for text in ("the plots are omitted", "Collapse indicators", "0.3962 [0.330, 0.456]"):
            screen.wait(text)  # the view may be half drawn
        run.save(END)
        assert screen.end() == 0
        assert "F1 by emotion" in screen.raw.decode()  # the last view is whole


def test_ctrl_c_ends_only_the_watching(run: Run) -> None:
    run.save(training())
    with Screen(run.command()) as screen:
        screen.wait("generation 4 Train")
        assert screen.interrupt() == 130
        assert "Stopped watching; the evolution continues." in screen.text
        assert "Traceback" not in screen.text
        assert not screen.cursor_hidden


def test_without_a_terminal_each_change_is_a_line(run: Run) -> None:
    run.save(training())
    process = subprocess.Popen(run.command(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = [process.stdout.readline() for _ in range(5)]
    assert [line.split(" ", 1)[1].strip() for line in first][-1] == "Running: generation 4 Train"
    run.state.close()  # the runner ends …
    assert f"No runner is active: run `selfemo run {run.file}` to continue." in (
        process.stdout.readline()
    )
    run.state = LocalState(run.state.folder)  # … and starts again while the command watches
    failed = ended(Phase.FAILED, Reason.STAGE_FAILED, "[Train] failed 3 times")
    run.save(status(failed, history=END.status.history[:4]))
    rest, _ = process.communicate(timeout=60)
    assert rest.count("\n") == 1
    assert rest.strip().endswith("Failed: StageFailed: [Train] failed 3 times")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("evolution", "code"),
    [
        (END, 0),
        (training(), 0),
        (ended(Phase.COLLAPSED, Reason.COLLAPSED, "label entropy"), 1),
        (ended(Phase.FAILED, Reason.BAD_INPUT, "no such file"), 2),
    ],
    ids=["succeeded", "running", "collapsed", "bad-input"],
)
def test_once_prints_the_present_state(run: Run, evolution: EmotionEvolution, code: int) -> None:
    run.save(evolution)
    done = subprocess.run(run.command("--once"), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(f"default/demo  {evolution.status.phase.value}")
    assert "\x1b" not in done.stdout


def test_an_error_is_one_line(run: Run, tmp_path: Path) -> None:
    path = run.state.folder / "evolution.json"
    text = END.model_dump_json(by_alias=True)
    for content, message in (
        (None, f"there is no run in {run.state.folder}: start it with `selfemo run {run.file}`"),
        ("{", f"{path} was written by another version of this command, or is damaged"),
        (text.replace('"phase":"Succeeded"', '"phase":"Merry"'), "or is damaged: status.phase"),
    ):
        if content is not None:
            write_atomically(path, content)
        done = subprocess.run(run.command(), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert json.loads(text)["status"]["phase"] == "Succeeded"


def test_checking_for_a_runner_does_not_block_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not is_active(folder)
    LocalState(folder).close()
    stop = threading.Event()

    def check() -> None:
        while not stop.is_set():
            is_active(folder)

    watchers = [threading.Thread(target=check) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(30):
            state = LocalState(folder)
            assert is_active(folder)
            state.close()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert not is_active(folder)


class Interrupted(io.StringIO):
    """A pipe whose reader sends Ctrl-C as soon as it has read the first line."""

    interrupts = 1

    def flush(self) -> None:
        if self.getvalue() and self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt


class Unchanging:
    """An evolution in training that never changes."""

    def read(self) -> tuple[EmotionEvolution, StageProgress]:
        return training(), StageProgress()


def test_a_line_that_ctrl_c_interrupts_is_written_once() -> None:
    pipe = Interrupted()
    code = watch.follow(Unchanging(), Console(file=pipe, width=120), once=False, poll_seconds=0)
    lines = pipe.getvalue().splitlines()
    assert code == ExitCode.INTERRUPTED
    assert len(lines) == len(set(lines)) >= 2
    assert lines[-1] == "Stopped watching; the evolution continues."
