"""Times the operator against a bare client that chains the same Jobs, on a real API server.

The fake nodes of kwok end pods at once, so only orchestration is measured. The API server, the Job
controller and the garbage collector work for all sides. The bare client creates a Job, waits for
it, and creates the next: the least that any orchestrator must do. With `--statuses` it also runs as
one that writes the same statuses as the operator: the least that any controller with a status must
do. Each comparison runs before and after the operator, because the speed of a machine changes
within minutes. On a machine with other work, wall times say little; the processor time of all
components does not depend on it. Prints one JSON line for each figure.

`--baseline` measures the operator of another checkout in between. `--peer-controller` measures a
binary of Argo Workflows' controller with chains of as many steps: the event is the end of a stage
as a watch reports it (a complete Job, or a pod that has succeeded), and the wait ends when the
watch reports the object of the next stage.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bare_client import (
    CLIENT_THREADS,
    LONGEST,
    USER_THREADS,
    StatusRecorder,
    capture_jobs,
    run_bare_client,
)
from benchmarks.control_plane import (
    AuditLog,
    by_kind,
    control_plane_seconds,
    kubeconfig_of_measured,
    mebibytes,
    process_seconds,
    writes_by_generation,
)
from benchmarks.job_chains import (
    GENERATIONS,
    STAGES,
    JobTimes,
    Load,
    evolution,
    latencies,
    percentiles,
)
from benchmarks.peer_controller import run_peer
from tests.integration.operator.api import create_namespace, delete_namespace, namespaces, serve_crd
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster, borrowed

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names

P99_GOAL, WRITES_GOAL, MEMORY_GOAL, WALL_GOAL = 1.0, 12.0, 200.0, 1.2
#: The goal beside a client that writes the same statuses, for wall time and p99.
STATUS_GOAL = 1.1
#: Prefixes of the namespaces that this benchmark creates.
NAMESPACE_PREFIXES = ("bench-", "bare-")
STAGES_FILE = Path(__file__).resolve().parent / "kwok-stages.yaml"
Json = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where the loads run."""

    cluster: Cluster
    kube: KubeClient
    scratch: Path

    def operator(self, namespace: str, checkout: Path | None) -> OperatorProcess:
        """Return the operator of this checkout, or of another one."""
        kubeconfig = kubeconfig_of_measured(self.cluster, self.scratch)
        log = self.scratch / "operator.log"
        operator = OperatorProcess(kubeconfig, log, ("--namespace", namespace))
        if checkout is not None:
            folders = [str(checkout / name) for name in ("crds", "operator", "jobs")]
            operator.environment = {"PYTHONPATH": os.pathsep.join(folders)}
        return operator

    def delete_namespaces(self) -> None:
        """Delete the namespaces of earlier loads and wait: thousands of Jobs slow the next one."""
        for name in self._own_namespaces():
            delete_namespace(self.kube, name)
        while self._own_namespaces():
            time.sleep(2)

    def _own_namespaces(self) -> list[str]:
        return [name for name in namespaces(self.kube) if name.startswith(NAMESPACE_PREFIXES)]


