"""Ports of test clusters that start at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cluster.state import reserve

ROOT = Path(__file__).resolve().parents[2]


def test_a_port_is_chosen_by_one_process_alone() -> None:
    port = 19_999  # outside of the range that clusters choose from
    code = f"from tests.support.cluster.state import reserve; print(reserve({port}))"
    command = [sys.executable, "-c", code]
    assert reserve(port)
    held = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert held.stdout == "False\n"
    other = [sys.executable, "-c", code.replace(str(port), "19998")]
    free = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=True)
    assert free.stdout == "True\n"
