"""The examples in the docstrings of the packages show what the code returns."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The folders that are on the path of Python, each with one package or two.
FOLDERS = ("crds", "operator", "jobs", "studies")
PROMPT = ">>> "


def examples_by_module() -> dict[str, int]:
    """Return the number of examples of each module that has some. Nothing is imported."""
    counts = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            lines = file.read_text().splitlines()
            if count := sum(line.lstrip().startswith(PROMPT) for line in lines):
                parts = file.relative_to(ROOT / folder).with_suffix("").parts
                counts[".".join(parts).removesuffix(".__init__")] = count
    return counts


EXAMPLES = examples_by_module()


def import_or_skip(name: str) -> ModuleType:
    """Import a module. The test is skipped where a package of an extra is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("selfemo"):
            raise
        pytest.skip(f"{error.name} is not installed, which {name} imports")


def test_the_packages_have_examples() -> None:
    packages = {name.partition(".")[0] for name in EXAMPLES}
    assert packages >= {"selfemo_api", "selfemo_operator", "selfemo_jobs", "selfemo_study"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_return_what_they_show(name: str) -> None:
    result = doctest.testmod(import_or_skip(name))
    assert result.failed == 0
    assert result.attempted == EXAMPLES[name], "an example is not in a docstring that Python finds"
