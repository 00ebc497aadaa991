"""`selfemo predict`, `respond` and `chat` with a real model of a million parameters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.dialogue_files import WRITERS, dialogue

from selfemo_api.dataset_labels import MELD
from selfemo_api.model_description import Decoding, ModelDescription
from selfemo_api.spec import Context, MaxTokens, ModelSpec
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.inference import Recognizer
from selfemo_jobs.inference.targets import dialogue_targets
from selfemo_jobs.models.model_description import prompt_setting
from selfemo_jobs.models.model_reference import resolve_model
from selfemo_jobs.prompts.prompt_texts import built_in_texts
from selfemo_jobs.use_commands.__main__ import main

ROOT = Path(__file__).resolve().parents[4]
#: Runs a command without a network, with four turns in a part.
PROGRAM = """
import os, sys
sys.path.insert(0, {root!r})
def refuse(name, arguments):
    if name in ("socket.connect", "socket.getaddrinfo"):
        os._exit(99)
sys.addaudithook(refuse)
from selfemo_jobs.use_commands import prediction_run
prediction_run.predict_to_file.__kwdefaults__["part_turns"] = 4
from selfemo_jobs.use_commands.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
TALKS = [
    dialogue(f"d{i}", *(("AB"[j % 2], f"I am {'sad' * j}{i}!") for j in range(3))) for i in range(8)
]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny model with a description."""
    folder = tmp_path_factory.mktemp("described") / "model"
    shutil.copytree(tiny_model, folder)
    spec = ModelSpec(uri="file:///model", prompts="compact-v1")
    description = ModelDescription(
        labels=list(MELD),
        context=Context(past=2),
        prompts=prompt_setting(built_in_texts("compact-v1"), spec),
        decoding=Decoding(max_tokens=MaxTokens(recognizer=4, responder=8), batch_size=4),
    )
    (folder / "selfemo.json").write_text(description.model_dump_json(by_alias=True))
    return folder


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    return WRITERS["jsonl"](tmp_path, TALKS)


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def command(*words: object) -> Sequence[str]:
    return [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), *map(str, words)]


def test_of_a_turn_that_is_too_long_the_beginning_is_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "I am sad. " * 2000
    talks = [dialogue("d1", ("A", "Hello."), ("B", long), ("A", "Oh."))]
    path = WRITERS["jsonl"](tmp_path, talks)
    assert main(["predict", str(model), str(path), "-o", "jsonl"]) == 0
    output = capsys.readouterr()
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert [row["text"] for row in rows] == ["Hello.", long.strip(), "Oh."]
    most = prompt_setting(built_in_texts("compact-v1"), ModelSpec(uri="file:///m"))
    assert (
        "warning: turns that are longer than this model's prompt limit of "
        f"{most.max_prompt_tokens} tokens: 1 (first: dialogue d1 turn 1); only their beginnings "
        "were read\n"
    ) in output.err
    described = resolve_model(str(model))
    with Recognizer(described.folder, described.description) as recognizer:
        targets = list(dialogue_targets(talks[0], described.description.context))
        beginning = recognizer.shorten(targets[1])
        assert long.startswith(beginning.turn.text)
        (prompt,) = recognizer.prompts([beginning])
        assert most.max_prompt_tokens - 4 <= len(prompt) <= most.max_prompt_tokens
        (prediction,) = recognizer.predict_targets([beginning])
        assert rows[1]["labels"] == list(prediction.labels)
        assert rows[1]["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)
        labels = replace(targets[1], turn=Utterance("B" * 20000, "Hi."))
        with pytest.raises(PromptTooLong, match="dialogue d1 turn 1 does not fit a prompt"):
            recognizer.shorten(labels)


def test_predictions_are_those_of_the_recognizer(
    model: Path, talks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "predict", model, talks, "-o", "jsonl").splitlines()
    with Recognizer(*resolve_model(str(model))) as recognizer:
        expected = recognizer.predict(TALKS)
    rows = [json.loads(line) for line in lines]
    assert [(r["dialogue"], r["turn"], r["speaker"], r["text"], r["labels"]) for r in rows] == [
        (p.dialogue_id, p.utterance, p.speaker, p.text, list(p.labels)) for p in expected
    ]
    for row, prediction in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(prediction.probabilities, rel=1e-8)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-8)
        assert set(row["labels"]) <= set(MELD)
    bare = printed(capsys, "predict", model, talks, "-o", "jsonl", "--no-probabilities")
    assert [json.loads(line)["labels"] for line in bare.splitlines()] == [r["labels"] for r in rows]


def test_context_of_the_option(
    model: Path, talks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = printed(capsys, "predict", model, talks, "-o", "jsonl").splitlines()
    alone = printed(capsys, "predict", model, talks, "-o", "jsonl", "--context", "0").splitlines()
    assert whole[0] == alone[0] or json.loads(whole[0])["labels"] == json.loads(alone[0])["labels"]
    assert whole[2] != alone[2]


@pytest.mark.slow  # five processes that load torch
def test_killed_at_several_points_it_finishes_with_equal_bytes(
    model: Path, talks: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    partial = tmp_path / "broken.csv.partial"
    subprocess.run(command("predict", model, talks, "--to", whole), check=True)
    commits = []
    for kill_at in (1, 3, 5):
        process = subprocess.Popen(
            command("predict", model, talks, "--to", broken), stderr=subprocess.PIPE
        )
        while process.poll() is None and commits_of(partial) < kill_at:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        commits.append(commits_of(partial))
        assert not broken.exists() or broken.read_bytes() == whole.read_bytes()
    result = subprocess.run(
        command("predict", model, talks, "--to", broken), check=True, capture_output=True, text=True
    )
    assert broken.read_bytes() == whole.read_bytes()
    assert not partial.exists()
    assert commits == sorted(commits) and commits[0] >= 1
    assert f"; {4 * commits[-1]} turns were predicted by the interrupted command" in result.stderr


def commits_of(path: Path) -> int:
    return path.read_bytes().count(b'{"commit": ') if path.exists() else 0


def test_respond(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("respond", model, "--emotion", "joy", "--text", "Ann: I won!", "-o", "json", "-n", "3")
    first, again = printed(capsys, *words), printed(capsys, *words)
    assert first == again != printed(capsys, *words, "--seed", "1")
    candidates = json.loads(first)["replies"][0]["candidates"]
    assert len(candidates) == 3
    for candidate in candidates:
        reading = candidate["reading"]
        assert list(reading) == list(MELD)
        if candidate["text"]:
            assert sum(reading.values()) == pytest.approx(1, abs=1e-8)
            assert candidate["expresses"] == (max(reading, key=reading.get) == "joy")
    judged = json.loads(printed(capsys, *words, "--judge", model))
    assert judged == json.loads(first)
    table = printed(capsys, *words[:-4], "-n", "2").splitlines()
    assert table[0].split() == ["dialogue", "speaker", "candidate", "predicted", "p_joy", "text"]
    assert len(table) == 3


def test_chat(model: Path) -> None:
    text = "I lost my keys.\n/emotion joy\nI found them!\n/quit\n"
    result = subprocess.run(
        command("chat", model), input=text, capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    label = lines[0].removeprefix("A (").split()[0]
    assert label in MELD
    assert lines[1].startswith(f"B ({label} 0.")
    assert lines[2] == "Replies express the emotion joy"
    assert lines[4].startswith("B (joy 0.")
    assert len(lines) == 5


@pytest.mark.vllm
def test_vllm(model: Path, talks: Path, tmp_path: Path, capsys: Any) -> None:
    words = ("predict", model, talks, "-o", "jsonl")
    expected = [json.loads(line) for line in printed(capsys, *words).splitlines()]
    output = tmp_path / "vllm.jsonl"
    run = subprocess.run(
        command(*words, "--engine", "VLLM", "--to", output),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["labels"] for row in rows] == [row["labels"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
