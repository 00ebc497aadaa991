"""The checks that need the API server or the operator at the end of a scenario."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from tests.campaign.model import Violation
from tests.campaign.oracles import Checked
from tests.campaign.world import RESYNC_SECONDS, World

Json = dict[str, Any]
#: Seconds without a write after everything has ended: three resyncs.
QUIET_SECONDS = 3 * RESYNC_SECONDS
MAX_KIB = 400 * 1024
#: The largest number of requests of one path within a second. A loop without backoff makes
#: hundreds.
MAX_REQUESTS = 60


def quiet(world: World, seen: Checked) -> Iterator[Violation]:
    """O5: once all has ended, the operator writes nothing more."""
    oracle = seen("O5 quiescence")
    deadline = time.monotonic() + 15.0
    before = -1
    while time.monotonic() < deadline and before != len(world.faults.writes):
        before = len(world.faults.writes)
        time.sleep(1.5)
    count = len(world.faults.writes)
    time.sleep(QUIET_SECONDS)
    late = world.faults.writes[count:]
    if late:
        text = f"{len(late)} writes in {QUIET_SECONDS:g} s, such as {late[0][1]} {late[0][2]}"
        yield Violation(oracle, text)


def request_rate(world: World, seen: Checked) -> Iterator[Violation]:
    """O7: the operator never asks in a loop without backoff."""
    oracle = seen("O7 requests")
    counts = Counter((int(at), path) for at, path in list(world.faults.requests))
    for (_, path), number in counts.most_common(1):
        if number > MAX_REQUESTS:
            yield Violation(oracle, f"{number} requests of {path} within a second")


def series_are_live(world: World, seen: Checked) -> Iterator[Violation]:
    """O8: the operator has metric series of the evolutions that live, and of no others."""
    oracle = seen("O8 metric series")
    deadline = time.monotonic() + 10.0
    series: set[tuple[str, str]] = set()
    live: set[tuple[str, str]] = set()
    while time.monotonic() < deadline:
        with world.recorder.lock:
            # one whose spec cannot be read has none
            records = [r for r in world.recording.live() if not r.name.startswith("unknown-")]
            live = {(r.namespace, r.name) for r in records}
        try:
            series = world.leader().series()
        except OSError:
            series = set()
        if series == live:
            return
        time.sleep(0.3)
    yield Violation(oracle, f"too many: {series - live}; missing: {live - series}")


def no_traceback(world: World, seen: Checked) -> Iterator[Violation]:
    """O9: no traceback in a log, no end that was not asked for, and a good end after SIGTERM."""
    for operator in world.operators:
        oracle = seen("O9 traceback")
        text = operator.text()
        if "Traceback" in text:
            place = text.index("Traceback")
            yield Violation(oracle, text[max(0, place - 300) : place + 1500])
        oracle = seen("O9 exits")
        for code, tail in operator.ends[:2]:
            if world.scenario.form == "lease" and code == 75:
                continue  # it lost the Lease
            yield Violation(oracle, f"the operator ended by itself with {code}: {tail[-700:]}")
    oracle = seen("O9 SIGTERM")
    # before it has set its handler, the signal ends it; 75: it had just lost the Lease
    expected = (0, -15, 75) if world.scenario.form == "lease" else (0, -15)
    for exit_code in world.recording.stops:
        if exit_code not in expected:
            yield Violation(oracle, f"after SIGTERM, the operator ended with {exit_code}")


def memory(world: World, seen: Checked) -> Iterator[Violation]:
    """O7: the operator's memory is bounded."""
    oracle = seen("O7 memory")
    size = world.leader().memory()
    if size > MAX_KIB:
        yield Violation(oracle, f"{size} KiB")


def alive(world: World, seen: Checked) -> Iterator[Violation]:
    """O9: the probes of the operator are well once the API server is."""
    oracle = seen("O9 probes")
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        codes = [world.operator.probe(name) for name in ("livez", "readyz")]
        if codes == [200, 200]:
            return
        time.sleep(0.3)
    yield Violation(oracle, f"/livez and /readyz return {codes}")


def no_orphans(world: World, seen: Checked, seconds: float = 40.0) -> Iterator[Violation]:
    """O4: after the deletion of all evolutions, no object of theirs is left."""
    oracle = seen("O4 orphans")
    deadline = time.monotonic() + seconds
    left: list[str] = []
    while time.monotonic() < deadline:
        left = _left(world)
        if not left:
            return
        time.sleep(0.5)
    yield Violation(oracle, f"{len(left)} objects are left: {left[:8]}")


def _left(world: World) -> list[str]:
    left = []
    query = {"labelSelector": f"{names.LABEL_NAME}=selfemo"}
    for namespace in world.namespaces:
        for path in (
            names.evolutions_path(namespace),
            names.jobs_path(namespace),
            names.core_path(namespace, "pods"),
            names.core_path(namespace, "services"),
        ):
            try:
                items = world.kube.get(path, None if names.PLURAL in path else query)["items"]
            except ApiError as error:
                items = [{"metadata": {"name": f"{path}: {error}"}}]
            for item in items:
                job = item["metadata"].get("labels", {}).get(names.LABEL_JOB_UID)
                if job not in world.recording.orphaned:
                    left.append(f"{path.rpartition('/')[2]}/{item['metadata']['name']}")
    return left
