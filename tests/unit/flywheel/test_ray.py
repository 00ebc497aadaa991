"""The same program on a real Ray cluster, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.flywheel.candidates import Group, table, write_stage

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.flywheel.stage import PROGRAM

pytest.importorskip("ray")

#: Starts a cluster with few workers, then runs the stage's own command on it. Daft can choose its
#: runner once in a process, so this one is not the tests'.
DRIVER = """
import sys
import ray
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
from selfemo_jobs.flywheel.stage import PROGRAM
for path in sys.argv[1:]:
    code = PROGRAM.main(["--config", path])
    if code:
        sys.exit(code)
import daft
assert daft.get_or_create_runner().name == "ray"
ray.shutdown()
"""


def read_all(config: StageConfig) -> dict[str, bytes]:
    folder = Path(config.output.removeprefix("file://"))
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("*.*"))
        if path.name != "run.json"
    }


@pytest.mark.slow
def test_ray_gives_the_same_bytes(
    make_flywheel: Callable[..., StageConfig], tmp_path: Path, groups: list[Group]
) -> None:
    rows = table(groups)
    score = write_stage(tmp_path / "score", [rows.slice(0, 700), rows.slice(700)])
    old = [Group(f"o{i}", generation=2) for i in range(40)]
    replay = [write_stage(tmp_path / "flywheel2", [table(old)], Stage.FLYWHEEL, 2)]
    nothing = write_stage(tmp_path / "empty", [])
    configs = {
        (runner, name): make_flywheel(
            parent, replay, output=f"file://{tmp_path}/{runner}-{name}", runner=runner
        )
        for runner in ("InProcess", "Ray")
        for name, parent in (("full", score), ("empty", nothing))
    }
    paths = []
    for (runner, name), config in configs.items():
        if runner == "InProcess":
            PROGRAM.run(config)
            continue
        path = tmp_path / f"{name}.json"
        path.write_text(config.model_dump_json(by_alias=True))
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *paths],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for name in ("full", "empty"):
        local, ray = configs["InProcess", name], configs["Ray", name]
        assert read_all(local) == read_all(ray)
    manifest = json.loads(read_all(configs["Ray", "full"])["manifest.json"])
    assert manifest["metrics"]["replayed"] > 0
