"""Removes the data of a run whose EmotionEvolution was deleted (`storage.whenDeleted: Delete`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.contract import PURGE_MODULE, PurgeConfig
from selfemo_jobs.runtime.program import parsed, run_program
from selfemo_jobs.store import join, open_store

log = logging.getLogger(__name__)


def purge(path: Path) -> None:
    """Remove a run's folder and nothing else. Done again, it finds nothing."""
    config = parsed(path, PurgeConfig)
    folder = join(config.storage.uri, config.run)
    count = open_store(config.storage).remove(folder)
    log.info("removed", extra={"fields": {"folder": folder, "objects": count}})


def main(argv: Sequence[str] | None = None) -> int:
    """Run as ``python -m selfemo_jobs.stages.purge --config FILE``."""
    return run_program("Purge", PURGE_MODULE, purge, argv)


if __name__ == "__main__":
    sys.exit(main())
