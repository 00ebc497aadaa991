"""``python -m selfemo_jobs.evaluate --config FILE``."""

from __future__ import annotations

from selfemo_jobs.evaluate.stage import PROGRAM
from selfemo_jobs.runtime import exit_with

if __name__ == "__main__":
    exit_with(PROGRAM)
