"""A recorded run whose Publish stage feeds trackers, and a watch on connections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import recorded
from tests.support.connections import ConnectionLog, connection_log

from selfemo_api.contract import GenerationOutcome, RunOutcomes, StageConfig
from selfemo_api.spec import EvolutionSpec, Tracker
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.step_curve import STEP_CURVE
from selfemo_jobs.store import open_store

#: The training of generation 1 had so many steps. The recorded manifests have no curve.
CURVE = {"step": [1, 2, 3], "loss": [0.5, 0.25, 0.125], "gradNorm": [1.0, 2.0, 3.0]}


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., StageContext]:
    """Return the context of Publish after a generation of the recorded run."""
    storage = tmp_path / "storage"
    shutil.copytree(recorded.STORAGE, storage)
    run = storage / recorded.RUN
    train = run / stage_prefix(1, Stage.TRAIN) / "manifest.json"
    manifest = json.loads(train.read_text())
    manifest["metrics"]["steps"] = 3.0
    manifest["report"][STEP_CURVE] = CURVE
    train.write_text(json.dumps(manifest))
    (run / "report.html").write_text("<title>the report</title>")
    evolution = recorded.evolution()
    status = evolution.status
    assert status.current is not None
    assert status.best is not None
    spec_json = status.current.spec | {"storage": {"uri": storage.as_uri()}}

    def build(generation: int, *trackers: Tracker, **changes: object) -> StageContext:
        spec = EvolutionSpec.model_validate(spec_json | changes | {"trackers": list(trackers)})
        history = [r for r in status.history if r.generation <= generation]
        outcomes = RunOutcomes(
            best=status.best,
            generations=[
                GenerationOutcome(
                    generation=r.generation, outcome=r.outcome, f1=r.f1, model_uri=r.model_uri
                )
                for r in history
            ],
            baseline_uri="file:///base",
            next_policy_uri="file:///next",
            changes=list(status.current.changes),
        )
        config = StageConfig(
            stage=Stage.PUBLISH,
            run=recorded.RUN,
            generation=generation,
            seed=1,
            spec=spec,
            policy_uri="file:///policy",
            judge_uri="file:///judge",
            output=f"{storage.as_uri()}/{recorded.RUN}/{stage_prefix(generation, Stage.PUBLISH)}",
            outcomes=outcomes,
        )
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        return StageContext(config, open_store(spec.storage), 0, 1, work)

    return build


@pytest.fixture
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectionLog]:
    """A log of the workers' attempts to reach another machine."""
    with connection_log(tmp_path / "connections") as log:
        for name, value in log.variables.items():
            monkeypatch.setenv(name, value)
        yield log
