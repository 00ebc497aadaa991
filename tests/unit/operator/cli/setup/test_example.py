"""`selfemo init --example` and `selfemo schema --crd`: files that the package carries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.support.selfemo_commands import invoke

from selfemo_api import packaged_files
from selfemo_api.packaged_files import example_names
from selfemo_api.schema.crd import build_crd
from selfemo_api.schema.validation import load_evolution

ROOT = Path(__file__).resolve().parents[5]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_comes_with_its_dialogues(folder: Path) -> None:
    outcome = invoke("selfemo", "init", "--example", "demo")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "Wrote demo.yaml. Next:\n  selfemo check demo.yaml --data demo=demo\n  selfemo run "
        "demo.yaml --data demo=demo\n"
    )
    copied = {file.name: file.read_bytes() for file in (folder / "demo").iterdir()}
    assert copied == {f.name: f.read_bytes() for f in (ROOT / "examples" / "demo").iterdir()}
    assert (folder / "demo.yaml").read_bytes() == (ROOT / "examples" / "demo.yaml").read_bytes()


def test_the_next_commands_have_quotes(folder: Path) -> None:
    outcome = invoke("selfemo", "init", "my runs/a b.yaml", "--example", "demo")
    assert outcome.out == (
        "Wrote my runs/a b.yaml. Next:\n  selfemo check 'my runs/a b.yaml' --data 'demo=my "
        "runs/demo'\n  selfemo run 'my runs/a b.yaml' --data 'demo=my runs/demo'\n"
    )
    assert (folder / "my runs" / "demo").is_dir()


@pytest.mark.parametrize("name", example_names())
def test_each_example_is_valid_and_names_its_data(name: str, folder: Path) -> None:
    outcome = invoke("selfemo", "init", "sub/a.yaml", "--example", name, "-o", "json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["file"] == "sub/a.yaml"
    load_evolution(folder / "sub" / "a.yaml")
    needed = (folder / "sub" / "a.yaml").read_text().count("data://") > 0
    expected = {"demo": "demo=sub/demo"}.get(name, "meld=FOLDER" if needed else "")
    assert result["data"] == expected


def test_standard_output_has_the_file_alone(folder: Path) -> None:
    outcome = invoke("selfemo", "init", "-", "--example", "demo")
    assert outcome.out == (ROOT / "examples" / "demo.yaml").read_text()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("existing", ["demo.yaml", "demo"])
def test_nothing_is_replaced(existing: str, folder: Path) -> None:
    (folder / existing).write_text("mine")
    outcome = invoke("selfemo", "init", "--example", "demo")
    assert outcome.code == 2
    assert outcome.err == (
        f"selfemo init: {existing} already exists: choose another file, or remove it\n"
    )
    assert [path.name for path in folder.iterdir()] == [existing]


def test_an_unknown_example_and_other_options() -> None:
    outcome = invoke("selfemo", "init", "--example", "dmeo")
    assert outcome.err == "selfemo init: there is no example `dmeo`: did you mean `demo`?\n"
    outcome = invoke("selfemo", "init", "--example", "demo", "--preset", "MELD")
    assert outcome.code == 2
    assert outcome.err.startswith("selfemo init: --example copies a complete file")


def test_the_crd_is_printed() -> None:
    outcome = invoke("selfemo", "schema", "--crd")
    assert (outcome.code, yaml.safe_load(outcome.out)) == (0, build_crd())
    assert json.loads(invoke("selfemo", "schema").out)["title"]


def test_the_packaged_file_is_taken_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files" / "examples").mkdir(parents=True)
    (tmp_path / "files" / "examples" / "other.yaml").write_text("a: 1")
    monkeypatch.setattr(packaged_files, "files", lambda _: tmp_path)
    assert example_names() == ("other",)
    assert packaged_files.crd_file().is_file()  # from the checkout
