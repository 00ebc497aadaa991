"""The command ``selfemo model warm-start``, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.jobs.stages.warm_start_dialogues import jsonl

from selfemo_api.contract import ExitCode
from selfemo_jobs.base_models.__main__ import main
from selfemo_jobs.models.description_file import read_description
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_folder import model_hashes


def test_the_command_writes_a_model_and_says_what_was_seen(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "train.jsonl", 10)
    command = ["warm-start", "--model", str(tiny_model), "--to", str(tmp_path / "warm")]
    command += ["-o", "json"]
    command += ["--source", str(source), "--format", "JSONL", "--labels", "joy,anger"]
    command += ["--share", "0.3", "--steps", "2", "--batch-size", "4"]
    for _ in range(2):  # again: the folder is replaced
        assert main(command) == ExitCode.OK
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["dialogues"] == 3 and said["utterances"] == 12
    assert "offset: 3" in said["hint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.jsonl", "warm"]
    new, old = (load_file(f / "model.safetensors") for f in (tmp_path / "warm", tiny_model))
    assert new.keys() == old.keys() and any(not torch.equal(new[k], old[k]) for k in new)
    assert load_tokenizer(tmp_path / "warm").eos_token == load_tokenizer(tiny_model).eos_token


def test_the_command_says_f1_on_dev(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, dev = jsonl(tmp_path / "train.jsonl", 6), jsonl(tmp_path / "dev.jsonl", 9)
    command = ["warm-start", "--source", str(train), "--format", "JSONL", "--labels", "joy,anger"]
    command += [
        "-o",
        "json",
        "--dev",
        str(dev),
        "--share",
        "1",
        "--batch-size",
        "12",
        "--learning-rate",
        "3e-3",
    ]
    f1s = []
    for start, name, steps in ((tiny_model, "some", "1"), (tmp_path / "some", "more", "60")):
        there = ["--model", str(start), "--to", str(tmp_path / name), "--steps", steps]
        assert main([*command, *there]) == ExitCode.OK
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        low, high = said["devInterval"]
        assert low <= said["devWeightedF1"] <= high
        f1s.append(said["devWeightedF1"])
    assert f1s[0] < 0.8 < f1s[1]


def test_the_model_says_how_it_is_prompted(tiny_model: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "train.jsonl", 10)
    command = ["warm-start", "--model", str(tiny_model), "--to", str(tmp_path / "warm")]
    command += ["--source", str(source), "--format", "JSONL", "--labels", "joy,anger"]
    command += ["--share", "0.3", "--steps", "1", "--batch-size", "4"]
    assert main(command) == ExitCode.OK
    description = read_description(tmp_path / "warm")
    assert description is not None
    assert description.labels == ["joy", "anger"]
    assert description.prompts.name == "compact-v1"
    assert description.weights_sha256 == model_hashes(tmp_path / "warm")


def test_no_more_dialogues_are_counted_than_there_are(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "train.jsonl", 4)
    command = ["warm-start", "--model", str(tiny_model), "--to", str(tmp_path / "warm")]
    command += ["--source", str(source), "--format", "JSONL", "--labels", "joy,anger,"]
    command += ["--dialogues", "100", "--steps", "1", "--batch-size", "4", "-o", "json"]
    assert main(command) == ExitCode.OK
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert values["dialogues"] == 4
    assert values["hint"].startswith("use another file for the self-play source")
    description = read_description(tmp_path / "warm")
    assert description is not None
    assert description.labels == ["joy", "anger"]


@pytest.mark.parametrize("name", ["tiny", "warm-start"])
def test_a_folder_with_other_files_is_refused_before_the_work(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    command = [name, "--to", str(folder)]
    if name == "warm-start":
        source = jsonl(tmp_path / "train.jsonl", 10)
        command += ["--model", str(tiny_model), "--source", str(source), "--format", "JSONL"]
        command += ["--labels", "joy,anger", "--share", "0.3", "--steps", "1"]
    assert main(command) == ExitCode.BAD_INPUT
    assert "thesis.txt" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "mine"
    command[command.index("--to") + 1] = str(folder / "thesis.txt")
    assert main(command) == ExitCode.BAD_INPUT
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--dev": "/nowhere.jsonl"}, "--dev /nowhere.jsonl does not exist"),
        ({"--model": "/nowhere"}, "/nowhere does not exist"),
        ({"--source": "/nowhere.csv"}, "--source /nowhere.csv does not exist"),
        ({"--labels": "joy"}, "--labels joy: the labels must be two or more, without duplicates"),
        ({"--labels": "joy,fear"}, "anger"),
        ({"--labels": "joy,Joy,anger"}, "`joy` and `Joy` are the same label"),
        ({"--labels": "joy,anger: hot"}, "`anger: hot` cannot be a label"),
        ({"--prompts": "none-v1"}, "none-v1"),
        ({"--share": "0"}, "--share"),
        ({"--share": "1.5"}, "--share"),
        ({"--view": "1"}, "--view 1: must be two whole numbers"),
        ({"--view": "1,65"}, "--view 1,65"),
        ({"--steps": "0"}, "--steps 0: Input should be greater than or equal to 1"),
        ({"--responder-share": "1.5"}, "--responder-share 1.5: Input should be less than"),
        ({"--train-layers": "64"}, "`--train-layers` is 64, but the model has"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: str,
) -> None:
    options = {
        "--model": str(tiny_model),
        "--to": str(tmp_path / "warm"),
        "--source": str(jsonl(tmp_path / "train.jsonl", 2)),
        "--format": "JSONL",
        "--labels": "joy,anger",
        "--share": "0.5",
        "--steps": "1",
    }
    options.update(change)
    assert (
        main(["warm-start", *(x for pair in options.items() for x in pair)]) == ExitCode.BAD_INPUT
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert not (tmp_path / "warm").exists()
