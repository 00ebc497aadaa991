"""Tests of the options that the commands have in common."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfemo_api.spec import StorageSpec
from selfemo_jobs.use_commands.__main__ import main, parser
from selfemo_jobs.use_commands.use_options import other_model_options, reference_options


def test_the_generation_and_the_revision_are_those_of_the_first_model() -> None:
    words = [
        "respond",
        "demo.yaml",
        "--emotion",
        "joy",
        "--generation",
        "2",
        "--labels",
        "joy,anger",
    ]
    arguments = parser(["respond"]).parse_args([*words, "--revision", "main"])
    first = reference_options(arguments)
    assert (first.generation, first.revision) == (2, "main")
    storage = StorageSpec(uri="s3://bucket", endpoint="http://127.0.0.1:9000")
    other = other_model_options(arguments, storage)
    assert (other.generation, other.revision) == (None, None)
    assert (other.labels, other.storage) == (["joy", "anger"], storage)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--text", "Ann: Hi"],
        ["respond", "--emotion", "joy", "--text", "Ann: Hi"],
        ["chat"],
        ["playground", "--port", "0"],
        ["serve"],
        ["export", "copy"],
    ],
    ids=lambda words: words[0],
)
def test_each_command_finds_a_model_on_a_data_volume(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SELFEMO_DATA", "")
    (tmp_path / "models" / "demo").mkdir(parents=True)
    volume = f"mine={tmp_path / 'models'}"
    assert main([words[0], "data://mine/demo", *words[1:], "--data", volume]) == 2
    assert os.environ["SELFEMO_DATA"] == volume
    assert f"data://mine/demo ({tmp_path}/models/demo; `--data" in capsys.readouterr().err
