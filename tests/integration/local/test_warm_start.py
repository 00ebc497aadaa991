"""A run with a warm start: one command, and the same result if its processes end in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local.conftest import DEMO, LocalRun

LABELED = 12


@pytest.fixture(scope="session")
def base_model(tiny_model: Path) -> Path:
    """The model of these runs has no training yet."""
    return tiny_model


@pytest.fixture
def warm(make_run: Any) -> Callable[[str], LocalRun]:
    """Return a function that makes a run that ends with generation 0, which has a warm start."""

    def build(name: str) -> LocalRun:
        train = {"uri": f"file://{DEMO}/train.jsonl", "format": "JSONL"}
        dev = {"uri": f"file://{DEMO}/dev.jsonl", "format": "JSONL", "limit": 8}
        run: LocalRun = make_run(
            name,
            dataset__labeledDialogues=LABELED,
            dataset__sources=[
                {**train, "name": "train", "use": "SelfPlay"},
                {**dev, "name": "dev", "use": "Evaluation"},
            ],
            stopping__goal=0.001,
            warmStart__steps=30,
            overrides__warmStart={"evaluationSteps": 10, "learningRate": 3e-3, "batchSize": 8},
        )
        return run

    return build


def test_generation_0_is_the_warm_started_model(warm: Callable[[str], LocalRun]) -> None:
    run = warm("whole")
    code, result, err = run.finish()
    assert code == 0, err[-3000:]
    stages = ["Check", "WarmStart", "Evaluate", "Publish"]
    assert [
        line.split()[2].rstrip(":") for line in err.splitlines() if " rows in " in line
    ] == stages
    manifests = {Path(path).parent.name: json.loads(m) for path, m in run.manifests().items()}
    assert manifests.keys() == {"check", "warmstart", "evaluate", "publish", "best"}
    made = manifests["warmstart"]
    model = f"generations/000/warmstart/{made['model']}"
    assert manifests["best"]["model"] == model
    (score,) = manifests["evaluate"]["scores"]
    expression = manifests["evaluate"]["expression"]
    assert expression["responses"] >= 7, "the responder answers for each emotion"
    assert result["generations"][0]["expression"] == expression
    assert "overBaseline" not in expression
    assert made["metrics"]["weightedF1"] == score["weightedF1"]
    assert made["metrics"]["weightedF1"] > made["metrics"]["weightedF1Before"]
    assert manifests["evaluate"]["config"]["policyUri"].endswith(f"/{model}")
    assert result["best"]["modelUri"].endswith(f"/{model}")
    parts = {Path(part["path"]).name for part in manifests["warmstart"]["parts"]}
    files = {path.name for path in _model_folder(run).iterdir()}
    assert files == {*parts, "selfemo.json", "README.md"}
    description = json.loads((_model_folder(run) / "selfemo.json").read_text())
    assert description["scores"] == manifests["evaluate"]["scores"]
    assert description.get("baselineScores", []) == []
    page = (_model_folder(run).parents[3] / "report.html").read_text()
    assert page.startswith("<!") and "After generation 0" in page


def _model_folder(run: LocalRun) -> Path:
    (folder,) = run.folder.glob("store/default/tiny-*/generations/000/warmstart/model-*")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_interrupted_warm_start_has_the_same_result(warm: Callable[[str], LocalRun]) -> None:
    """The stage is killed in the middle, and then the run is ended by Ctrl-C."""
    whole = warm("whole")
    code, _, err = whole.finish()
    assert code == 0, err[-3000:]
    run = warm("interrupted")
    runner = run.start()
    _wait_for_step(run, runner, 3)
    (stage,) = _children(runner.pid)
    os.kill(stage, signal.SIGKILL)
    _wait_for_step(run, runner, 13)
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=60)
    steps = _steps(run)
    code, _, err = run.finish()
    assert code == 0, err[-3000:]
    assert run.manifests() == whole.manifests()
    later = _steps(run)[len(steps) :]
    assert later and min(later) > max(steps), "no step was made again after Ctrl-C"


def _wait_for_step(run: LocalRun, runner: subprocess.Popen[str], step: int) -> None:
    """Wait until the warm start has logged a step."""
    deadline = time.monotonic() + 300
    while step not in _steps(run):
        assert runner.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def _steps(run: LocalRun) -> list[int]:
    """Return the steps in the logs of all attempts, in order."""
    logs = sorted(run.jobs.glob("tiny-g000-warmstart-*/log.jsonl"))
    lines = [
        json.loads(line) for log in logs for line in log.read_text().splitlines() if line[:1] == "{"
    ]
    return [line["done"] for line in lines if "loss" in line]


def _children(parent: int) -> list[int]:
    """Return the process ids of a process's children that are stages."""
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
            ppid = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if ppid == parent and "--config" in command:
            processes.append(int(entry.name))
    return processes
