"""The training runs in processes of its own, so that the stage needs no torch."""

from __future__ import annotations

import subprocess
import sys


def test_the_stage_itself_does_not_import_torch() -> None:
    code = "import sys, selfemo_jobs.stages.train.stage as s; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
