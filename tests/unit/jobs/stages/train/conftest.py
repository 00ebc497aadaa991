"""Runs the stage as a process, as a pod or the local runner does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_jobs.runtime.manifest import Manifest, read_manifest
from selfemo_jobs.store import open_store


@dataclass(frozen=True)
class Run:
    """One process of the stage."""

    process: subprocess.Popen[bytes]
    folder: Path
    config: StageConfig

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait(self) -> int:
        return self.process.wait(300)

    @property
    def manifest(self) -> Manifest:
        uri = f"{self.config.output}/manifest.json"
        return read_manifest(open_store(self.config.spec.storage), uri)[0]

    @property
    def model(self) -> Path:
        return Path(self.config.output.removeprefix("file://")) / str(self.manifest.model)


def start(folder: Path, config: StageConfig, **environment: str) -> Run:
    """Start the train stage with its scratch folder and log below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(config.model_dump_json(by_alias=True))
    known = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        ENV_WORK: str(folder / "work"),
        ENV_TERMINATION_LOG: str(folder / "termination.json"),
        **environment,
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "selfemo_jobs.stages.train", "--config", str(file)],
            env=known,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    return Run(process, folder, config)


@pytest.fixture
def run_stage(tmp_path: Path) -> Callable[..., Run]:
    """Run the stage to its end."""

    def run(config: StageConfig, **environment: Any) -> Run:
        started = start(tmp_path / "stage", config, **environment)
        started.wait()
        return started

    return run
