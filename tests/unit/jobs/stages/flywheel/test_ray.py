"""The same filters on a real Ray cluster on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.jobs.stages.flywheel.candidates import Group, table, write_stage

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.errors import Unavailable
from selfemo_jobs.stages.flywheel.stage import PROGRAM

pytest.importorskip("ray")

#: Runs a cluster of two workers, and the stage's command on it.
CLUSTER = """
import subprocess
import sys
from pathlib import Path
import ray
node = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000)
address = node.address_info["gcs_address"]
commands = [["-c", sys.argv[1], address]]
for config in map(Path, sys.argv[2:]):
    config.write_text(config.read_text().replace("ADDRESS", address))
    commands.append(["-m", "selfemo_jobs.stages.flywheel", "--config", str(config)])
for command in commands:
    if code := subprocess.run([sys.executable, *command]).returncode:
        sys.exit(code)
"""

#: The runner must leave our SIGTERM handler in place, which saves the work and reports it.
KEEPS_HANDLER = """
import signal
import sys
import daft
from selfemo_api.spec import FlywheelSpec
from selfemo_jobs.stages.flywheel.dataframe_runner import start_runner
def ours(signum, frame): pass
signal.signal(signal.SIGTERM, ours)
start_runner(FlywheelSpec(runner="Ray", ray_address=sys.argv[1]))
assert daft.get_or_create_runner().name == "ray"
assert signal.getsignal(signal.SIGTERM) is ours
"""


def read_all(config: StageConfig) -> dict[str, bytes]:
    folder = Path(config.output.removeprefix("file://"))
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("*.*"))
        if path.name != "run.json"
    }


def test_a_cluster_that_does_not_run_is_unavailable(
    make_flywheel: Callable[..., StageConfig], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        score = write_stage(tmp_path / "score", [])
        config = make_flywheel(score, runner="Ray", rayAddress=address)
        with pytest.raises(Unavailable, match=f"Ray cluster at {address} does not answer"):
            PROGRAM.run(config)


@pytest.mark.slow
def test_ray_writes_the_same_bytes(
    make_flywheel: Callable[..., StageConfig], tmp_path: Path, groups: list[Group]
) -> None:
    rows = table(groups)
    score = write_stage(tmp_path / "score", [rows.slice(0, 700), rows.slice(700)])
    old = [Group(f"o{i}", generation=2) for i in range(40)]
    replay = [write_stage(tmp_path / "flywheel2", [table(old)], Stage.FLYWHEEL, 2)]
    parents = {"full": score, "empty": write_stage(tmp_path / "empty", [])}
    configs, paths = {}, []
    for name, parent in parents.items():
        local = make_flywheel(parent, replay, output=f"file://{tmp_path}/local-{name}")
        PROGRAM.run(local)
        where = {"runner": "Ray", "rayAddress": "ADDRESS"}
        ray = make_flywheel(parent, replay, output=f"file://{tmp_path}/ray-{name}", **where)
        config = tmp_path / f"{name}.json"
        config.write_text(ray.model_dump_json(by_alias=True))
        paths.append(str(config))
        configs[name] = local, ray
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, KEEPS_HANDLER, *paths],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for local, ray in configs.values():
        assert read_all(local) == read_all(ray)
    manifest = json.loads(read_all(configs["full"][1])["manifest.json"])
    assert manifest["metrics"]["replayed"] > 0
