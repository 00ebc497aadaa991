"""Mounts below a folder. A tree is removed only if nothing is mounted in it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from tests.support.cluster.commands import require, run
from tests.support.cluster.errors import ClusterError
from tests.support.cluster.processes import wait_until


def below(folder: Path) -> list[Path]:
    """Return the mount points below a folder, in the order of mounting."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # blanks in a path are written as \\040
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point.is_relative_to(folder):
            points.append(point)
    return points


def unmount(folder: Path) -> None:
    """Unmount everything below a folder; wait for mounts that are still in use."""
    program = require("umount")

    def gone() -> bool:
        for point in reversed(below(folder)):
            run(program, str(point), check=False)
        return not below(folder)

    wait_until(gone, f"unmounting everything below {folder}", 30)


def remove_empty(*folders: Path) -> None:
    """Remove folders of the machine that were created, unless they contain something."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder and its content.

    Raises
    ------
    ClusterError
        If something is mounted below it: the volume of a pod may contain files of the machine.
    """
    if left := below(folder):
        raise ClusterError(f"{folder} cannot be removed: {left[0]} is mounted")
    if folder.exists():
        shutil.rmtree(folder)
