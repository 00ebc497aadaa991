"""Stages do not import what takes seconds and is not used."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import selfemo_jobs.stages.publish.stage
import selfemo_jobs.stages.selfplay.stage
print(sorted({"sklearn", "scipy", "pandas", "torch", "mlflow"} & set(sys.modules)))
"""


def test_the_programs_of_stages_import_neither_scikit_learn_nor_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
