"""Whole evolutions on this machine, with a tiny base model and real stages as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_api import dataset_labels
from tests.support.cluster.locks import locked

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "examples" / "demo"


@pytest.fixture(scope="session")
def base_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny model after a warm start: its answers are label names.

    It is made once for each test run, whatever the number of workers (pytest-xdist).
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "base" / "model"
    with locked(folder.with_name("lock")):
        if not folder.exists():
            part = folder.with_name("part")
            _warm_start(request.getfixturevalue("tiny_model"), part)
            part.replace(folder)
    return folder


def _warm_start(model: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "selfemo_jobs.base_models", "warm-start"]
    options = {
        "--model": model,
        "--to": folder,
        "--source": DEMO / "train.jsonl",
        "--format": "JSONL",
        "--dialogues": 40,
        "--labels": ",".join(dataset_labels.MELD),
        "--prompts": "compact-v1",
        "--past": 1,
        "--steps": 80,
        "--batch-size": 24,
        "--learning-rate": 3e-3,
        "--seed": 1,
    }
    arguments = [str(x) for pair in options.items() for x in pair]
    # Waiting threads of torch otherwise spin, which makes two processes ten times slower.
    quiet = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([*command, *arguments], check=True, timeout=600, env=quiet)


@dataclass
class LocalRun:
    """One evolution with the command that runs it."""

    folder: Path
    spec: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.folder / "evolution.yaml"

    @property
    def jobs(self) -> Path:
        return self.folder / "state" / "default" / "tiny" / "jobs"

    def write(self) -> None:
        document = {
            "apiVersion": "selfemo.dev/v1alpha1",
            "kind": "EmotionEvolution",
            "metadata": {"name": "tiny"},
            "spec": self.spec,
        }
        self.file.write_text(yaml.safe_dump(document))

    def command(self, *options: str) -> list[str]:
        program = str(Path(sys.executable).parent / "selfemo")
        state = ["--state", str(self.folder / "state"), "--output", "json"]
        return [program, "run", str(self.file), *state, *options]

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def finish(self, *options: str, timeout: int = 500) -> tuple[int, dict[str, Any], str]:
        """Run to the end, and return the exit code, the JSON and standard error."""
        done = subprocess.run(
            self.command(*options), text=True, capture_output=True, timeout=timeout, check=False
        )
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    def manifests(self) -> dict[str, str]:
        """Return the text of each manifest, by its path below the storage."""
        store = self.folder / "store"
        return {
            str(path.relative_to(store)): path.read_text()
            for path in sorted(store.rglob("manifest.json"))
        }


@pytest.fixture
def make_run(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that makes a run of one generation over a few dialogues of the demo.

    Each run has its own folder. Changes of the spec are keywords such as ``model__uri``. The recipe
    `tests-v1` has the settings of a tiny model on one processor.
    """

    def build(name: str, **changes: Any) -> LocalRun:
        folder = tmp_path_factory.mktemp(name)
        source = {"uri": f"file://{DEMO}/train.jsonl", "format": "JSONL"}
        dev = {"uri": f"file://{DEMO}/dev.jsonl", "format": "JSONL", "limit": 8}
        spec: dict[str, Any] = {
            "recipe": "tests-v1",
            "seed": 3,
            "model": {"uri": f"file://{base_model}"},
            "dataset": {
                "labels": list(dataset_labels.MELD),
                "sources": [
                    {**source, "name": "train", "use": "SelfPlay", "offset": 40},
                    {**dev, "name": "dev", "use": "Evaluation"},
                ],
            },
            "storage": {"uri": f"file://{folder}/store"},
            "selfPlay": {"dialogues": 10},
            "stopping": {"maxGenerations": 1},
            "failurePolicy": {"maxAttempts": 10},
            "overrides": {
                "selfPlay": {"batchPrompts": 16},
                "flywheel": {"minReward": -1.0, "consistency": {"min": 0.3}, "maxShare": 0.5},
                "training": {"checkpointSteps": 2, "deepspeed": {"zeroStage": 1}},
                "evaluation": {"bootstrap": 100},
                "failurePolicy": {"backoffSeconds": 0},
            },
        }
        for path, value in changes.items():
            node = spec
            *parents, last = path.split("__")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        run = LocalRun(folder, spec)
        run.write()
        return run

    return build
