"""Checkpoints: which of them are complete.

A process may be killed while it writes a checkpoint, or while it deletes an old one. A checkpoint
counts only if it has a marker file. That file is written last and lists every other file with its
size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from selfemo_jobs.store.local_files import write_file

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
    """Write the marker of a checkpoint.

    Call it only after every process has written its files.

    Parameters
    ----------
    checkpoint
        The folder of the checkpoint.
    """
    write_file(checkpoint / MARKER, json.dumps(_sizes(checkpoint), sort_keys=True).encode())


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
    try:
        sizes = json.loads((checkpoint / MARKER).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(_sizes(checkpoint) == sizes)


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a checkpoint, except its marker."""
    files = (p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARKER)
    return {str(p.relative_to(checkpoint)): p.stat().st_size for p in files}
