"""The threads of a stage: they sleep while they wait, and fit the limit of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfemo_api.stages import Stage
from selfemo_jobs.runtime import threads
from selfemo_jobs.runtime.threads import available_processors, set_thread_defaults

AFFINITY = 16
V2 = "0::/kubepods/pod1/box\n"
V1 = "5:cpuset:/\n4:cpu,cpuacct:/kubepods/pod1/box\n0::/\n"


@pytest.fixture(autouse=True)
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(AFFINITY)))


def file_system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write `/proc/self/cgroup`, and files below `/sys/fs/cgroup`."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / (name if name.startswith("proc/") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (V2, {"kubepods/pod1/box/cpu.max": "200000 100000\n"}, 2),
        (V2, {"kubepods/pod1/box/cpu.max": "150000 100000\n"}, 2),
        (V2, {"kubepods/pod1/box/cpu.max": "10000 100000\n"}, 1),
        (V2, {"kubepods/pod1/box/cpu.max": "max 100000\n"}, AFFINITY),
        (V2, {"kubepods/pod1/box/cpu.max": "6400000 100000\n"}, AFFINITY),
        # the pod's limit, or its slice's, counts for the container
        (V2, {"kubepods/pod1/box/cpu.max": "max 100000", "kubepods/cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu,cpuacct/kubepods/pod1/box/cpu.cfs_quota_us": "200000\n",
              "cpu,cpuacct/kubepods/pod1/box/cpu.cfs_period_us": "100000\n"}, 2),
        # a container that sees the machine's path, with its own group at the top
        (V1, {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, AFFINITY),
        (V2, {}, AFFINITY),
    ],
)  # fmt: skip
def test_limit_of_a_container(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert available_processors(file_system(tmp_path, groups, files)) == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert available_processors(tmp_path) == AFFINITY


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(threads, "available_processors", lambda: AFFINITY)
    set_thread_defaults(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    monkeypatch.setattr(threads, "available_processors", lambda: 2)
    set_thread_defaults(environment)
    assert environment == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
        "OMP_NUM_THREADS": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    environment = {}
    set_thread_defaults(environment, counts=False)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize(
    "own",
    [
        {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"},
        {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "3"},
        {"KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "3"},
    ],
)
def test_own_settings_stay(own: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_processors", lambda: 2)
    environment = dict(own)
    set_thread_defaults(environment)
    assert environment == own


START = """
import importlib, os, sys
from pathlib import Path
from selfemo_jobs.runtime.program import StageProgram

def answer(program, path):
    early = "torch" in sys.modules
    import torch
    paths = {line.split()[-1] for line in open("/proc/self/maps")}
    libraries = [path for path in paths if "torch/lib/libgomp" in path]
    assert len(libraries) == 1, "torch has another OpenMP"
    print(early, os.environ["OMP_WAIT_POLICY"], "OMP_NUM_THREADS" in os.environ)

StageProgram._answer = answer
program = importlib.import_module(sys.argv[1] + ".__main__").PROGRAM
sys.exit(program.main(["--config", "none.json"]))
"""


def test_it_is_set_before_torch_is_loaded() -> None:
    """`libgomp` prints its settings when it is loaded: those that it has read."""
    environment = {**os.environ, "OMP_DISPLAY_ENV": "VERBOSE"}
    # vLLM, in a test before this one, preloads `libgomp` in all processes that follow
    own = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "LD_PRELOAD")
    for name in own:
        environment.pop(name, None)
    command = [sys.executable, "-c", START, Stage.SELF_PLAY.module]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["False", "PASSIVE", "False"], result.stderr[-2000:]
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in result.stderr
    assert "GOMP_SPINCOUNT = '1000'" in result.stderr


def test_no_stage_loads_torch_with_its_modules() -> None:
    names = ", ".join(f"{stage.module}.__main__" for stage in Stage)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
