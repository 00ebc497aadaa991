"""``python -m selfemo_jobs.train --config FILE``."""

from __future__ import annotations

from selfemo_jobs.runtime import exit_with
from selfemo_jobs.train.stage import PROGRAM

if __name__ == "__main__":
    exit_with(PROGRAM)
