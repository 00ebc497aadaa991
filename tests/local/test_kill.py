"""SIGKILL at every stage, of the stage or of the runner: the same command ends the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import LocalRun


def _stage_process(run: LocalRun, runner: int) -> tuple[str, int] | None:
    """Return the running stage's Job name and process id."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == runner and "--config" in words:
            return Path(words[words.index("--config") + 1]).parent.name, int(entry.name)
    return None


def _kill_in_each_stage(run: LocalRun, victim: str, seconds: dict[str, float]) -> list[str]:
    """Kill once in each stage, at a random moment of its `seconds`; return the Jobs that were hit.

    A Job that ends before its moment is not counted as hit.
    """
    chance = random.Random(5 if victim == "stage" else 6)
    hit: list[str] = []
    runner = run.start()
    deadline = time.monotonic() + 500
    while runner.poll() is None and time.monotonic() < deadline:
        found = _stage_process(run, runner.pid)
        key = found[0].rsplit("-", 1)[0] if found else ""
        if found is None or any(name.startswith(key + "-") for name in hit):
            time.sleep(0.05)
            continue
        time.sleep(chance.uniform(0.1, 0.8) * seconds[key])
        if _stage_process(run, runner.pid) != found:
            continue  # it ended first: try again in its next attempt, or in the next stage
        hit.append(found[0])
        os.kill(found[1] if victim == "stage" else runner.pid, signal.SIGKILL)
        if victim == "runner":
            runner.communicate()
            runner = run.start()
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 0, err[-3000:]
    assert json.loads(out)["phase"] == "Succeeded"
    return hit


@pytest.mark.slow
def test_killed_runs_end_as_an_undisturbed_one(make_run: Any) -> None:
    calm = make_run("calm")
    code, result, err = calm.finish()
    assert code == 0, err[-3000:]
    assert [g["generation"] for g in result["generations"]] == [0, 1]
    assert result["generations"][1]["kept"] > 0, "the flywheel kept nothing: the test shows little"
    expected = calm.manifests()
    assert len(expected) == 6
    for victim in ("stage", "runner"):
        run = make_run(victim)
        hit = _kill_in_each_stage(run, victim, _seconds(calm))
        # generation 0's evaluation and the five stages of generation 1
        assert len(hit) == 6, f"only {hit} were hit"
        assert run.manifests() == expected, f"killing the {victim} changed the result"
        _no_finished_stage_again(run)


def _seconds(run: LocalRun) -> dict[str, float]:
    """Return how long each Job's process lived, without its attempt in the name."""
    found = {}
    for folder in run.jobs.iterdir():
        times = [path.stat().st_mtime for path in folder.iterdir()]
        found[folder.name.rsplit("-", 1)[0]] = max(times) - min(times)
    return found


def _no_finished_stage_again(run: LocalRun) -> None:
    """No stage whose manifest was there did its work a second time."""
    for folder in sorted(run.jobs.iterdir()):
        record = json.loads((folder / "job.json").read_text())
        if record.get("exitCode") == 0:
            later = [
                other
                for other in run.jobs.iterdir()
                if other.name.rsplit("-", 1)[0] == folder.name.rsplit("-", 1)[0]
                and int(other.name.rsplit("-", 1)[1]) > int(folder.name.rsplit("-", 1)[1])
            ]
            for other in later:
                assert json.loads((other / "termination.json").read_text())["reused"]
