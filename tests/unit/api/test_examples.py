"""The examples are what people copy: each is a resource that this version takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selfemo_api.schema.validation import load_evolution
from selfemo_study.study_config import document_of, load_study

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
#: What a person would change without asking for another way of learning.
OWN = ("seed", "model", "storage", "dataset", "evolution")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path) -> None:
    load_evolution(path)  # raises with what is wrong


def test_meld_on_a_cpu_learns_as_the_study_found() -> None:
    study = load_study(ROOT / "studies" / "meld.yaml")
    found = document_of(study, study.row("main"), 1)["spec"]
    shown = yaml.safe_load((ROOT / "examples" / "meld-cpu.yaml").read_text())["spec"]
    for spec in (found, shown):
        # the machine's affair: how much at once, and in what arithmetic
        spec["selfPlay"].pop("engineArgs")
        spec["training"].pop("precision")
    assert {k: v for k, v in shown.items() if k not in OWN} == {
        k: v for k, v in found.items() if k not in OWN
    }