def run_operator(
    bench: Bench,
    load: Load,
    checkout: Path | None = None,
    record: Callable[[KubeClient, str, threading.Event], None] | None = None,
) -> Json:
    """Run evolutions under the operator and return its figures.

    Parameters
    ----------
    bench
        Where the load runs.
    load
        The evolutions.
    checkout
        The checkout whose operator runs. None: this one.
    record
        A function that observes the namespace in a thread of its own.
    """
    kube, count = bench.kube, load.count
    namespace = create_namespace(kube, f"bench-{count}-{int(time.time())}")
    operator = bench.operator(namespace, checkout)
    operator.start()
    operator.wait_ready()
    assert operator.process is not None
    pid = operator.process.pid
    times, stop = JobTimes(), threading.Event()
    for watch in filter(None, (times.watch, record)):
        threading.Thread(target=watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(2)
    audit, cpu_before = AuditLog(bench.cluster), process_seconds(pid)
    begin_times: dict[str, float] = {}
    start = time.monotonic()

    def create(name: str) -> None:
        begin_times[name] = time.monotonic()
        kube.create(names.evolutions_path(namespace), evolution(name))

    with ThreadPoolExecutor(USER_THREADS) as pool:
        load.begin(create, pool)
    created_in = time.monotonic() - start
    times.wait(count * STAGES, LONGEST)
    wait_until_ended(kube, namespace, count)
    wall = time.monotonic() - start
    memory, cpu = mebibytes(pid), process_seconds(pid) - cpu_before
    time.sleep(3)  # for the last lines of the audit log
    requests = audit.requests()
    passes = sum(operator.metrics()["selfemo_operator_reconciles_total"].values())
    operator.stop()
    stop.set()
    return {
        "namespace": namespace,
        "wall": wall,
        "created_in": created_in,
        **percentiles(latencies(times, begin_times)),
        "writes": writes_by_generation(requests),
        "requests": {k: n / count for k, n in sorted(by_kind(requests).items())},
        "passes": passes / count / GENERATIONS,
        "memory": memory,
        "cpu": cpu,
    }


def wait_until_ended(kube: KubeClient, namespace: str, count: int) -> None:
    for _ in range(600):
        items: list[Json] = []
        list_objects(items.append, kube, names.evolutions_path(namespace), {})
        if sum(bool(i.get("status", {}).get("completionTime")) for i in items) == count:
            return
        time.sleep(0.5)
    raise TimeoutError("not all evolutions have ended")


def figure(name: str, value: float, unit: str, goal: float, **more: Any) -> Json:
    """Return one line to print. The figure holds if its value is at most the goal."""
    line = {"name": f"operator: {name}", "value": round(value, 3), "unit": unit, "goal": goal}
    return {**line, "holds": value <= goal, **_rounded(more)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def figures(of: str, ours: Json, bare: Sequence[Json]) -> Iterator[Json]:
    """Yield the lines to print about the operator, beside the runs of the bare client if any."""
    waits: Json = {"p50": ours["p50"]}
    if bare:
        waits |= {f"bare{key.upper()}": max(run[key] for run in bare) for key in ("p99", "p50")}
    yield figure(f"event to Job created, p99, {of}", ours["p99"], "s", P99_GOAL, **waits)
    yield figure(
        f"write requests a generation, {of}",
        ours["writes"],
        "requests",
        WRITES_GOAL,
        allRequests=sum(ours["requests"].values()) / GENERATIONS,
        passes=ours["passes"],
        chain=ours["requests"],
    )
    yield figure(f"peak memory, {of}", ours["memory"], "MiB", MEMORY_GOAL, cpuSeconds=ours["cpu"])
    if bare:
        name = f"wall time over a bare chain of the same Jobs, {of}"
        yield ratio(name, "wall", ours, bare, WALL_GOAL)


def ratio(name: str, key: str, ours: Json, others: Sequence[Json], goal: float) -> Json:
    """Return the line about a figure of the operator, divided by the mean of other runs."""
    return figure(
        name,
        ours[key] / mean(others, key),
        "x",
        goal,
        seconds=ours[key],
        others=[round(run[key], 3) for run in others],
        load=[round(run["load"], 1) for run in (ours, *others)],
        components=ours["components"],
        otherComponents=others[0]["components"],
    )


def status_figures(of: str, ours: Json, bare: Sequence[Json]) -> Iterator[Json]:
    """Yield the lines about the operator beside a client that writes the same statuses."""
    other = f"over a bare chain that writes the same statuses, {of}"
    yield ratio(f"wall time {other}", "wall", ours, bare, STATUS_GOAL)
    yield ratio(f"processor time of all components {other}", "processor", ours, bare, STATUS_GOAL)
    yield ratio(f"p99 of event to Job created {other}", "p99", ours, bare, STATUS_GOAL)


def mean(runs: Sequence[Json], key: str) -> float:
    """Return the mean of a figure of several runs."""
    return sum(float(run[key]) for run in runs) / len(runs)


def measured(bench: Bench, run: Callable[[], Json]) -> Json:
    """Run a load in an empty cluster, with the processor time of each component of it."""
    bench.delete_namespaces()
    before, load = control_plane_seconds(bench.cluster), os.getloadavg()[0]
    result = run()
    after = control_plane_seconds(bench.cluster)
    components = {name: after[name] - before[name] for name in after}
    components["controller"] = result["cpu"]
    return {**result, "components": components, "processor": sum(components.values()), "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,100,500", help="numbers of evolutions")
    parser.add_argument(
        "--over", type=float, default=0.0, help="seconds over which the evolutions begin"
    )
    parser.add_argument(
        "--statuses", action="store_true", help="also run the bare client with statuses"
    )
    parser.add_argument(
        "--no-bare", action="store_true", help="leave out the bare client without statuses"
    )
    parser.add_argument("--baseline", type=Path, help="a checkout whose operator is run as well")
    parser.add_argument("--peer-controller", type=Path, help="Argo Workflows' controller")
    arguments = parser.parse_args()
    with borrowed(control_plane_only=True) as cluster, tempfile.TemporaryDirectory() as scratch:
        kube = KubeClient(connections=2 * CLIENT_THREADS, kubeconfig=str(cluster.kubeconfig))
        serve_crd(kube)
        cluster.start_fake_nodes(4, STAGES_FILE)
        bench, recorder = Bench(cluster, kube, Path(scratch)), StatusRecorder()
        first = run_operator(bench, Load(1), record=recorder.watch)["namespace"]
        templates, steps = capture_jobs(kube, first), recorder.steps()
        for size in map(int, arguments.sizes.split(",")):
            load = Load(size, arguments.over)
            for line in compare(bench, load, arguments, templates, steps):
                print(json.dumps(line), flush=True)


def compare(
    bench: Bench,
    load: Load,
    arguments: argparse.Namespace,
    templates: dict[str, Json],
    steps: Sequence[Sequence[Json]],
) -> Iterator[Json]:
    """Run one load with all sides in turns; yield the lines to print."""

    def bare() -> Json:
        return measured(bench, lambda: run_bare_client(bench.kube, load, templates))

    def with_statuses() -> Json:
        return measured(bench, lambda: run_bare_client(bench.kube, load, templates, steps))

    sides = [bare] * (not arguments.no_bare) + [with_statuses] * arguments.statuses
    runs: dict[Any, list[Json]] = {side: [side()] for side in sides}
    other = None
    if arguments.baseline is not None:
        other = measured(bench, lambda: run_operator(bench, load, arguments.baseline))
    ours = measured(bench, lambda: run_operator(bench, load))
    for side in reversed(sides):
        runs[side].append(side())
    checkouts = [(str(load), ours), *([(f"{load}, baseline", other)] if other else [])]
    for of, result in checkouts:
        yield from figures(of, result, runs.get(bare, []))
        if with_statuses in runs:
            yield from status_figures(of, result, runs[with_statuses])
    if bare in runs and with_statuses in runs:
        wall = mean(runs[with_statuses], "wall") / mean(runs[bare], "wall")
        p99, p50 = (mean(runs[with_statuses], key) for key in ("p99", "p50"))
        name = f"wall time of a bare chain that writes statuses over one that does not, {load}"
        yield {"name": name, "value": round(wall, 3), "unit": "x", "p99": p99, "p50": p50}
    if arguments.peer_controller is None:
        yield {"name": f"Argo Workflows, {load}", "skipped": "no --peer-controller was given"}
        return
    peer = measured(
        bench, lambda: run_peer(bench.cluster, bench.kube, load, arguments.peer_controller)
    )
    yield {"name": f"Argo Workflows, {load}", **_rounded(peer)}
    for key, unit in (("wall", "wall time"), ("p99", "p99"), ("p50", "p50"), ("memory", "memory")):
        name = f"operator: {unit} over Argo Workflows, {load}"
        yield {"name": name, "value": round(ours[key] / peer[key], 3), "unit": "x"}


if __name__ == "__main__":
    main()
