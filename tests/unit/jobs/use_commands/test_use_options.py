"""Tests of the options that the commands have in common."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfemo_api.spec import Engine, StorageSpec
from selfemo_jobs.use_commands.__main__ import main, parser
from selfemo_jobs.use_commands.use_options import (
    EngineSettings,
    other_model_options,
    reference_options,
    side_by_side,
)


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
    ("shares", "together"),
    [
        ((None, None), (0.45, 0.45)),
        ((0.85, 0.85), (0.45, 0.45)),
        ((0.3, None), (0.3, 0.45)),
        ((0.3, 0.6), (0.3, 0.6)),
    ],
)
def test_two_engines_of_vllm_share_a_gpu(
    shares: tuple[float | None, float | None], together: tuple[float, float]
) -> None:
    name = "gpu_memory_utilization"
    alone = [
        EngineSettings(Engine.VLLM, {"seed": 1} if share is None else {"seed": 1, name: share})
        for share in shares
    ]
    both = side_by_side(alone[0], alone[1])
    assert [settings.engine_args for settings in both] == [{"seed": 1, name: s} for s in together]


def test_an_engine_of_transformers_takes_what_it_needs() -> None:
    both = EngineSettings(Engine.VLLM, {}), EngineSettings(Engine.TRANSFORMERS, {"batch_size": 4})
    assert side_by_side(*both) == both
    assert side_by_side(*reversed(both)) == tuple(reversed(both))


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
