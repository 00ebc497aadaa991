"""Removes the data of a run after its EmotionEvolution was deleted.

The operator starts this program if `storage.whenDeleted` is `Delete`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.contract import PURGE_MODULE, PurgeConfig
from selfemo_jobs.runtime.program import read_json, run_program
from selfemo_jobs.store import join, open_store

log = logging.getLogger(__name__)


def purge(path: Path) -> None:
    """Remove the folder of a run, and nothing else. A second call finds nothing to remove.

    Parameters
    ----------
    path
        The configuration file, a :class:`~selfemo_api.contract.PurgeConfig` as JSON.

    Raises
    ------
    BadInput
        If the configuration is wrong, or the folder may not be removed.
    Unavailable
        If the storage stays unavailable.
    """
    config = read_json(path, PurgeConfig)
    folder = join(config.storage.uri, config.run)
    count = open_store(config.storage).remove(folder)
    log.info("removed", extra={"fields": {"folder": folder, "objects": count}})


def main(argv: Sequence[str] | None = None) -> int:
    """Run as ``python -m selfemo_jobs.stages.purge --config FILE``."""
    return run_program("Purge", PURGE_MODULE, purge, argv)


if __name__ == "__main__":
    sys.exit(main())
