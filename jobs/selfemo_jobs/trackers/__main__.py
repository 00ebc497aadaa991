"""``python -m selfemo_jobs.trackers --job FILE``."""

from __future__ import annotations

import sys

from selfemo_jobs.trackers.worker import main

if __name__ == "__main__":
    sys.exit(main())
