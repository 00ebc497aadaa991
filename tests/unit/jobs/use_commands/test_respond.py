"""`selfemo respond`: candidates, readings, speakers, the judge, errors."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.dialogue_files import WRITERS, dialogue
from tests.unit.jobs.use_commands.fake_models import LABELS, model_folder

from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.use_commands.__main__ import main

Run = Callable[..., tuple[int, str, str]]


@dataclass
class Reply:
    text: str
    reading: dict[str, float]
    expresses: bool
    valid: bool = True


class FakeResponder:
    """Replies with what it was asked for. The reading follows from the number of the candidate."""

    opened: list[Any]
    shortened = 0

    def reply(
        self, context: Sequence[Utterance], speaker: str, emotion: str, *, n: int, seed: int
    ) -> list[Reply]:
        shown = " | ".join(f"{turn.speaker}: {turn.text}" for turn in context)
        return [
            Reply(
                f"{speaker} {emotion} {seed}.{i} after {shown}\x1b",
                {label: 2 / 3 if k == i % 3 else 1 / 6 for k, label in enumerate(LABELS)},
                LABELS[i % 3] == emotion,
            )
            for i in range(n)
        ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SELFEMO_DATA", "")
    FakeResponder.opened = []

    @contextmanager
    def open_responder(*arguments: Any) -> Any:
        FakeResponder.opened.append(arguments)
        yield FakeResponder()

    monkeypatch.setattr("selfemo_jobs.use_commands.model_roles.open_responder", open_responder)
    model = model_folder(tmp_path / "model")

    def call(*words: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["respond", str(model), *map(str, words)])
        output = capsys.readouterr()
        return int(code), output.out, output.err

    return call


def test_turns_that_are_answered_in_part_are_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeResponder, "shortened", 2)
    code, _, err = run("--emotion", "joy", "--text", "Ann: Won")
    assert code == 0
    assert err == (
        "warning: last turns that are longer than this model's prompt limit of 1024 tokens: 2; "
        "only their beginnings were answered\n"
    )


def test_table(run: Run) -> None:
    words = ("--emotion", "Sadness", "-n", "2", "--text", "Ann: Won", "--text", "Bo: Ah")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out == (
        "dialogue  speaker  candidate  predicted  p_sadness  text\n"
        "1         Ann      1          joy        0.167      "
        "Ann sadness 0.0 after Ann: Won | Bo: Ah\\x1b\n"
        "1         Ann      2          sadness    0.667      "
        "Ann sadness 0.1 after Ann: Won | Bo: Ah\\x1b\n"
    )


def test_json(run: Run) -> None:
    words = ("--emotion", "joy", "--seed", "5", "--speaker", "Cy", "-o", "json")
    code, out, _ = run(*words, stdin=b"I won!\n\nI lost.\n")
    content = json.loads(out)
    assert code == 0
    assert content["labels"] == LABELS
    assert [reply["dialogue"] for reply in content["replies"]] == ["1", "2"]
    first = content["replies"][0]
    assert (first["speaker"], first["emotion"], len(first["candidates"])) == ("Cy", "joy", 4)
    assert first["candidates"][1] == {
        "text": "Cy joy 5.1 after A: I won!\x1b",
        "reading": {"joy": 0.166666667, "sadness": 0.666666667, "anger": 0.166666667},
        "expresses": False,
        "valid": True,
    }
    assert "\x1b" not in out


def test_each_dialogue_of_a_file(run: Run, tmp_path: Path) -> None:
    long = [("Ann" if i % 2 else "Bo", f"Text {i}", "unknown label") for i in range(99)]
    path = WRITERS["jsonl"](tmp_path, [dialogue("a", *long), dialogue("b", ("Cy", "Hi"))])
    _, out, _ = run(path, "--emotion", "joy", "-n", "1", "-o", "json")
    replies = json.loads(out)["replies"]
    assert [(r["dialogue"], r["speaker"]) for r in replies] == [("a", "Ann"), ("b", "B")]
    text = replies[0]["candidates"][0]["text"]
    assert text.count(" | ") == 63 and text.endswith("Bo: Text 98\x1b")  # the most of a context


def test_judge(run: Run, tmp_path: Path) -> None:
    assert run("--emotion", "joy", "--text", "Hi")[0] == 0
    judge = model_folder(tmp_path / "judge")
    assert run("--emotion", "joy", "--text", "Hi", "--judge", str(judge))[0] == 0
    assert [arguments[2] and arguments[2][0].folder for arguments in FakeResponder.opened] == [
        None,
        judge,
    ]
    assert (
        run("--emotion", "joy", "--text", "Hi", "--judge", str(judge), "--engine", "VLLM")[0] == 0
    )
    _, settings, (_, judging) = FakeResponder.opened[-1]
    share = {"gpu_memory_utilization": 0.45}
    assert settings.engine_args == judging.engine_args == share


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text", "Hi"), "the following arguments are required: --emotion"),
        (
            ("--emotion", "anxiety", "--text", "Hi"),
            "--emotion anxiety: must be a label of the model (joy, sadness, anger)\n",
        ),
        (
            ("--emotion", "angre", "--text", "Hi"),
            "--emotion angre: must be a label of the model (joy",
        ),
        (("--emotion", "joy", "--text", "Hi", "-n", "0"), "-n 0: must be from 1 to 256"),
        (("--emotion", "joy", "--text", " "), "--text number 1: is empty"),
        (("--emotion", "joy", "--text", "Hi", "--judge", "/none"), "/none does not exist"),
    ],
)
def test_errors(words: Sequence[str], message: str, run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"selfemo respond: {message}")
    assert err.count("\n") == 1
    assert FakeResponder.opened == []
