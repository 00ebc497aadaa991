"""Checkpoints: which of them are complete and whole.

A process may be killed while it writes a checkpoint, or while it deletes an old one. A checkpoint
counts only if it has a marker file. That file is written last and lists every other file with its
size and hash. After a power failure, a file may have its size and other content.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selfemo_jobs.errors import StageError
from selfemo_jobs.runtime.threads import available_processors
from selfemo_jobs.store.hashing import file_sha256
from selfemo_jobs.store.local_files import write_file

log = logging.getLogger(__name__)

#: Name of the marker file.
MARKER = "whole.json"
_PREFIX = "checkpoint-"  # Transformers' own name


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    folder
        The folder with all checkpoints of a training.
    step
        Number of the optimizer step, from 1.

    Returns
    -------
    Path
        The folder, which need not exist.
    """
    return folder / f"{_PREFIX}{step}"


def mark_complete(checkpoint: Path, *, hashes: bool = True) -> None:
    """Write the marker of a checkpoint.

    Call it only after every process has written its files.

    Parameters
    ----------
    checkpoint
        The folder of the checkpoint.
    hashes
        Whether the marker has the hash of each file. They are computed from what was just written,
        which the system has in memory. Leave them out where there is no time.
    """
    sizes = _sizes(checkpoint)
    digests = _hashes(checkpoint, sizes) if hashes else {}
    marks: dict[str, dict[str, int | str]] = {name: {"size": n} for name, n in sizes.items()}
    for name, digest in digests.items():
        marks[name]["sha256"] = digest
    write_file(checkpoint / MARKER, json.dumps(marks, sort_keys=True).encode())


def complete_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints, in ascending order.

    Parameters
    ----------
    folder
        The folder with all checkpoints of a training, which need not exist.

    Returns
    -------
    list of int
        The numbers of the steps.
    """
    complete = [path for path in folder.glob(f"{_PREFIX}*") if _is_complete(path)]
    return sorted(int(path.name.removeprefix(_PREFIX)) for path in complete)


def is_whole(checkpoint: Path, part: int = 0, parts: int = 1) -> bool:
    """Return whether the files of a complete checkpoint have the content that was written.

    Parameters
    ----------
    checkpoint
        The folder of the checkpoint.
    part, parts
        Which part of the files is read, and of how many: the processes of a node share them.
    """
    marks = _read_marks(checkpoint)
    hashed = sorted(name for name, mark in marks.items() if "sha256" in mark)[part::parts]
    try:
        return _hashes(checkpoint, hashed) == {name: marks[name]["sha256"] for name in hashed}
    except (OSError, StageError) as error:
        log.warning("%s cannot be read: %s", checkpoint, error)
        return False


def delete_other_checkpoints(folder: Path, steps: Iterable[int]) -> None:
    """Delete all checkpoints except those of some steps.

    Files of an incomplete checkpoint would otherwise mix with those that are written later.

    Parameters
    ----------
    folder
        The folder with all checkpoints of a training.
    steps
        The steps whose checkpoints stay.
    """
    names = {checkpoint_folder(folder, step).name for step in steps}
    for path in folder.glob(f"{_PREFIX}*"):
        if path.name not in names:
            shutil.rmtree(path)


def _is_complete(checkpoint: Path) -> bool:
    marks = _read_marks(checkpoint)
    return bool(marks) and _sizes(checkpoint) == {n: mark["size"] for n, mark in marks.items()}


def _read_marks(checkpoint: Path) -> dict[str, dict[str, int | str]]:
    """Return the size and hash of each file by the marker; nothing if it is missing or damaged."""
    try:
        marks = json.loads((checkpoint / MARKER).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    # earlier versions wrote the sizes alone
    return {n: mark if isinstance(mark, dict) else {"size": mark} for n, mark in marks.items()}


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a checkpoint, except its marker."""
    files = (p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARKER)
    return {str(p.relative_to(checkpoint)): p.stat().st_size for p in files}


def _hashes(checkpoint: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files of a checkpoint. They may be large, so it uses all processors."""
    names = list(names)
    with ThreadPoolExecutor(available_processors()) as pool:
        paths = (checkpoint / name for name in names)
        return dict(zip(names, pool.map(file_sha256, paths), strict=True))
