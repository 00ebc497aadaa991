"""`selfemo watch` beside a real `selfemo run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal_screen import Screen


@pytest.mark.slow
def test_watch_follows_a_real_run_to_its_end(make_run: Any) -> None:
    run = make_run("watched")
    program = str(Path(sys.executable).parent / "selfemo")
    state = ["--state", str(run.folder / "state")]
    with run.start() as runner:
        while not (run.jobs.parent / "evolution.json").is_file():
            assert runner.poll() is None
        with Screen([program, "watch", str(run.file), *state]) as screen:
            for stage in (
                "generation 0 Check",
                "generation 0 Evaluate",
                "generation 1 SelfPlay",
                "generation 1 Train",
            ):
                screen.wait(stage, 240)
            screen.wait("Succeeded", 240)
            assert screen.end() == 0
        assert runner.wait(60) == 0
    raw = screen.raw.decode()
    assert "F1 by emotion, generation 1" in screen.text
    assert "Expression, generation 1" in screen.text
    assert any(f"{n}/{n} loss" in raw for n in range(1, 100))  # the training's own progress
    assert "No runner is active" not in raw
