"""Attempts of one stage that overlap end in one manifest, whose parts are all whole.

A pod that was believed to be dead may go on: its node was cut off, or its Job was deleted by hand.
Each attempt here is a process, and writes other content than the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.s3_server import S3Server

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, ExitCode, StageConfig
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest, read_part
from selfemo_jobs.runtime.whole_parts import are_whole
from selfemo_jobs.store import join, open_store
from selfemo_jobs.store.hashing import sha256

KINDS = {"parts": Stage.SELF_PLAY, "model": Stage.TRAIN}
both_kinds = pytest.mark.parametrize("stage", KINDS.values(), ids=KINDS)


@dataclass
class Attempts:
    """The attempts of one stage."""

    config: StageConfig
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, writer: str, *, pauses: bool = False) -> None:
        """Start an attempt with a scratch folder of its own, as a pod has."""
        config = self.folder / "config.json"
        config.write_text(self.config.model_dump_json(by_alias=True))
        environment = {
            **os.environ,
            ENV_WORK: str(self.folder / f"work-{writer}"),
            ENV_TERMINATION_LOG: str(self.folder / f"{writer}.json"),
            "SMALL_WRITER": writer,
        }
        if pauses:
            environment["SMALL_PAUSE"] = str(self.folder)
        command = [sys.executable, "-m", "tests.support.small_stage", "--config", str(config)]
        self.processes[writer] = subprocess.Popen(command, env=environment)

    def wait_until_paused(self, writer: str) -> None:
        """Wait until an attempt has stopped itself."""
        deadline = time.monotonic() + 120
        while os.waitid(os.P_PID, self.processes[writer].pid, os.WSTOPPED | os.WNOHANG) is None:
            assert time.monotonic() < deadline and self.processes[writer].poll() is None
            time.sleep(0.02)

    def resume(self, writer: str) -> None:
        self.processes[writer].send_signal(signal.SIGCONT)

    def result(self, writer: str) -> StageResult:
        """Return the result of an attempt that succeeds."""
        assert self.processes[writer].wait(120) == ExitCode.OK
        message = decode_message((self.folder / f"{writer}.json").read_text())
        assert isinstance(message, StageResult)
        return message

    def check_stored_result(self) -> str:
        """Check that the manifest's parts are all whole; return the manifest's hash."""
        store = open_store(self.config.spec.storage)
        manifest, digest = read_manifest(store, join(self.config.output, MANIFEST))
        assert manifest.parts
        assert are_whole(store, self.config.output, manifest.parts, self.folder)
        return digest


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSpec:
    if request.param == "file":
        return StorageSpec(uri=f"file://{tmp_path}/store")
    server: S3Server = request.getfixturevalue("s3")
    return server.storage(sha256(str(tmp_path).encode())[:12])


@pytest.fixture
def attempts_of(
    storage: StorageSpec,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    tmp_path: Path,
) -> Iterator[Callable[[Stage], Attempts]]:
    made: list[Attempts] = []

    def make(stage: Stage) -> Attempts:
        spec = make_spec().model_copy(update={"storage": storage})
        made.append(Attempts(make_config(stage, spec=spec), tmp_path))
        return made[-1]

    yield make
    for attempts in made:
        for process in attempts.processes.values():
            process.kill()
            process.wait()


@both_kinds
def test_a_paused_attempt_changes_nothing_of_the_one_that_ended_the_stage(
    attempts_of: Callable[[Stage], Attempts], stage: Stage
) -> None:
    attempts = attempts_of(stage)
    attempts.start("early", pauses=True)
    attempts.wait_until_paused("early")
    attempts.start("late")
    late = attempts.result("late")
    ended = attempts.check_stored_result()
    attempts.resume("early")
    early = attempts.result("early")
    assert early.reused and not late.reused
    assert early.manifest_sha256 == late.manifest_sha256 == ended
    assert early.model_uri == late.model_uri
    assert attempts.check_stored_result() == ended


@both_kinds
def test_attempts_at_the_same_time_end_with_one_result(
    attempts_of: Callable[[Stage], Attempts], stage: Stage
) -> None:
    attempts = attempts_of(stage)
    writers = ("a", "b")
    for writer in writers:
        attempts.start(writer)
    hashes = {attempts.result(writer).manifest_sha256 for writer in writers}
    assert hashes == {attempts.check_stored_result()}


@both_kinds
def test_a_killed_attempt_leaves_what_the_next_one_completes(
    attempts_of: Callable[[Stage], Attempts], stage: Stage
) -> None:
    """The Job was deleted by hand: its pod is killed between two writes."""
    attempts = attempts_of(stage)
    attempts.start("killed", pauses=True)
    attempts.wait_until_paused("killed")
    attempts.processes["killed"].kill()
    attempts.start("next")
    assert attempts.result("next").manifest_sha256 == attempts.check_stored_result()
    store = open_store(attempts.config.spec.storage)
    uri = join(attempts.config.output, MANIFEST)
    if stage is Stage.SELF_PLAY:  # the finished part was used again
        first = read_part(store, uri, read_manifest(store, uri)[0].parts[0])
        assert first == b"killed 0"


def test_an_attempt_of_an_earlier_result_does_not_replace_that_of_the_new_one(
    attempts_of: Callable[[Stage], Attempts],
) -> None:
    """The stage before ran again while this attempt was paused: its result is of no use."""
    attempts = attempts_of(Stage.SELF_PLAY)
    attempts.start("parent")
    parent = attempts.result("parent").manifest
    output = join(attempts.config.output.rsplit("/", 1)[0], "score")
    attempts.config = attempts.config.model_copy(
        update={"stage": Stage.SCORE, "parents": {"selfplay": parent}, "output": output}
    )
    attempts.start("early", pauses=True)
    attempts.wait_until_paused("early")
    store = open_store(attempts.config.spec.storage)
    store.put(parent, store.get(parent).replace(b'"rows": 3', b'"rows": 4'))
    attempts.start("late")
    late = attempts.result("late")
    attempts.resume("early")
    assert attempts.processes["early"].wait(120) == ExitCode.UNAVAILABLE
    message = decode_message((attempts.folder / "early.json").read_text())
    assert isinstance(message, FailureMessage)
    assert "an earlier stage ran again while this one ran" in message.error
    assert attempts.check_stored_result() == late.manifest_sha256
