"""One small run by the Python API, which all tests read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

import selfemo
from selfemo import Evolution, Snapshot
from selfemo_api.spec import Tracker
from selfemo_api.status import EvolutionStatus

DEMO = Path(__file__).resolve().parents[3] / "examples/demo"
YAML = """
apiVersion: selfemo.dev/v1alpha1
kind: EmotionEvolution
metadata: {name: small}
spec:
  recipe: tests-v1
  model: {uri: "data://model"}
  dataset:
    labels: [neutral, surprise, fear, sadness, joy, disgust, anger]
    sources:
      - {name: talks, uri: "data://demo/train.jsonl", use: SelfPlay, limit: 8}
      - {name: dev, uri: "data://demo/dev.jsonl", use: Evaluation, limit: 6}
  storage: {uri: "file://./storage"}
"""


@dataclass(frozen=True)
class SmallRun:
    """A finished run, with all that the API reported on the way."""

    evolution: Evolution
    status: EvolutionStatus
    changes: list[Snapshot]
    """The snapshots of the function that was called at each change."""
    tools: Path
    """The folder of the trackers' files."""
    watched: list[Snapshot] = field(default_factory=list)
    """The snapshots that another thread got by `watch`."""


@pytest.fixture(scope="session")
def evolution(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Evolution:
    """An evolution that has not begun."""
    folder = tmp_path_factory.mktemp("python-api")
    file = folder / "small.yaml"
    file.write_text(YAML)
    return Evolution.from_file(
        file,
        set={
            "storage.uri": (folder / "storage").as_uri(),
            "spec.seed": 5,
            "trackers": [str(tracker) for tracker in Tracker],
        },
        data={"model": tiny_model, "demo": DEMO},
        state=folder / "state",
    )


@pytest.fixture(scope="session")
def small_run(evolution: Evolution, monkeypatch_session: pytest.MonkeyPatch) -> SmallRun:
    """The evolution, after its run, which wrote to all trackers."""
    tools = evolution.state_folder.parents[2] / "tools"
    tools.mkdir()
    monkeypatch_session.setenv("OMP_NUM_THREADS", "1")
    monkeypatch_session.setenv("MLFLOW_TRACKING_URI", f"file://{tools}/mlruns")
    monkeypatch_session.setenv("WANDB_MODE", "offline")
    monkeypatch_session.setenv("WANDB_DIR", str(tools))
    monkeypatch_session.setenv("TRACKIO_DIR", f"{tools}/trackio")
    assert evolution.status == EvolutionStatus()
    assert evolution.best is None
    watched: list[Snapshot] = []
    watcher = Thread(target=lambda: watched.extend(evolution.watch(0.2)))
    watcher.start()
    changes: list[Snapshot] = []
    try:
        status = evolution.run(changes.append)
    except selfemo.RunFailed as error:
        logs = sorted(evolution.state_folder.glob("jobs/*/log.jsonl"))
        pytest.fail(f"{error}\n{logs[-1].read_text()[-3000:]}")
    watcher.join(30)
    assert not watcher.is_alive()
    return SmallRun(evolution, status, changes, tools, watched)


@pytest.fixture(scope="session")
def monkeypatch_session() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch
