"""Results in a folder of the pod that is deleted with it are found before the run."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_api.contract import ENV_PARENT
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.mounts import check_lasting_folders, lost_volume

PODS = "/var/lib/kubelet/pods/5f0c/volumes"
#: As in a pod with a scratch volume, one in memory, and a claim mounted within the former.
MOUNTS = f"""\
20 1 0:40 / / ro,relatime - overlay overlay rw
21 20 8:1 {PODS}/kubernetes.io~empty-dir/work /work rw,relatime - ext4 /dev/sda1 rw
22 20 0:41 / /dev/shm rw - tmpfs tmpfs rw
23 21 0:52 / /work/results rw - nfs4 server:/results rw
24 20 8:1 {PODS}/kubernetes.io~empty-dir/a\\040b /with\\040blank rw - ext4 /dev/sda1 rw
25 20 8:17 / /both rw - ext4 /dev/sdb1 rw
26 25 8:1 {PODS}/kubernetes.io~empty-dir/top /both rw - ext4 /dev/sda1 rw
a line of another format
"""


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        ("/work", "the volume `work`"),
        ("/work/runs/1", "the volume `work`"),
        ("/work/results", None),
        ("/work/results/1", None),
        ("/workshop", None),
        ("/dev/shm/runs", "an in-memory volume"),
        ("/with blank/runs", "the volume `a b`"),
        ("/both/runs", "the volume `top`"),
        ("/srv", None),
    ],
)
def test_the_innermost_mount_decides(path: str, volume: str | None) -> None:
    assert lost_volume(PurePosixPath(path), MOUNTS) == volume


def problems(world: World) -> list[str]:
    findings = Findings()
    check_lasting_folders(world.config().spec, findings, MOUNTS)
    return [str(finding) for finding in findings.problems]


def test_only_folders_in_pods_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.spec["storage"] = {"uri": "file:///work/runs"}
    world.spec["publish"] = "file:///dev/shm/model"
    assert problems(world) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert problems(world) == [], "a run on one machine, in a pod"
    monkeypatch.delenv(ENV_PARENT)
    assert [problem.partition(" of the pod")[0] for problem in problems(world)] == [
        "storage.uri: file:///work/runs is in the volume `work`",
        "publish: file:///dev/shm/model is in an in-memory volume",
    ]
    world.spec["storage"] = {"uri": "s3://bucket/runs"}
    world.spec["publish"] = "file:///work/results/model"
    assert problems(world) == []
