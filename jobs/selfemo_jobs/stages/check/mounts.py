"""Whether what a stage writes to a folder outlives its pod."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.machine import runs_here
from selfemo_jobs.store.folder import file_path

_MOUNTS = Path("/proc/self/mountinfo")
#: The folder in which a kubelet makes the volumes of the kind `emptyDir`.
_EMPTY_DIR = re.compile(r"/kubernetes\.io~empty-dir/([^/]+)")
#: A blank and the like in a path of the table of mounts.
_ESCAPED = re.compile(r"\\([0-7]{3})")


def lost_volume(path: PurePosixPath, mounts: str) -> str | None:
    """Return the volume that has a path, if its content is deleted with the pod; otherwise None.

    Parameters
    ----------
    path
        An absolute path. It need not exist.
    mounts
        The table of mounts, as in ``/proc/self/mountinfo``.

    Examples
    --------
    >>> root = "/var/lib/kubelet/pods/5f0c/volumes/kubernetes.io~empty-dir/work"
    >>> lost_volume(PurePosixPath("/work/results"), f"30 1 8:1 {root} /work rw - ext4 /dev/sda1 rw")
    'the volume `work`'
    >>> lost_volume(PurePosixPath("/results"), "31 1 0:50 / /results rw - nfs4 server:/a rw")
    """
    places = [path, *path.parents]
    found: tuple[int, str, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        root, point = (_ESCAPED.sub(lambda m: chr(int(m[1], 8)), text) for text in fields[3:5])
        depth = len(PurePosixPath(point).parts)
        # of two mounts at one place, the later one is on top
        if PurePosixPath(point) in places and (found is None or depth >= found[0]):
            found = depth, root, after.split()[0]
    if found is None:
        return None
    _depth, root, kind = found
    match = _EMPTY_DIR.search(root)
    if match is not None:
        return f"the volume `{match[1]}`"
    return "an in-memory volume" if kind == "tmpfs" else None


def check_lasting_folders(
    spec: EvolutionSpec, findings: Findings, mounts: str | None = None
) -> None:
    """Find folders of results that are deleted with the pod. Elsewhere than in pods, find nothing.

    Parameters
    ----------
    spec
        The resolved spec.
    findings
        The problems are added to it.
    mounts
        The table of mounts. None: that of this process.
    """
    if runs_here() or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return
    table = _MOUNTS.read_text("utf-8", "replace") if mounts is None else mounts
    for field, uri in (("storage.uri", spec.storage.uri), ("publish", spec.publish or "")):
        if not uri.startswith("file://"):
            continue
        volume = lost_volume(PurePosixPath(file_path(uri)), table)
        if volume is not None:
            findings.problem(
                field,
                f"{uri} is in {volume} of the pod, which is deleted with it: mount a "
                "PersistentVolumeClaim there for all stages with `podTemplate`, or use a bucket",
            )
