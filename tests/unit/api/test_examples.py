"""Users copy the examples: each is valid in this version."""

from __future__ import annotations

import shutil
import subprocess
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
#: command, and ran one generation. With MELD's labels, all of which are one token, the limits of an
#: answer's length decide nothing. The judge's exact probabilities require one label per utterance.
OTHER = (
    *("warmStart.", "stopping.", "selfPlay.maxTokens."),
    *("reward.judge.maxTokens", "reward.judge.samples"),
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path) -> None:
    load_evolution(path)  # raises an error if it is not


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The scripts and the examples beside a `selfemo` that prints its arguments and its input."""
    for folder in ("tools", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    command = tmp_path / ".venv" / "bin" / "selfemo"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$@"\nif [ "$2" = - ]; then cat; fi\n')
    command.chmod(0o755)
    return tmp_path


def script(copy: Path, *arguments: str) -> tuple[str, str]:
    """The arguments of the one `selfemo` that a script runs, and that command's input."""
    run = subprocess.run(
        ["bash", *arguments], cwd=copy / "tools", check=True, capture_output=True, text=True
    )
    first, _, rest = run.stdout.partition("\n")
    return first, rest


def test_the_demo_is_one_command(copy: Path) -> None:
    """No model is made and no training is started before `selfemo run`."""
    arguments, printed = script(copy, "demo", "--plain")
    assert arguments.startswith("run examples/demo.yaml --data demo=examples/demo ")
    assert arguments.endswith(" --plain")
    assert not printed


def test_another_seed_of_the_demo_is_another_evolution(copy: Path) -> None:
    arguments, document = script(copy, "demo", "--seed", "2", "--plain")
    assert arguments.startswith("run - --data demo=examples/demo ")
    assert arguments.endswith(" --plain")
    expected = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())
    expected["metadata"]["name"] = "demo-2"
    expected["spec"]["seed"] = 2
    assert yaml.safe_load(document) == expected


def test_meld_is_one_command(copy: Path) -> None:
    arguments, printed = script(copy, "meld", str(copy))
    assert arguments == f"run examples/meld-cpu.yaml --data meld={copy}"
    assert not printed


def test_meld_cpu_has_no_tunables_of_its_own() -> None:
    document = yaml.safe_load((ROOT / "examples" / "meld-cpu.yaml").read_text())
    assert document["spec"].keys() == {"seed", "model", "dataset", "storage"}
    assert document["spec"]["model"].keys() == {"uri"}


def test_meld_cpu_has_the_settings_of_the_study() -> None:
    study = load_study(ROOT / "studies" / "meld-few.yaml")
    of_study = leaves(evolution_of(study, study.row("main"), 1).spec.to_json())
    of_example = leaves(load_evolution(ROOT / "examples" / "meld-cpu.yaml").spec.to_json())
    paths = {path for path in {*of_study, *of_example} if in_recipe(path)}
    differences = {path for path in paths if of_study.get(path) != of_example.get(path)}
    assert not {path for path in differences if not path.startswith(OTHER)}
