"""SIGKILL in each stage, of the stage or of the runner, does not change the result of a run."""

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
    """Return the Job name and the process id of the running stage; None if no stage runs."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == runner and "--config" in command:
            return Path(command[command.index("--config") + 1]).parent.name, int(entry.name)
    return None


def _kill_in_each_stage(run: LocalRun, victim: str, moment: str) -> list[str]:
    """Kill once in each stage, and return the names of the killed Jobs.

    The moments do not depend on the load of the machine. `early` is while the stage loads its
    libraries or has just started. `late` is as soon as it has written a file, before its manifest
    is there. A Job that ends before its moment does not count as killed.
    """
    random_delay = random.Random(5)
    killed: list[str] = []
    runner = run.start()
    deadline = time.monotonic() + 500
    while runner.poll() is None and time.monotonic() < deadline:
        stage = _stage_process(run, runner.pid)
        key = stage[0].rsplit("-", 1)[0] if stage else ""
        if stage is None or any(name.startswith(key + "-") for name in killed):
            time.sleep(0.02)
            continue
        if moment == "early":
            time.sleep(random_delay.uniform(0.0, 0.4))  # the fastest stage takes a second
        elif not _wait_for_output(run, runner.pid, stage):
            continue
        if _stage_process(run, runner.pid) != stage:
            continue
        killed.append(stage[0])
        os.kill(stage[1] if victim == "stage" else runner.pid, signal.SIGKILL)
        if victim == "runner":
            runner.communicate()
            runner = run.start()
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 0, err[-3000:]
    assert json.loads(out)["phase"] == "Succeeded"
    return killed


def _wait_for_output(run: LocalRun, runner: int, stage: tuple[str, int]) -> bool:
    """Wait until a stage has written a file; False if it ends or writes its manifest before."""
    _, generation, name, _ = stage[0].rsplit("-", 3)
    pattern = f"store/default/tiny-*/generations/{generation[1:]}/{name}"
    while Path(f"/proc/{stage[1]}").exists() and _stage_process(run, runner) == stage:
        for folder in run.folder.glob(pattern):
            if (folder / "manifest.json").exists():
                return False
            if any(path.is_file() for path in folder.rglob("*")):
                return True
        time.sleep(0.002)
    return False


@pytest.mark.slow
def test_killed_runs_have_the_result_of_an_undisturbed_run(make_run: Any) -> None:
    undisturbed = make_run("undisturbed")
    code, result, err = undisturbed.finish()
    assert code == 0, err[-3000:]
    assert [g["generation"] for g in result["generations"]] == [0, 1]
    assert result["generations"][1]["kept"] > 0, "the flywheel kept nothing: the test proves little"
    expected = undisturbed.manifests()
    assert len(expected) == 10
    # Three stages of generation 0, six stages of generation 1, and the manifest of the best model.
    # A stage may be too fast for the late moment.
    for victim, moment, least in (("stage", "early", 9), ("runner", "late", 4)):
        run = make_run(victim)
        killed = _kill_in_each_stage(run, victim, moment)
        assert len(killed) >= least, f"only {killed} were killed"
        assert run.manifests() == expected, f"killing the {victim} changed the result"
        _assert_no_stage_repeated(run)


def _assert_no_stage_repeated(run: LocalRun) -> None:
    """Check that no stage repeated its work although its manifest was there.

    Check and Publish always run.
    """
    for folder in sorted(run.jobs.iterdir()):
        if folder.name.split("-")[2] in ("check", "publish"):
            continue
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
