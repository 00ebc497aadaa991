"""`selfemo stop`: which process it ends, and which it never ends."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.selfemo_commands import Outcome, invoke
from tests.unit.operator.cli.runs.test_run_list import named

from selfemo_operator.local.owner import Owner, read_owner, this_process, write_owner
from selfemo_operator.local.state import LocalState, is_active

#: Holds a state folder as `selfemo run` does, until SIGTERM; then for some seconds more.
RUNNER = """
import signal, sys, time
from pathlib import Path
from selfemo_operator.local.state import LocalState
state = LocalState(Path(sys.argv[1]), sys.argv[2])
def stop(*_):
    time.sleep(float(sys.argv[3]))
    state.close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


class Run:
    """The state folder of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "default" / "demo"
        state = LocalState(self.folder)
        state.save(named("demo"))
        state.close()
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, program: str = "selfemo run", seconds: float = 0.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUNNER, str(self.folder), program, str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def stop(self, *options: str) -> Outcome:
        return invoke("selfemo", "stop", "demo", "--state", str(self.root), *options)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "state")
    yield run
    for process in run.processes:
        process.kill()
        process.wait()


def test_a_run_is_stopped(run: Run) -> None:
    process = run.start(seconds=0.5)
    assert read_owner(run.folder).pid == process.pid  # type: ignore[union-attr]
    outcome = run.stop()
    assert outcome.code == 0
    assert outcome.out == "demo is stopped: run the same `selfemo run` command to continue\n"
    assert not is_active(run.folder)
    assert process.wait(10) == 143


def test_a_run_that_does_not_run(run: Run) -> None:
    assert run.stop().out == "demo is not running: there is nothing to stop\n"
    content = json.loads(run.stop("-o", "json").out)
    assert content == {"name": "demo", "stopped": False, "state": str(run.folder)}


def test_no_such_run(run: Run) -> None:
    outcome = invoke("selfemo", "stop", "dem", "--state", str(run.root))
    assert (outcome.code, "did you mean `demo`?" in outcome.err) == (2, True)


def test_a_run_that_takes_too_long(run: Run) -> None:
    process = run.start(seconds=30)
    outcome = run.stop("--timeout", "0.3")
    assert outcome.code == 75
    assert outcome.err.startswith(
        f"selfemo stop: process {process.pid} has not ended after 0.3 s: its stage may still be"
    )
    assert process.poll() is None


def test_a_program_of_the_user_is_not_ended(run: Run) -> None:
    process = run.start(program="python")
    outcome = run.stop()
    assert outcome.code == 2
    assert f"is run by another program (python, process {process.pid})" in outcome.err
    assert process.poll() is None


def replace_owner(run: Run, **changes: object) -> Owner:
    """Let the lock file of an active run name another process."""
    owner = read_owner(run.folder)
    assert owner is not None
    other = dataclasses.replace(owner, **changes)  # type: ignore[arg-type]
    file = os.open(run.folder / "lock", os.O_RDWR)
    write_owner(file, other)
    os.close(file)
    return other


def test_another_process_with_the_same_id_is_not_ended(run: Run) -> None:
    """The runner was killed, its stage still holds the lock, and its id is used again."""
    process = run.start()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run.processes.append(bystander)  # type: ignore[arg-type]
    replace_owner(run, pid=bystander.pid)
    outcome = run.stop()
    assert outcome.code == 75
    assert f"process {bystander.pid}, which ran demo, has ended" in outcome.err
    time.sleep(0.2)
    assert bystander.poll() is None
    assert process.poll() is None


def test_a_process_that_has_ended(run: Run) -> None:
    run.start()
    ended = subprocess.Popen(["true"])
    ended.wait()
    replace_owner(run, pid=ended.pid)
    assert run.stop().code == 75


def test_a_run_on_another_machine_is_not_ended(run: Run) -> None:
    process = run.start()
    replace_owner(run, boot="another", host="gpu-7")
    outcome = run.stop()
    assert outcome.code == 2
    assert f"runs on another machine (gpu-7, process {process.pid}): stop it there" in outcome.err
    assert process.poll() is None


@pytest.mark.parametrize("content", ["", "4711", "{", '{"pid": 1}', "[1]"])
def test_a_lock_of_an_earlier_version(run: Run, content: str) -> None:
    process = run.start()
    (run.folder / "lock").write_text(content)
    outcome = run.stop()
    assert outcome.code == 2
    assert "does not name the process" in outcome.err
    assert process.poll() is None


def test_this_process() -> None:
    owner = this_process("selfemo run")
    assert (owner.pid, owner.is_here, owner.program) == (os.getpid(), True, "selfemo run")
    assert owner.start > 0
    assert owner == this_process("selfemo run")


def test_a_shorter_record_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("x" * 1000)
    LocalState(tmp_path, "selfemo run").close()
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.pid == os.getpid()
