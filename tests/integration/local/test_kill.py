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

from tests.integration.local.conftest import LocalRun


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


def _kill_in_each_stage(run: LocalRun, victim: str, moment: str) -> list[str]:
    """Kill once in each stage; return the Jobs that were hit.

    Moments do not depend on how busy the machine is: `early` is while the stage still loads its
    libraries or has just begun, `late` is as soon as it has written something and before its
    manifest is there. A Job that ends before its moment is not counted as hit.
    """
    chance = random.Random(5)
    hit: list[str] = []
    runner = run.start()
    deadline = time.monotonic() + 500
    while runner.poll() is None and time.monotonic() < deadline:
        found = _stage_process(run, runner.pid)
        key = found[0].rsplit("-", 1)[0] if found else ""
        if found is None or any(name.startswith(key + "-") for name in hit):
            time.sleep(0.02)
            continue
        if moment == "early":
            time.sleep(chance.uniform(0.0, 0.4))  # the quickest stage lives for a second
        elif not _wait_for_output(run, runner.pid, found):
            continue
        if _stage_process(run, runner.pid) != found:
            continue
        hit.append(found[0])
        os.kill(found[1] if victim == "stage" else runner.pid, signal.SIGKILL)
        if victim == "runner":
            runner.communicate()
            runner = run.start()
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 0, err[-3000:]
    assert json.loads(out)["phase"] == "Succeeded"
    return hit


def _wait_for_output(run: LocalRun, runner: int, stage: tuple[str, int]) -> bool:
    """Wait until a stage has written a file; False where it ended, or published, before."""
    _, generation, name, _ = stage[0].rsplit("-", 3)
    where = f"store/default/tiny-*/generations/{generation[1:]}/{name}"
    while Path(f"/proc/{stage[1]}").exists() and _stage_process(run, runner) == stage:
        for folder in run.folder.glob(where):
            if (folder / "manifest.json").exists():
                return False
            if any(path.is_file() for path in folder.rglob("*")):
                return True
        time.sleep(0.002)
    return False


@pytest.mark.slow
def test_killed_runs_end_as_an_undisturbed_one(make_run: Any) -> None:
    calm = make_run("calm")
    code, result, err = calm.finish()
    assert code == 0, err[-3000:]
    assert [g["generation"] for g in result["generations"]] == [0, 1]
    assert result["generations"][1]["kept"] > 0, "the flywheel kept nothing: the test shows little"
    expected = calm.manifests()
    assert len(expected) == 6
    # generation 0's evaluation and the five stages of generation 1. Late, a stage may be too quick.
    for victim, moment, least in (("stage", "early", 6), ("runner", "late", 4)):
        run = make_run(victim)
        hit = _kill_in_each_stage(run, victim, moment)
        assert len(hit) >= least, f"only {hit} were hit"
        assert run.manifests() == expected, f"killing the {victim} changed the result"
        _no_finished_stage_again(run)


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
