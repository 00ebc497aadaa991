"""``python -m tests.campaign.storage_suite``: stages against a storage that fails, lies and slows.

A scenario is one generation of small stages over a real S3 server, through a proxy whose faults
follow from the seed. Between stages, stored objects are removed, cut or changed. Attempts are
repeated as the planner repeats them. At the end there is one manifest for each stage, all of its
parts are whole, and all of it is equal to a generation without faults.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import unquote

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store
from tests.campaign.storage_proxy import KINDS, Plan, StorageProxy
from tests.campaign.storage_stages import CHAIN, RUN, Launcher, config_of
from tests.support.s3_server import S3Server

#: Attempts of all stages after which a scenario counts as one that does not end.
_MOST_ATTEMPTS = 80
_ATTEMPT_SECONDS = 120.0
#: Requests of a generation without faults, about.
_REQUESTS = 90
#: Damage between two stages.
DAMAGE = ("object-removed", "object-cut", "object-changed", "folder-removed")
#: The exit codes after which the planner tries again.
_AGAIN = {ExitCode.UNAVAILABLE, ExitCode.TERMINATED, -9}


@dataclass
class Verdict:
    """What a scenario did and found."""

    applied: list[str] = field(default_factory=list)
    checks: int = 0
    violations: list[str] = field(default_factory=list)
    attempts: int = 0

    def check(self, holds: bool, violation: str) -> None:
        """Count a check, and its violation if it does not hold."""
        self.checks += 1
        if not holds:
            self.violations.append(violation)


class Scenario:
    """One generation with faults.

    Parameters
    ----------
    suite
        The server, the proxy and the launcher.
    number, seed
        The faults follow from them. None: there are no faults.
    """

    def __init__(self, suite: Suite, number: int, seed: int | None) -> None:
        self._suite = suite
        self._random = random.Random(f"{seed}-{number}")
        self._faulty = seed is not None
        self._folder = Path(tempfile.mkdtemp(prefix="storage-suite-"))
        self._policy = "file:///nowhere/model"
        self._others: list[BaseProcess] = []
        self._running: list[BaseProcess] = []
        self._repairs: set[Stage] = set()
        self.verdict = Verdict()
        prefix = f"suite/{seed}-{number}-{random.randrange(1 << 40):x}"
        self.storage = suite.server.storage(prefix, endpoint=suite.proxy.endpoint, maxAttempts=2)
        self.direct = open_store(suite.server.storage(prefix))

    def run(self) -> Verdict:
        """Run the stages to their end, and check what is stored."""
        plan = self._plan()
        self._suite.proxy.plan = plan
        index = 0
        while index < len(CHAIN) and self.verdict.attempts < _MOST_ATTEMPTS:
            stage = CHAIN[index]
            index = self._after(stage, self._attempt(stage))
            if self._faulty and index < len(CHAIN) and self._random.random() < 0.2:
                self._damage()
        self.verdict.check(index == len(CHAIN), "the generation does not end")
        for process in self._others:
            process.join(_ATTEMPT_SECONDS)
            process.kill()
        self.verdict.applied += plan.applied
        if not self.verdict.violations:
            self._check_stored()
        if not self.verdict.violations:
            shutil.rmtree(self._folder)
        return self.verdict

    def _plan(self) -> Plan:
        kinds = list(KINDS)
        count = self._random.randrange(4, 12) if self._faulty else 0
        places = sorted(self._random.randrange(_REQUESTS) for _ in range(count))
        faults = [(place, self._random.choice(kinds)) for place in places]
        return Plan(faults, kill=self._kill, put=self._put, overlap=self._overlap)

    def _kill(self) -> None:
        for process in self._running:
            process.kill()

    def _put(self, path: str, data: bytes) -> None:
        self.direct.put("s3:/" + unquote(path), data)

    def _overlap(self) -> None:
        """Start another attempt of the stage that runs."""
        self._others.append(self._start(self._stage, f"other-{len(self._others)}"))

    def _start(self, stage: Stage, name: str) -> BaseProcess:
        repair = stage in self._repairs
        config = config_of(stage, self.storage, self._policy, repair=repair)
        return self._suite.launcher.start(config, self._folder / name)

    def _attempt(self, stage: Stage) -> tuple[int, StageResult | FailureMessage | None]:
        """Run an attempt; return its exit code and its message."""
        self._stage = stage
        self.verdict.attempts += 1
        folder = self._folder / "main"
        (folder / "termination").unlink(missing_ok=True)
        process = self._start(stage, "main")
        self._running = [process]
        process.join(_ATTEMPT_SECONDS)
        hung = process.is_alive()
        process.kill()
        process.join()
        self._running = []
        self.verdict.check(not hung, f"{stage.value} hangs")
        message = None
        if (folder / "termination").is_file():
            message = decode_message((folder / "termination").read_text())
        log = (folder / "log").read_text() if (folder / "log").is_file() else ""
        self.verdict.check("Traceback" not in log, f"a traceback in {folder / 'log'}")
        assert not isinstance(message, str)
        code = process.exitcode if process.exitcode is not None else -1
        return code, message  # type: ignore[return-value]

    def _after(self, stage: Stage, end: tuple[int, StageResult | FailureMessage | None]) -> int:
        """Return the index of the stage that runs next, as the planner decides it."""
        code, message = end
        index = CHAIN.index(stage)
        if code == ExitCode.OK and isinstance(message, StageResult):
            if stage is Stage.TRAIN and message.model_uri:
                self._policy = message.model_uri
            self._repairs.discard(stage)
            return index + 1
        if code == ExitCode.DAMAGED_RESULT and isinstance(message, FailureMessage):
            damaged = message.damaged
            self.verdict.check(damaged in CHAIN[:index], f"{stage.value} names {damaged}")
            if damaged in CHAIN[:index]:
                self._repairs |= set(CHAIN[CHAIN.index(damaged) : index + 1])
                return CHAIN.index(damaged)
        text = message.error if isinstance(message, FailureMessage) else ""
        self.verdict.check(code in _AGAIN, f"{stage.value} ends with {code}: {text}")
        return index if code in _AGAIN else len(CHAIN) + 1

    def _damage(self) -> None:
        """Damage a stored object of the generation."""
        objects = self.direct.list(join(self.storage.uri, RUN, "generations"))
        if not objects:
            return
        uri = self._random.choice(objects).uri
        kind = self._random.choice(DAMAGE)
        self.verdict.applied.append(kind)
        if kind == "object-removed":
            self.direct.delete(uri)
        elif kind == "folder-removed":
            self.direct.remove(uri.rsplit("/", 1)[0])
        else:
            data = self.direct.get(uri)
            self.direct.put(uri, data[: len(data) // 2] if kind == "object-cut" else data + b"x")

    def _check_stored(self) -> None:
        """Check that all manifests are those of the reference, and that the last one's are whole.

        Damage that came after the last reader of an object is not found by a stage: nothing of the
        generation reads that object any more. So all stages verify their results once more.
        """
        self._suite.proxy.plan = Plan()
        self._repairs = set(CHAIN)
        for stage in CHAIN:
            code, _ = self._attempt(stage)
            self.verdict.check(code == ExitCode.OK, f"{stage.value} does not repair its result")
        manifests = manifests_of(self.direct, self.storage)
        reference = self._suite.reference or manifests
        for slug, data in reference.items():
            self.verdict.check(manifests.get(slug) == data, f"{slug} differs from the reference")
        for slug, data in manifests.items():
            folder = join(self.storage.uri, RUN, "generations/001", slug)
            for part in Manifest.model_validate_json(data).parts:
                whole = _hash(self.direct, join(folder, part.path)) == part.sha256
                self.verdict.check(whole, f"{slug}/{part.path} is not whole")


def manifests_of(store: Store, storage: StorageSpec) -> dict[str, bytes]:
    """Return the manifest of each stage."""
    root = join(storage.uri, RUN)
    found = {}
    for stage in CHAIN:
        try:
            found[stage.slug] = store.get(join(root, stage_prefix(1, stage), MANIFEST))
        except ObjectNotFound:
            continue
    return found


def _hash(store: Store, uri: str) -> str | None:
    try:
        return hashlib.sha256(store.get(uri)).hexdigest()
    except ObjectNotFound:
        return None


class Suite:
    """A server, a proxy in front of it, and a launcher of attempts.

    Parameters
    ----------
    server
        The server, which runs.
    """

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.proxy = StorageProxy(server.port)
        self.launcher = Launcher({**server.environment, "AWS_MAX_ATTEMPTS": "3"})
        self.reference: dict[str, bytes] = {}
        scenario = Scenario(self, 0, None)
        verdict = scenario.run()
        if verdict.violations:
            raise RuntimeError(f"the reference violates checks: {verdict.violations}")
        self.reference = manifests_of(scenario.direct, scenario.storage)

    def run(self, number: int, seed: int) -> Verdict:
        """Run a scenario."""
        return Scenario(self, number, seed).run()


def main() -> int:
    """Run scenarios for some time; return 1 if a check did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.storage_suite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first scenario")
    parser.add_argument("--journal", type=Path, help="a file of JSON lines to append to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        server.start()
        suite = Suite(server)
        kinds: Counter[str] = Counter()
        checks, violated = 0, []
        until = time.monotonic() + 60 * arguments.minutes
        number = arguments.first
        while time.monotonic() < until:
            verdict = suite.run(number, arguments.seed)
            kinds.update(verdict.applied)
            checks += verdict.checks
            for violation in verdict.violations:
                print(f"{number}: {violation}", flush=True)
            if verdict.violations:
                violated.append(number)
            if arguments.journal:
                with arguments.journal.open("a") as file:
                    line = {"number": number, "seed": arguments.seed, **vars(verdict)}
                    file.write(json.dumps(line) + "\n")
            number += 1
        print(
            f"{number - arguments.first} scenarios, {kinds.total()} perturbations of {len(kinds)} "
            f"kinds, {checks} checks; violated: {violated}"
        )
        for kind, count in sorted(kinds.items()):
            print(f"   {count:6} {kind}")
        suite.proxy.close()
        server.stop()
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
