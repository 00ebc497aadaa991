"""``python -m selfemo_jobs.stages.publish --config FILE``."""

from __future__ import annotations

from selfemo_jobs.runtime.program import exit_with
from selfemo_jobs.stages.publish.stage import PROGRAM

if __name__ == "__main__":
    exit_with(PROGRAM)
