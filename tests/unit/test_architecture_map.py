"""The map of packages in docs/architecture.md is the tree: nothing missing, nothing made up."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = (
    "crds/selfemo_api",
    "operator/selfemo_operator",
    "jobs/selfemo_jobs",
    "jobs/selfemo",
)
STUDIES = "studies/selfemo_study"


def rows() -> dict[str, str]:
    """Return the description of each package on the map."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.split("\n## The packages\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE))


def packages() -> set[str]:
    """Return the packages of the three distributions."""
    names = {
        str(init.parent.relative_to(ROOT))
        for top in DISTRIBUTIONS
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert len(names) > 25
    return names


def test_the_map_has_each_package_and_no_other() -> None:
    assert set(rows()) == packages() | {STUDIES}


def test_modules_that_it_names_are_there() -> None:
    named = [
        (package, module)
        for package, text in rows().items()
        for module in re.findall(r"`(\w+\.py)`", text)
    ]
    assert len(named) > 60
    assert [f"{p}/{m}" for p, m in named if not (ROOT / p / m).is_file()] == []


def test_each_description_is_one_line_with_words() -> None:
    assert [p for p, text in rows().items() if len(text.split()) < 3] == []
