"""Users copy the examples: each is valid in this version."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selfemo_api.recipes.recipe import in_recipe, leaves
from selfemo_api.schema.validation import load_evolution
from selfemo_study.row_evolution import evolution_of
from selfemo_study.study_config import load_study

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
#: The settings of the recipe in which the study may differ: the study made its warm start by a
#: command, ran more generations, and its machine had another number format. With MELD's labels, all
#: of which are one token, the limits of an answer's length decide nothing.
OTHER = (
    *("warmStart.", "stopping.", "selfPlay.engineArgs", "training.precision"),
    *("selfPlay.maxTokens.", "reward.judge.maxTokens"),
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path) -> None:
    load_evolution(path)  # raises an error if it is not


@pytest.mark.parametrize("name", ["demo", "meld"])
def test_a_script_is_one_command(name: str) -> None:
    """No model is made and no training is started before `selfemo run`."""
    text = (ROOT / "tools" / name).read_text()
    lines = [line for line in text.splitlines() if ".venv/bin" in line]
    example = {"demo": "demo.yaml", "meld": "meld-cpu.yaml"}[name]
    (line,) = lines
    assert line.startswith(f"exec .venv/bin/selfemo run examples/{example} --data")


def test_meld_cpu_has_no_tunables_of_its_own() -> None:
    document = yaml.safe_load((ROOT / "examples" / "meld-cpu.yaml").read_text())
    assert document["spec"].keys() == {"seed", "model", "dataset", "storage"}
    assert document["spec"]["model"].keys() == {"uri"}


def test_meld_cpu_has_the_settings_of_the_study() -> None:
    study = load_study(ROOT / "studies" / "meld.yaml")
    of_study = leaves(evolution_of(study, study.row("main"), 1).spec.to_json())
    of_example = leaves(load_evolution(ROOT / "examples" / "meld-cpu.yaml").spec.to_json())
    paths = {path for path in {*of_study, *of_example} if in_recipe(path)}
    differences = {path for path in paths if of_study.get(path) != of_example.get(path)}
    assert not {path for path in differences if not path.startswith(OTHER)}
