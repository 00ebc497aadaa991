"""Removal of a run's data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfemo_api.contract import ExitCode
from selfemo_jobs.stages.purge import main


def _config(tmp_path: Path, run: str) -> list[str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"run": run, "storage": {"uri": f"file://{tmp_path}/runs"}}))
    return ["--config", str(path)]


def test_the_run_goes_and_others_stay(tmp_path: Path) -> None:
    for run in ("team/demo-0123abcd", "team/demo-4567abcd"):
        (tmp_path / "runs" / run / "generations").mkdir(parents=True)
        (tmp_path / "runs" / run / "generations" / "manifest.json").write_text("{}")
    assert main(_config(tmp_path, "team/demo-0123abcd")) == ExitCode.OK
    assert main(_config(tmp_path, "team/demo-0123abcd")) == ExitCode.OK
    assert [p.name for p in (tmp_path / "runs" / "team").iterdir()] == ["demo-4567abcd"]


@pytest.mark.parametrize("run", ["", "team", "team/demo", "../x-0123abcd", "a/b/c-0123abcd", "./."])
def test_only_a_runs_folder_can_be_named(tmp_path: Path, run: str) -> None:
    (tmp_path / "runs").mkdir()
    assert main(_config(tmp_path, run)) == ExitCode.BAD_INPUT
    assert (tmp_path / "runs").is_dir()
