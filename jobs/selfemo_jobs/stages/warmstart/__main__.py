"""``python -m selfemo_jobs.stages.warmstart --config FILE``."""

from __future__ import annotations

from selfemo_jobs.runtime.light_imports import skip_unused_imports
from selfemo_jobs.runtime.program import exit_with
from selfemo_jobs.stages.warmstart.stage import PROGRAM

if __name__ == "__main__":
    skip_unused_imports()
    exit_with(PROGRAM)
