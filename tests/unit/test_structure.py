"""The packages as a whole: no circles, few arrows, one meaning for each module name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.structure import PACKAGES, arrows, circles, import_graph

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = {p: import_graph(ROOT / folder, p) for p, (folder, _) in PACKAGES.items()}


@pytest.mark.parametrize("package", GRAPHS)
def test_no_modules_import_each_other(package: str) -> None:
    assert len(GRAPHS[package]) > 10
    assert circles(GRAPHS[package]) == []


def test_a_circle_is_found() -> None:
    graph = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"b"}), "d": frozenset()}
    assert circles(graph) == [["b", "c"]]


@pytest.mark.parametrize(("package", "most"), [("selfemo_operator", 39), ("selfemo_jobs", 73)])
def test_few_packages_depend_on_each_other(package: str, most: int) -> None:
    """The first release had 93 and 79.

    Since then the jobs have five more packages: 18 packages could have 153 arrows.
    """
    assert 10 < len(arrows(GRAPHS[package], PACKAGES[package][1])) <= most
