"""The cgroups of the node's processes, so that all of them can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import settings
from tests.support.cluster.processes import wait_until

_ROOT = Path("/sys/fs/cgroup")


def make() -> None:
    """Create the cluster's cgroup in every hierarchy, as the kubelet requires."""
    for hierarchy in _hierarchies():
        group = hierarchy / settings.CGROUP
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # in cgroup v1 a new group has no CPUs, and accepts no processes
            if (group / name).exists() and hierarchy.name == "cpuset":
                (group / name).write_text((hierarchy / name).read_text())
    for group in _runtime_groups():
        group.mkdir(exist_ok=True)


def enter_runtime(pid: int) -> None:
    """Move the container runtime into its group; the processes that it starts stay in it."""
    for group in _runtime_groups():
        (group / "cgroup.procs").write_text(str(pid))


def kill() -> None:
    """Kill every process of the cluster's cgroups: pods, shims and the runtime."""

    def gone() -> bool:
        left = list(_processes())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(gone, "killing the pods", 30)


def remove() -> None:
    """Remove the cluster's cgroups, deepest first."""

    def gone() -> bool:
        left = [group for top in _hierarchies() for group in _groups(top / settings.CGROUP)]
        for group in sorted(left, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # a killed process may still be in it
                group.rmdir()
        return not any(group.exists() for group in left)

    wait_until(gone, "removing the cgroups", 30)


def _hierarchies() -> Iterator[Path]:
    """Yield the mounted hierarchies: one in version 2, several in version 1."""
    if (_ROOT / "cgroup.controllers").exists():
        yield _ROOT
        return
    for folder in sorted(_ROOT.iterdir()):
        if (folder / "cgroup.procs").exists() and not folder.is_symlink():
            yield folder


def _runtime_groups() -> list[Path]:
    """Return the group of the runtime; in version 1 it is in the hierarchy `pids`."""
    version2 = (_ROOT / "cgroup.controllers").exists()
    return [(_ROOT if version2 else _ROOT / "pids") / settings.CGROUP / "runtime"]


def _groups(top: Path) -> Iterator[Path]:
    if top.is_dir():
        yield top
        yield from (path for path in top.rglob("*") if path.is_dir())


def _processes() -> Iterator[int]:
    for hierarchy in _hierarchies():
        for group in _groups(hierarchy / settings.CGROUP):
            with contextlib.suppress(FileNotFoundError):
                yield from map(int, (group / "cgroup.procs").read_text().split())
