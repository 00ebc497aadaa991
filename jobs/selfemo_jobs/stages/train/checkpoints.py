"""Checkpoints: which of them are complete and whole.

A process may be killed while it writes a checkpoint, or while it deletes an old one. A checkpoint
counts only if it has a marker file. That file is written last, when all others are on the disk, and
lists every other file with its size and hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selfemo_jobs.runtime.threads import available_processors
from selfemo_jobs.store.hashing import file_sha256
from selfemo_jobs.store.local_files import (
    fsync_file,
    fsync_folder,
    translated_errors,
    write_file,
)

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


def mark_complete(checkpoint: Path) -> None:
    """Write a checkpoint's files to the disk, and then its marker.

    Call it only after every process has written its files.

    Parameters
    ----------
    checkpoint
        The folder of the checkpoint.
    """
    sizes = _sizes(checkpoint)
    with translated_errors(checkpoint):
        for name in sizes:
            with (checkpoint / name).open("rb") as file:
                fsync_file(file)
        folders = [path for path in checkpoint.rglob("*") if path.is_dir()]
        for folder in (*folders, checkpoint, checkpoint.parent):
            fsync_folder(folder)
        hashes = _hashes(checkpoint, sizes)
    marks = {name: {"size": sizes[name], "sha256": hashes[name]} for name in sizes}
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


def is_whole(checkpoint: Path) -> bool:
    """Return whether the files of a complete checkpoint have the content that was written.

    Parameters
    ----------
    checkpoint
        The folder of the checkpoint. All its files are read.
    """
    marks = _read_marks(checkpoint)
    expected = {name: mark["sha256"] for name, mark in marks.items() if "sha256" in mark}
    return _hashes(checkpoint, expected) == expected


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
