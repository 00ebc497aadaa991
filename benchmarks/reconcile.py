"""Times the operator against a bare client that chains the same Jobs, on a real API server.

The fake nodes of kwok end pods at once, so only orchestration is measured. The API server, the Job
controller and the garbage collector work for both sides. The bare client creates a Job, waits for
it, and creates the next: the least that any orchestrator must do. It runs before and after the
operator, because the speed of a machine changes within minutes. With `--statuses` it runs once more
and writes the status of an evolution before each Job: the least that any controller with a status
must do. Prints one JSON line for each figure.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.bare_client import CLIENT_THREADS, capture_jobs, run_bare_client
from benchmarks.job_chains import (
    GENERATIONS,
    STAGES,
    JobTimes,
    Load,
    evolution,
    latencies,
    percentiles,
)
from tests.integration.operator.api import create_namespace, delete_namespace, namespaces, serve_crd
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster, borrowed

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names

P99_GOAL, WRITES_GOAL, MEMORY_GOAL, WALL_GOAL = 1.0, 12.0, 200.0, 1.2
USER_AGENT = "selfemo-operator"
#: Prefixes of the namespaces that this benchmark creates.
NAMESPACE_PREFIXES = ("bench-", "bare-")
Json = dict[str, Any]


def run_operator(cluster: Cluster, kube: KubeClient, load: Load, scratch: Path) -> Json:
    """Run evolutions under the operator and return its figures."""
    count = load.count
    namespace = create_namespace(kube, f"bench-{count}-{int(time.time())}")
    operator = OperatorProcess(
        cluster.kubeconfig, scratch / "operator.log", ("--namespace", namespace)
    )
    operator.start()
    operator.wait_ready()
    times, stop = JobTimes(), threading.Event()
    threading.Thread(target=times.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(2)
    cpu_before = cpu_seconds(operator)
    begin_times: dict[str, float] = {}
    start = time.monotonic()

    def create(name: str) -> None:
        begin_times[name] = time.monotonic()
        kube.create(names.evolutions_path(namespace), evolution(name))

    with ThreadPoolExecutor(8) as pool:
        load.begin(create, pool)
    created_in = time.monotonic() - start
    times.wait(count * STAGES, 1200)
    wait_until_ended(kube, namespace, count)
    wall = time.monotonic() - start
    memory, cpu = peak_mebibytes(operator), cpu_seconds(operator) - cpu_before
    time.sleep(3)  # for the last lines of the audit log
    writes = writes_by_generation(cluster, namespace)
    metrics = operator.metrics()
    requests = sum(metrics["selfemo_operator_api_requests_total"].values()) / count / GENERATIONS
    passes = sum(metrics["selfemo_operator_reconciles_total"].values()) / count / GENERATIONS
    operator.stop()
    stop.set()
    return {
        "namespace": namespace,
        "wall": wall,
        "created_in": created_in,
        **percentiles(latencies(times, begin_times)),
        "writes": writes,
        "requests": requests,
        "passes": passes,
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


def writes_by_generation(cluster: Cluster, namespace: str) -> float:
    """Return the operator's write requests for a generation, from the API server's audit log.

    Requests count from the creation of generation 1's first Job to the end of the evolution. Those
    of generation 0 are left out.
    """
    assert cluster.audit_log is not None
    counts: dict[str, int] = {}
    with cluster.audit_log.open() as log:
        for line in log:
            if USER_AGENT not in line or namespace not in line:
                continue
            entry = json.loads(line)
            is_own = entry.get("userAgent") == USER_AGENT and entry["stage"] == "ResponseComplete"
            if not is_own or entry["verb"] not in ("create", "update", "patch", "delete"):
                continue
            name = entry.get("objectRef", {}).get("name", "")
            owner = name[:4]
            if owner in counts or name.endswith("-g001-selfplay-1"):
                counts[owner] = counts.get(owner, 0) + 1
    return sum(counts.values()) / max(1, len(counts)) / GENERATIONS


def peak_mebibytes(operator: OperatorProcess) -> float:
    assert operator.process is not None
    text = Path(f"/proc/{operator.process.pid}/status").read_text()
    kibibytes = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(kibibytes.split()[1]) / 1024


def cpu_seconds(operator: OperatorProcess) -> float:
    assert operator.process is not None
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figure(name: str, value: float, unit: str, goal: float, **more: float) -> Json:
    """Return one line to print. The figure holds if its value is at most the goal."""
    line = {"name": f"operator: {name}", "value": round(value, 3), "unit": unit, "goal": goal}
    return {**line, "holds": value <= goal, **{k: round(v, 3) for k, v in more.items()}}


def figures(load: Load, ours: Json, before: Json, after: Json) -> list[Json]:
    """Return the lines to print for one load.

    `before` and `after` are the figures of the bare client before and after the operator.
    """
    of = str(load)
    wall, cpu = ours["wall"], ours["cpu"]
    return [
        figure(
            f"event to Job created, p99, {of}",
            ours["p99"],
            "s",
            P99_GOAL,
            p50=ours["p50"],
            bareP99=max(before["p99"], after["p99"]),
            bareP50=max(before["p50"], after["p50"]),
        ),
        figure(
            f"write requests a generation, {of}",
            ours["writes"],
            "requests",
            WRITES_GOAL,
            allRequests=ours["requests"],
            passes=ours["passes"],
        ),
        figure(f"peak memory, {of}", ours["memory"], "MiB", MEMORY_GOAL, cpuSeconds=cpu),
        figure(
            f"wall time over a bare chain of the same Jobs, {of}",
            wall / mean_wall(before, after),
            "x",
            WALL_GOAL,
            seconds=wall,
            bareBefore=before["wall"],
            bareAfter=after["wall"],
            askedIn=ours["created_in"],
        ),
    ]


def mean_wall(before: Json, after: Json) -> float:
    """Return the mean seconds of the bare client's two runs."""
    wall: float = (before["wall"] + after["wall"]) / 2
    return wall


