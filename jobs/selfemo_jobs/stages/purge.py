"""Removes the data of a run after its EmotionEvolution was deleted.

The operator starts this program if `storage.whenDeleted` is `Delete`. Removed data cannot be
restored, so the program checks first that the operator has permitted the pod's own Job to remove
it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.contract import ENV_JOB_UID, PURGE_MODULE, PurgeConfig
from selfemo_jobs.errors import BadInput
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
        If the configuration is wrong, the folder may not be removed, or this Job is not permitted
        to remove it.
    Unavailable
        If the storage stays unavailable.
    """
    config = read_json(path, PurgeConfig)
    folder = join(config.storage.uri, config.run)
    _check_permission(config, folder)
    store = open_store(config.storage)
    count = store.remove(folder)
    log.info("removed", extra={"fields": {"folder": folder, "objects": count}})
    _check_versions(folder, store.older_versions(folder))


def _check_versions(folder: str, count: int | None) -> None:
    """Check that the storage keeps nothing of what was removed. Raises BadInput."""
    if count is None:
        log.warning(
            "whether older versions of the objects are left below %s is not known: the permission "
            "s3:ListBucketVersions is missing",
            folder,
        )
    elif count:
        raise BadInput(
            f"{folder}: the objects were removed, but the bucket keeps {count} older versions of "
            "them (versioning or object lock): remove the versions with the right "
            "s3:DeleteObjectVersion, or wait for a life cycle rule, then delete this Job"
        )


def _check_permission(config: PurgeConfig, folder: str) -> None:
    """Check that the operator started this Job. Raises BadInput.

    The configuration is an annotation of the pod, and the uid is a label that the API server sets
    for each Job. So the check needs no access to the API server. A Job that somebody starts by hand
    has no permission; one that was copied or restored has the permission of another Job.
    """
    job = os.environ.get(ENV_JOB_UID, "")
    if config.permitted_job is None:
        raise BadInput(
            f"nothing was removed from {folder}: the operator has not started this Job. It does so "
            "when the EmotionEvolution is deleted and its last `storage.whenDeleted` is `Delete`. "
            "Delete this Job"
        )
    if not job or config.permitted_job != job:
        raise BadInput(
            f"nothing was removed from {folder}: the permission is for the Job with the uid "
            f"{config.permitted_job}, and this Job has the uid {job or 'unknown'}: it is a copy. "
            "Delete it"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run as ``python -m selfemo_jobs.stages.purge --config FILE``."""
    return run_program("Purge", PURGE_MODULE, purge, argv)


if __name__ == "__main__":
    sys.exit(main())
