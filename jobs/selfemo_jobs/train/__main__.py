"""``python -m selfemo_jobs.train --config FILE``."""

from selfemo_jobs.runtime import exit_with
from selfemo_jobs.train.stage import PROGRAM

exit_with(PROGRAM)