def status_cost(load: Load, with_status: Json, before: Json, after: Json) -> Json:
    """Return the line to print about the cost of the statuses alone."""
    wall = with_status["wall"] / mean_wall(before, after)
    name = f"wall time of a bare chain that writes statuses over one that does not, {load}"
    return figure(
        name,
        wall,
        "x",
        WALL_GOAL,
        seconds=with_status["wall"],
        p99=with_status["p99"],
        p50=with_status["p50"],
    )


def delete_namespaces(kube: KubeClient) -> None:
    """Delete the namespaces of earlier runs and wait: thousands of Jobs slow the next run."""
    for name in own_namespaces(kube):
        delete_namespace(kube, name)
    while own_namespaces(kube):
        time.sleep(2)


def own_namespaces(kube: KubeClient) -> list[str]:
    """Return the namespaces that this benchmark created."""
    return [name for name in namespaces(kube) if name.startswith(NAMESPACE_PREFIXES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,100,500", help="numbers of evolutions")
    parser.add_argument(
        "--over", type=float, default=0.0, help="seconds over which the evolutions begin"
    )
    parser.add_argument(
        "--statuses", action="store_true", help="also run the bare client with statuses"
    )
    arguments = parser.parse_args()
    with borrowed(control_plane_only=True) as cluster, tempfile.TemporaryDirectory() as scratch:
        kube = KubeClient(connections=2 * CLIENT_THREADS, kubeconfig=str(cluster.kubeconfig))
        serve_crd(kube)
        cluster.start_fake_nodes(4, STAGES_FILE)
        first = run_operator(cluster, kube, Load(1), Path(scratch))["namespace"]
        templates = capture_jobs(kube, first)
        status = kube.get(names.evolution_path((first, "e000")))["status"]
        for size in map(int, arguments.sizes.split(",")):
            load = Load(size, arguments.over)
            delete_namespaces(kube)
            before = run_bare_client(kube, load, templates)
            delete_namespaces(kube)
            ours = run_operator(cluster, kube, load, Path(scratch))
            delete_namespaces(kube)
            after = run_bare_client(kube, load, templates)
            for line in figures(load, ours, before, after):
                print(json.dumps(line), flush=True)
            if arguments.statuses:
                delete_namespaces(kube)
                with_status = run_bare_client(kube, load, templates, status)
                line = status_cost(load, with_status, before, after)
                print(json.dumps(line), flush=True)


STAGES_FILE = Path(__file__).resolve().parent / "kwok-stages.yaml"

if __name__ == "__main__":
    main()
