"""`selfemo validate --resolve`: the spec with its recipe, and what differs from the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from selfemo_api.recipes import RECIPES, recipe_values
from selfemo_api.spec import EvolutionSpec
from selfemo_operator.cli.main import app

SPEC: dict[str, Any] = {
    "model": {"uri": "data://models/base"},
    "dataset": {"preset": "MELD", "uri": "data://meld"},
    "storage": {"uri": "file:///runs"},
}


def resolve(folder: Path, spec: dict[str, Any], *options: str) -> str:
    file = folder / "evolution.yaml"
    document = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "demo"},
        "spec": spec,
    }
    file.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(app, ["validate", str(file), "--resolve", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_is_shown_without_changes(tmp_path: Path, recipe: str) -> None:
    spec: dict[str, Any] = {**SPEC, "recipe": recipe}
    text = resolve(tmp_path, spec)
    assert text.endswith(f"# As in {recipe}.\n")
    resolved = yaml.safe_load(text)["spec"]
    for part, values in recipe_values(recipe).items():
        for name, value in values.items():
            if not isinstance(value, dict):
                assert resolved[part][name] == value
    assert [source["name"] for source in resolved["dataset"]["sources"]] == [
        *("train", "train-labeled", "dev", "test")
    ]
    assert EvolutionSpec.model_validate(resolved).recipe == recipe


def test_what_a_person_changed_is_at_the_end(tmp_path: Path) -> None:
    spec = {**SPEC, "training": {"imitation": 5}, "overrides": {"training": {"epochs": 3}}}
    text = resolve(tmp_path, spec)
    assert text.endswith(
        "# Different from small-v2:\n"
        "#   overrides.training.epochs: 3\n"
        "#   training.imitation: 5.0\n"
    )
    assert yaml.safe_load(text)["spec"]["training"]["epochs"] == 3


def test_changes_of_the_command_line_count(tmp_path: Path) -> None:
    text = resolve(tmp_path, SPEC, "--set", "stopping.maxGenerations=9")
    assert text.endswith("# Different from small-v2:\n#   stopping.maxGenerations: 9\n")


def test_as_json(tmp_path: Path) -> None:
    spec = {**SPEC, "ablation": "RandomRewards"}
    content = json.loads(resolve(tmp_path, spec, "--output", "json"))
    assert content["changes"] == {"overrides.reward.signal": "Random"}
    assert content["spec"]["reward"]["signal"] == "Random"
