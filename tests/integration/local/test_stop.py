"""A real run that is watched, stopped from another terminal, and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.local_runs import STATE_FILE
from selfemo_operator.local.owner import read_owner
from tests.integration.local.conftest import LocalRun

PROGRAM = str(Path(sys.executable).parent / "selfemo")


def selfemo(run: LocalRun, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words, "--state", str(run.folder / "state")],
        capture_output=True,
        text=True,
        check=False,
    )


def wait_for(run: LocalRun, stage: str, runner: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not list(run.jobs.glob(f"*{stage}*/log.jsonl")):
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_run_is_stopped_and_continued(make_run: Any) -> None:
    run: LocalRun = make_run("stopped")
    runner = run.start()
    wait_for(run, "g001-selfplay", runner)
    status = json.loads(selfemo(run, "status", "tiny", "-o", "json").stdout)
    assert (status["active"], status["process"]) == (True, runner.pid)
    owner = read_owner(run.folder / "state" / "default" / "tiny")
    assert owner is not None
    assert owner.program == "selfemo run"
    stopped = selfemo(run, "stop", str(run.file))
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout == f"tiny is stopped: run `selfemo run {run.file}` to continue\n"
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 143
    error = {"error": "stopped; run the same command again to continue", "kind": "Terminated"}
    assert json.loads(out) == {**error, "exitCode": 143}
    assert selfemo(run, "list").stdout.splitlines()[1].endswith("none: stopped")

    runner = run.start()  # and now Ctrl-C
    wait_for(run, "g001-score", runner)
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert json.loads(out)["kind"] == "Interrupted"

    code, result, err = run.finish()
    assert code == 0, err[-3000:]
    assert result["phase"] == "Succeeded"
    state = run.folder / "state" / "default" / "tiny" / STATE_FILE
    stages = json.loads(state.read_text())["status"]["stages"]
    assert [totals for totals in stages if totals["failures"]] == [], "a stop does not count"
    assert selfemo(run, "list").stdout.splitlines()[1].split()[2] == "Succeeded"
    logs = selfemo(run, "logs", "tiny", "--stage", "SelfPlay")
    assert logs.returncode == 0
    assert "  1 SelfPlay" in logs.stdout
    assert "Traceback" not in logs.stdout
