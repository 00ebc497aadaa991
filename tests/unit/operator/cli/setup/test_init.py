"""`selfemo init`: the file is valid, says what it means, and replaces nothing."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.selfemo_commands import Outcome, invoke
from tests.support.terminal_screen import Screen

from selfemo_api.recipes import RECIPES
from selfemo_api.schema.editor_schema import editor_schema
from selfemo_api.schema.validation import load_evolution
from selfemo_api.spec import Preset, Use

ROOT = Path(__file__).resolve().parents[5]
PROGRAM = str(Path(sys.executable).parent / "selfemo")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words: str) -> Outcome:
    return invoke("selfemo", "init", *words)


def test_the_default_file(folder: Path) -> None:
    outcome = init()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "Wrote evolution.yaml. Next:\n  selfemo check evolution.yaml --data data=data\n  "
        "selfemo run evolution.yaml --data data=data\n"
    )
    evolution = load_evolution(folder / "evolution.yaml")
    assert (evolution.metadata.name, evolution.spec.recipe) == ("evolution", RECIPES[0])
    assert [s.use for s in evolution.spec.dataset.sources[:1]] == [Use.SELF_PLAY]
    text = (folder / "evolution.yaml").read_text()
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) >= 6


def test_the_first_line_points_to_the_schema(folder: Path) -> None:
    (folder / "sub").mkdir()
    assert init("sub/a.yaml").code == 0
    first = (folder / "sub" / "a.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=.selfemo/evolution.schema.json"
    schema = json.loads((folder / "sub" / ".selfemo" / "evolution.schema.json").read_text())
    assert schema == editor_schema()


def test_nothing_is_replaced(folder: Path) -> None:
    (folder / "a.yaml").write_text("mine")
    outcome = init("a.yaml", "--preset", "MELD")
    assert outcome.code == 2
    assert outcome.err == "selfemo init: a.yaml already exists: choose another file, or remove it\n"
    assert (folder / "a.yaml").read_text() == "mine"
    assert not (folder / ".selfemo").exists()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("preset", [*Preset, None])
def test_any_recipe_and_preset_is_valid(preset: Preset | None, recipe: str, folder: Path) -> None:
    words = ["--preset", preset.value.lower()] if preset else ["--labels", "joy, no ,été"]
    outcome = init("a.yaml", "--recipe", recipe, *words)
    assert outcome.code == 0, outcome.err
    spec = load_evolution(folder / "a.yaml").spec
    assert spec.recipe == recipe
    if preset is None:
        assert spec.dataset.labels == ["joy", "no", "été"]
    else:
        assert spec.dataset.preset is preset
        assert len(spec.dataset.evaluation) == 2


def test_a_preset_may_have_labels_of_its_own(folder: Path) -> None:
    labels = "anger,disgust,fear,joy,neutral,sadness,surprise"
    assert init("a.yaml", "--preset", "MELD", "--labels", labels).code == 0
    assert load_evolution(folder / "a.yaml").spec.dataset.labels == labels.split(",")


@pytest.mark.parametrize(
    ("data", "volume", "uris"),
    [
        ("mine", "mine=mine", ["data://mine/train.csv", "data://mine/valid.jsonl"]),
        ("My Data", "my-data=My Data", ["data://my-data/train.jsonl", "data://my-data/dev.jsonl"]),
        ("s3://b/x/", "", ["s3://b/x/train.jsonl", "s3://b/x/dev.jsonl", "s3://b/x/test.jsonl"]),
        (
            "hf://o/n",
            "",
            ["hf://o/n?split=train", "hf://o/n?split=validation", "hf://o/n?split=test"],
        ),
        (
            "hf://datasets/o/n@main/?split=train&config=en&revision=refs/convert/parquet",
            "",
            [
                f"hf://datasets/o/n@main?config=en&revision=refs/convert/parquet&split={split}"
                for split in ("train", "validation", "test")
            ],
        ),
    ],
)
def test_where_the_dialogues_are(data: str, volume: str, uris: list[str], folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "train.csv").touch()
    (folder / "mine" / "valid.jsonl").touch()
    (folder / "My Data").mkdir()
    outcome = init("a.yaml", "--data", data, "-o", "json")
    assert json.loads(outcome.out) == {"file": "a.yaml", "data": volume}
    document = yaml.safe_load((folder / "a.yaml").read_text())
    assert [source["uri"] for source in document["spec"]["dataset"]["sources"]] == uris


def test_the_demo_can_be_checked_as_it_is_written(folder: Path) -> None:
    init("a.yaml", "--data", str(ROOT / "examples" / "demo"))
    document = yaml.safe_load((folder / "a.yaml").read_text())
    for source in document["spec"]["dataset"]["sources"]:
        assert (ROOT / "examples" / "demo" / source["uri"].removeprefix("data://demo/")).is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "MLD"), "there is no published dataset `MLD`: did you mean `MELD`?"),
        (
            ("--preset", "x"),
            "no published dataset `x`; available datasets: MELD, EmoryNLP, IEMOCAP",
        ),
        (("--recipe", "smal-v1"), "spec.recipe: there is no recipe `smal-v1`; available:"),
        (("--labels", "joy,joy"), "spec.dataset: `labels` must not contain duplicates"),
        (("--labels", "a,b:c"), "spec.dataset.labels[1]"),
        (("--model", "qwen"), "spec.model.uri: "),
        (("--data", "file.csv"), "--data file.csv is a file: specify the folder"),
    ],
)
def test_a_wrong_option_writes_nothing(words: tuple[str, ...], message: str, folder: Path) -> None:
    (folder / "file.csv").touch()
    outcome = init("a.yaml", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert "(line" not in outcome.err
    assert outcome.err.startswith("selfemo init: ")
    assert not (folder / "a.yaml").exists()


def test_standard_output_can_be_validated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = init("-", "--preset", "MELD")
    assert (outcome.code, list(folder.iterdir())) == (0, [])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(outcome.out.encode())))
    assert invoke("selfemo", "validate", "-").out == "standard input is valid\n"


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "x").touch()
    outcome = init("x/a.yaml")
    assert outcome.code == 2
    assert outcome.err.startswith("selfemo init: x/a.yaml cannot be written: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "hf://o/n/train.csv",
            "must be hf://owner/name, optionally with `?config=` or `?revision=`. To",
        ),
        ("hf://o/n/a/*.csv?split=train", "must be hf://owner/name"),
        ("hf://o", "must be hf://owner/name"),
        (
            "hf://o/n?splits=train",
            "only `split`, `config` and `revision` are allowed after `?`, each on",
        ),
        ("hf://o/n?config=a&config=b", "only `split`, `config`"),
        ("hf://o/n?config=", "only `split`, `config`"),
    ],
)
def test_a_uri_of_the_hub_must_name_a_dataset(data: str, message: str, folder: Path) -> None:
    outcome = init("a.yaml", "--data", data)
    assert outcome.code == 2
    assert outcome.err.startswith(f"selfemo init: --data {data}: {message}")
    assert list(folder.iterdir()) == []


def test_it_asks_in_a_terminal(folder: Path) -> None:
    with Screen([PROGRAM, "init", "a.yaml"], {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}) as s:
        s.wait("Model (URI)")
        s.type(b"hf://Qwen/Qwen3-0.6B\n")
        s.wait("Published dataset")
        s.type(b"\n")
        s.wait("Folder or URI")
        s.type(b"talks\n")
        s.wait("Labels")
        s.type(b"glad, sad\n")
        s.wait("Wrote a.yaml")
        assert s.end() == 0
    spec = load_evolution(folder / "a.yaml").spec
    assert (spec.model.uri, spec.dataset.labels) == ("hf://Qwen/Qwen3-0.6B", ["glad", "sad"])
    assert spec.dataset.sources[0].uri == "data://talks/train.jsonl"


def test_ctrl_c_while_it_asks_writes_nothing(folder: Path) -> None:
    with Screen([PROGRAM, "init", "a.yaml"]) as screen:
        screen.wait("Model (URI)")
        assert screen.interrupt() == 130
        assert "selfemo init: interrupted" in screen.text
        assert "Traceback" not in screen.text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["y", "on", "true", "null"])
def test_a_name_that_yaml_reads_otherwise(name: str, folder: Path) -> None:
    assert init(f"{name}.yaml").code == 0
    document = yaml.safe_load((folder / f"{name}.yaml").read_text())
    assert document["metadata"]["name"] == name
