"""Which checkpoints are whole.

A process may be killed while it writes one, or while it deletes an old one. A checkpoint counts
only if its mark, written after everything else, lists every file there with its size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from selfemo_jobs.store.local_files import write_file

MARK = "whole.json"
_PREFIX = "checkpoint-"  # Transformers' own name


def checkpoint(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return folder / f"{_PREFIX}{step}"


def mark_whole(path: Path) -> None:
    """Say that a checkpoint is whole: call it when every process has written its files."""
    write_file(path / MARK, json.dumps(_sizes(path), sort_keys=True).encode())


def whole_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints that are whole, in order."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if _is_whole(path)]
    return sorted(int(path.name.removeprefix(_PREFIX)) for path in found)


def delete_others(folder: Path, kept: Iterable[int]) -> None:
    """Delete all checkpoints but those of some steps: leavings would mix with what is written."""
    names = {checkpoint(folder, step).name for step in kept}
    for path in folder.glob(f"{_PREFIX}*"):
        if path.name not in names:
            shutil.rmtree(path)


def _is_whole(path: Path) -> bool:
    try:
        expected = json.loads((path / MARK).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(_sizes(path) == expected)


def _sizes(path: Path) -> dict[str, int]:
    files = (p for p in path.rglob("*") if p.is_file() and p.name != MARK)
    return {str(p.relative_to(path)): p.stat().st_size for p in files}
