"""Each test that the threat model names exists, and each defense names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return the file and the function of each test that a text names; an empty name is a file."""
    return re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)


def test_each_test_that_the_threat_model_names_exists() -> None:
    tests = named_tests(PAGE.read_text())
    assert len(tests) > 20
    missing = []
    for file, name in tests:
        path = ROOT / file
        tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
        functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        if not path.is_file() or (name and name not in functions):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_each_defense_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    attacks = [row for row in rows if row.count(" | ") == 2 and "| attack |" not in row]
    attacks = [row for row in attacks if not re.match(r"\| (---|actor |the |a |whoever )", row)]
    assert len(attacks) > 15
    assert [row[:60] for row in attacks if not named_tests(row)] == []


def test_the_policy_names_the_present_version() -> None:
    version = re.search(r'^version = "(\d+\.\d+)', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"| {version[1]} (the newest release" in (ROOT / "SECURITY.md").read_text()
