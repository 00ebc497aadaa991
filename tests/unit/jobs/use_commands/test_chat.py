"""`selfemo chat`: commands, modes, the end of the input; piped and in a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.terminal_screen import Screen
from tests.unit.jobs.use_commands.fake_models import model_folder

from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import BadInput
from selfemo_jobs.use_commands.__main__ import main

ROOT = Path(__file__).resolve().parents[4]
Run = Callable[..., tuple[int, list[str], str]]


@dataclass
class Reading:
    labels: tuple[str, ...]
    probabilities: dict[str, float]


@dataclass
class Reply:
    text: str
    reading: dict[str, float]


class FakeRoles:
    """Reads `sad` and `angry`; replies with what it was asked for."""

    def read(self, turns: Sequence[Utterance]) -> Reading:
        text = turns[-1].text
        if "too long" in text:
            raise BadInput("the turn is too long")
        label = "sadness" if "sad" in text else "anger" if "angry" in text else "joy"
        shares = dict.fromkeys(("joy", "sadness", "anger"), 0.1) | {label: 0.8}
        return Reading((label,), shares)

    def reply(self, turns: Sequence[Utterance], speaker: str, emotion: str, seed: int) -> Reply:
        shown = " | ".join(f"{turn.speaker}: {turn.text}" for turn in turns)
        return Reply(f"[{seed}] {shown}\x1b[31m", {emotion: 0.5})


@contextmanager
def fake_roles(*_: object) -> Any:
    yield FakeRoles()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr("selfemo_jobs.use_commands.model_roles.open_roles", fake_roles)
    model = model_folder(tmp_path / "model")

    def call(text: str, *words: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code = main(["chat", str(model), *words])
        output = capsys.readouterr()
        return int(code), output.out.splitlines(), output.err

    return call


def test_replies_mirror_the_emotion_of_the_turn(run: Run) -> None:
    code, lines, err = run("I am  sad\nI am angry\n")
    assert code == 0
    assert lines == [
        "A (sadness 0.80)",
        "B (sadness 0.50): [0] A: I am sad\\x1b[31m",
        "A (anger 0.80)",
        "B (anger 0.50): [1] A: I am sad | B: [0] A: I am sad\\x1b[31m | A: I am angry\\x1b[31m",
    ]
    assert err.startswith("Replies express the emotion of your turn. Commands: /emotion LABEL, ")
    assert run("I am  sad\nI am angry\n", "--mirror")[1] == lines


def test_names_seed_and_quiet(run: Run) -> None:
    _, lines, err = run("Hi", "--user", "Ann", "--speaker", "Bo", "--seed", "7", "-q")
    assert lines == ["Ann (joy 0.80)", "Bo (joy 0.50): [7] Ann: Hi\\x1b[31m"]
    assert err == ""


def test_chosen_emotion_and_commands(run: Run) -> None:
    text = "I am sad\n/emotion ANGER\n\nI am sad\n/mirror\n/reset\nI am sad\n/quit\nI am sad\n"
    code, lines, _ = run(text, "--emotion", "Joy")
    assert code == 0
    assert [line.partition(": ")[0] for line in lines] == [
        "A (sadness 0.80)",
        "B (joy 0.50)",
        "Replies express the emotion anger",
        "A (sadness 0.80)",
        "B (anger 0.50)",
        "Replies express the emotion of your turn",
        "The conversation starts over",
        "A (sadness 0.80)",
        "B (sadness 0.50)",
    ]
    assert lines[-1].endswith("[2] A: I am sad\\x1b[31m")  # nothing of the earlier turns


def test_mistakes_do_not_end_the_chat(run: Run) -> None:
    code, lines, _ = run("/emotion ange\n/emotion\n/exit\n/help\nThis is too long\nHi\n")
    assert code == 0
    assert lines[0] == (
        "/emotion ange: must be a label of the model (joy, sadness, anger): did you mean `anger`?"
    )
    assert lines[1] == "/emotion: must be a label of the model (joy, sadness, anger)"
    assert lines[2].startswith("/exit is not a command: /emotion LABEL, /mirror")
    assert lines[3].endswith("Labels: joy, sadness, anger")
    assert lines[4] == "the turn is too long"
    assert lines[6].endswith("[0] A: Hi\\x1b[31m")  # the turn that was too long is not part of it


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--emotion", "sad"), "--emotion sad: must be a label of the model (joy, sadness, anger)"),
        (("--emotion", "joy", "--mirror"), "argument --mirror: not allowed with argument --emo"),
        (("--user", "B"), "--speaker and --user are both B: they must differ"),
    ],
)
def test_wrong_options(words: Sequence[str], message: str, run: Run) -> None:
    code, lines, err = run("Hi", *words)
    assert (code, lines) == (2, [])
    assert err.startswith(f"selfemo chat: {message}")
    assert err.count("\n") == 1


CHAT = """
import sys
sys.path.insert(0, {root!r})
import selfemo_jobs.use_commands.model_roles as model_roles
from tests.unit.jobs.use_commands.test_chat import fake_roles
model_roles.open_roles = fake_roles
from selfemo_jobs.use_commands.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class TestTerminal:
    @pytest.fixture
    def screen(self, tmp_path: Path) -> Any:
        model = model_folder(tmp_path / "model")
        command = [sys.executable, "-c", CHAT.format(root=str(ROOT)), "chat", str(model)]
        with Screen(command, columns=100) as screen:
            screen.wait("\n>")
            yield screen

    def test_turns_and_end_of_input(self, screen: Screen) -> None:
        screen.type(b"I am sadd\x7f\n")
        screen.wait("B (sadness 0.50): [0] A: I am sad\\x1b[31m")
        screen.type(b"/emotion joy\n")
        screen.wait("Replies express the emotion joy")
        screen.type(b"\x04")
        assert screen.end() == 0
        assert "Traceback" not in screen.text
        assert b"\x1b[31m" not in screen.raw

    def test_ctrl_c(self, screen: Screen) -> None:
        screen.type(b"I am")
        screen.wait("> I am")
        assert screen.interrupt() == 130
        assert "Traceback" not in screen.text and "interrupted" not in screen.text
