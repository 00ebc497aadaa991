"""Users copy the examples: each is valid in this version."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selfemo_api.schema.validation import load_evolution
from selfemo_study.row_evolution import evolution_document
from selfemo_study.study_config import load_study

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
#: The fields of the spec that do not change how the model learns.
OTHER = ("seed", "model", "storage", "dataset", "evolution")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path) -> None:
    load_evolution(path)  # raises an error if it is not


def test_meld_cpu_has_the_settings_of_the_study() -> None:
    study = load_study(ROOT / "studies" / "meld.yaml")
    of_study = evolution_document(study, study.row("main"), 1)["spec"]
    of_example = yaml.safe_load((ROOT / "examples" / "meld-cpu.yaml").read_text())["spec"]
    for spec in (of_study, of_example):
        # these depend on the machine: batch size and number format
        spec["selfPlay"].pop("engineArgs")
        spec["training"].pop("precision")
    assert {k: v for k, v in of_example.items() if k not in OTHER} == {
        k: v for k, v in of_study.items() if k not in OTHER
    }
