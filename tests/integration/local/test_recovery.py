"""A result that is damaged between two attempts is made again, and the run ends as without that."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest

from tests.integration.local.conftest import LocalRun


def kill_when_stage_starts(run: LocalRun, job: str) -> None:
    """Start a run, and kill it once the Job of a stage exists. Its processes end with it."""
    process = run.start()
    deadline = time.monotonic() + 400
    while not (run.jobs / job / "job.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{job} was never started"
        time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_folder_that_was_deleted_is_made_again_in_the_same_generation(make_run: Any) -> None:
    run = make_run("damaged")
    kill_when_stage_starts(run, "tiny-g001-train-1")
    store = run.folder / "store"
    (flywheel,) = store.rglob("generations/001/flywheel")
    (score,) = store.rglob("generations/001/score")
    before = {path: (path / "manifest.json").read_text() for path in (flywheel, score)}
    shutil.rmtree(flywheel)
    for part in score.rglob("*.parquet"):
        part.write_bytes(b"damaged")
    code, result, errors = run.finish()
    assert code == 0, errors
    first, last = (record["expression"] for record in result["generations"])
    change = last["overBaseline"]
    assert change["generation"] == 0
    assert change["change"] == pytest.approx(last["asIntended"] - first["asIntended"], abs=2e-6)
    assert last["human"] == first["human"], "the baseline is the judge of every generation"
    assert "Traceback" not in errors
    names = sorted(path.name for path in run.jobs.iterdir() if "-g001-" in path.name)
    attempts = {stage: [n for n in names if f"-{stage}-" in n] for stage in ("score", "flywheel")}
    assert len(attempts["score"]) == 2, "the score is made again"
    assert len(attempts["flywheel"]) > 1
    assert [n for n in names if "-selfplay-" in n] == ["tiny-g001-selfplay-1"], "it was whole"
    config = json.loads((run.jobs / attempts["score"][-1] / "config.json").read_text())
    assert config["repair"] is True
    for path, text in before.items():
        assert (path / "manifest.json").read_text() == text, "what is made again is equal"
