"""The scratch folder of a stage: checkpoints, downloads and copies that outlive an attempt.

Several evolutions may share one volume. So each run has its own folder, and each process locks the
folder that it uses: ``<scratch>/<namespace>/<name>-<uid8>/<NNN>-<stage>``. An attempt that finds
the folder locked, because the attempt before still runs, takes another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.os_errors import NO_LOCKS
from selfemo_jobs.store.local_files import open_lock, translated_errors

log = logging.getLogger(__name__)

#: The start of the names of a folder's locks. The rest is the number of a shard.
_LOCK = "selfemo-in-use-"
_STAGE = re.compile(r"^(\d{3})-[a-z]+(?:-\d+)?$")
#: Folders of other runs are removed when no process has used them for so long. A run may be
#: suspended meanwhile: it then loses a copy or a checkpoint, and no result.
_UNUSED_SECONDS = 30 * 86_400.0


class _InUse(Exception):
    """Another process has locked a folder."""


def scratch_folder() -> Path:
    """Return the scratch folder of all stages, which need not exist."""
    return Path(os.environ.get(ENV_WORK) or Path.cwd() / ".selfemo-work")


def run_scratch(run: str) -> Path:
    """Return the scratch folder of a run, which need not exist.

    Parameters
    ----------
    run
        The folder of the run in the storage, ``<namespace>/<name>-<uid8>``.
    """
    return scratch_folder() / run


@contextmanager
def locked_scratch(config: StageConfig, shard: int) -> Iterator[Path]:
    """Yield the scratch folder of a shard of a stage, and hold its lock.

    The operating system ends the lock of a process that is killed. On a file system without locks,
    the folder is used without one, and no old folder is removed.

    Parameters
    ----------
    config
        The stage's configuration.
    shard
        The number of the shard. The shards of a stage share a folder.

    Raises
    ------
    BadInput
        If the folder cannot be made.
    """
    run = run_scratch(config.run)
    name = f"{config.generation:03d}-{config.stage.slug}"
    with ExitStack() as locks, translated_errors(run):
        for number in itertools.count(1):
            folder = run / (name if number == 1 else f"{name}-{number}")
            try:
                locks.enter_context(_locked(folder / f"{_LOCK}{shard}"))
                break
            except _InUse:
                log.warning("%s is used by an earlier attempt that has not ended", folder)
        remove_old_folders(config)
        held = locks.pop_all()
    with held:
        yield folder


def remove_old_folders(config: StageConfig) -> None:
    """Remove the scratch folders of this run's earlier generations, and those of unused runs.

    A folder that a process has locked stays. So does whatever selfemo has not made: only folders
    with its locks in them are removed. An error is logged.

    Parameters
    ----------
    config
        The configuration of a stage of the run.
    """
    own = run_scratch(config.run)
    oldest = time.time() - _UNUSED_SECONDS
    for run in _runs(own):
        for folder in _stage_folders(run):
            used = _last_use(folder)
            finished = run == own and int(folder.name[:3]) < config.generation
            if used is not None and (finished or (run != own and used < oldest)):
                _remove_unused(folder)


def _runs(own: Path) -> list[Path]:
    """Return the scratch folders of this run and of all others, at the same depth."""
    root = scratch_folder()
    depth = len(own.relative_to(root).parts)
    try:
        return sorted(path for path in root.glob("/".join("*" * depth)) if path.is_dir())
    except OSError:
        return [own]  # another process removes a folder, or one belongs to somebody else


def _last_use(folder: Path) -> float | None:
    """Return when a process last locked a folder; None if none did, or the folder has gone."""
    try:
        return max((path.stat().st_mtime for path in folder.glob(f"{_LOCK}*")), default=None)
    except OSError:
        return None  # another process removes it, or it belongs to somebody else


def _stage_folders(run: Path) -> list[Path]:
    try:
        return sorted(path for path in run.iterdir() if _STAGE.match(path.name) and path.is_dir())
    except OSError:
        return []  # it belongs to somebody else, or was removed since


def _remove_unused(folder: Path) -> None:
    """Remove a folder unless a process uses it."""
    try:
        with ExitStack() as locks:
            for path in sorted(folder.glob(f"{_LOCK}*")):
                locks.enter_context(_locked(path, required=True))
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # the run has other folders
                folder.parent.rmdir()
    except _InUse:
        return
    except OSError as error:
        log.warning("%s could not be removed: %s", folder, error)
    else:
        log.info("removed the old scratch folder %s", folder)


@contextmanager
def _locked(path: Path, *, required: bool = False) -> Iterator[None]:
    """Return a context that holds a lock. Raises _InUse if another process holds it.

    Parameters
    ----------
    path
        The file of the lock. Its folder is made.
    required
        Whether a file system without locks counts as a lock of another process.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = open_lock(path)
        except FileNotFoundError:
            continue  # the folder was removed since
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _InUse from None
        except OSError as error:
            if error.errno not in NO_LOCKS or required:
                os.close(descriptor)
                if error.errno in NO_LOCKS:
                    raise _InUse from None
                raise
        if _is_file(descriptor, path):
            break
        os.close(descriptor)  # another process removed the folder meanwhile
    try:
        if not required:
            with contextlib.suppress(OSError):  # another user made the file
                os.utime(path)
        yield
    finally:
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
