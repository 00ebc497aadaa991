"""Times the operator against a bare client that chains the same Jobs, on a real API server.

Pods are ended by kwok's fake nodes at once, so what is measured is orchestration alone: the API
server, the Job controller and the garbage collector work for both. The bare client creates a Job,
waits for it, creates the next: the least that any orchestrator must do. It does so before the
operator and after it: a machine's speed changes within minutes. With `--statuses` it does so once
more with an evolution for each chain, whose status it writes before each Job: the least for whoever
keeps one, with no decision made. One line for each figure.
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

from benchmarks.bare import CLIENT_THREADS, bare, captured
from benchmarks.chains import GENERATIONS, STAGES, Load, Seen, evolution, latencies, spread
from tests.integration.operator.api import create_namespace, delete_namespace, namespaces, serve_crd
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster, borrowed

from selfemo_operator.controller.job_watch import list_objects
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names

P99_GOAL, WRITES_GOAL, MEMORY_GOAL, WALL_GOAL = 1.0, 12.0, 200.0, 1.2
AGENT = "selfemo-operator"
#: How the names of namespaces made here begin.
MADE = ("bench-", "bare-")
Json = dict[str, Any]


def with_operator(cluster: Cluster, kube: KubeClient, load: Load, scratch: Path) -> Json:
    """Run evolutions under the operator and return its figures."""
    count = load.count
    namespace = create_namespace(kube, f"bench-{count}-{int(time.time())}")
    operator = OperatorProcess(
        cluster.kubeconfig, scratch / "operator.log", ("--namespace", namespace)
    )
    operator.start()
    operator.wait_ready()
    seen, stop = Seen(), threading.Event()
    threading.Thread(target=seen.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(2)
    cpu_before = cpu_seconds(operator)
    begun: dict[str, float] = {}
    start = time.monotonic()

    def create(name: str) -> None:
        begun[name] = time.monotonic()
        kube.create(names.evolutions_path(namespace), evolution(name))

    with ThreadPoolExecutor(8) as pool:
        load.begin(create, pool)
    asked = time.monotonic() - start
    seen.wait(count * STAGES, 1200)
    wait_ended(kube, namespace, count)
    wall = time.monotonic() - start
    memory, cpu = peak_mebibytes(operator), cpu_seconds(operator) - cpu_before
    time.sleep(3)  # the last audit lines
    writes = writes_by_generation(cluster, namespace)
    told = operator.metrics()
    requests = sum(told["selfemo_operator_api_requests_total"].values()) / count / GENERATIONS
    passes = sum(told["selfemo_operator_reconciles_total"].values()) / count / GENERATIONS
    operator.stop()
    stop.set()
    return {
        "namespace": namespace,
        "wall": wall,
        "asked": asked,
        **spread(latencies(seen, begun)),
        "writes": writes,
        "requests": requests,
        "passes": passes,
        "memory": memory,
        "cpu": cpu,
    }


def wait_ended(kube: KubeClient, namespace: str, count: int) -> None:
    for _ in range(600):
        items: list[Json] = []
        list_objects(items.append, kube, names.evolutions_path(namespace), {})
        if sum(bool(i.get("status", {}).get("completionTime")) for i in items) == count:
            return
        time.sleep(0.5)
    raise TimeoutError("not all evolutions have ended")


def writes_by_generation(cluster: Cluster, namespace: str) -> float:
    """Return the operator's writes for a generation, by the API server's own audit log.

    Counted for each evolution from the creation of generation 1's first Job to the end: what
    generation 0 takes is left out.
    """
    assert cluster.audit_log is not None
    counts: dict[str, int] = {}
    with cluster.audit_log.open() as log:
        for line in log:
            if AGENT not in line or namespace not in line:
                continue
            entry = json.loads(line)
            where = entry.get("objectRef", {})
            ours = entry.get("userAgent") == AGENT and entry["stage"] == "ResponseComplete"
            if not ours or entry["verb"] not in ("create", "update", "patch", "delete"):
                continue
            name = where.get("name", "")
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


def line(name: str, value: float, unit: str, goal: float, **more: float) -> Json:
    """Return one line to print; the goal is the highest value that holds."""
    said = {"name": f"operator: {name}", "value": round(value, 3), "unit": unit, "goal": goal}
    return {**said, "holds": value <= goal, **{k: round(v, 3) for k, v in more.items()}}


def lines(load: Load, ours: Json, before: Json, after: Json) -> list[Json]:
    """Return the lines to print for one load, and the bare client's before and after it."""
    of = str(load)
    wall, cpu = ours["wall"], ours["cpu"]
    return [
        line(
            f"event to Job created, p99, {of}",
            ours["p99"],
            "s",
            P99_GOAL,
            p50=ours["p50"],
            bareP99=max(before["p99"], after["p99"]),
            bareP50=max(before["p50"], after["p50"]),
        ),
        line(
            f"write requests a generation, {of}",
            ours["writes"],
            "requests",
            WRITES_GOAL,
            allRequests=ours["requests"],
            passes=ours["passes"],
        ),
        line(f"peak memory, {of}", ours["memory"], "MiB", MEMORY_GOAL, cpuSeconds=cpu),
        line(
            f"wall time over a bare chain of the same Jobs, {of}",
            wall / mean_wall(before, after),
            "x",
            WALL_GOAL,
            seconds=wall,
            bareBefore=before["wall"],
            bareAfter=after["wall"],
            askedIn=ours["asked"],
        ),
    ]


def mean_wall(before: Json, after: Json) -> float:
    """Return the bare client's seconds."""
    wall: float = (before["wall"] + after["wall"]) / 2
    return wall


def with_statuses(load: Load, kept: Json, before: Json, after: Json) -> Json:
    """Return what statuses alone cost the bare client."""
    wall = kept["wall"] / mean_wall(before, after)
    name = f"wall time of a bare chain that writes statuses over one that does not, {load}"
    return line(name, wall, "x", WALL_GOAL, seconds=kept["wall"], p99=kept["p99"], p50=kept["p50"])


def clear(kube: KubeClient) -> None:
    """Delete what earlier runs left, and wait until it is gone: thousands of Jobs slow the next."""
    for name in made(kube):
        delete_namespace(kube, name)
    while made(kube):
        time.sleep(2)


def made(kube: KubeClient) -> list[str]:
    """Return the namespaces that runs have left."""
    return [name for name in namespaces(kube) if name.startswith(MADE)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,100,500", help="numbers of evolutions")
    parser.add_argument("--over", type=float, default=0.0, help="seconds over which they begin")
    parser.add_argument("--statuses", action="store_true", help="the bare client writes them too")
    arguments = parser.parse_args()
    with borrowed(control_plane_only=True) as cluster, tempfile.TemporaryDirectory() as scratch:
        kube = KubeClient(connections=2 * CLIENT_THREADS, kubeconfig=str(cluster.kubeconfig))
        serve_crd(kube)
        cluster.start_fake_nodes(4, STAGES_FILE)
        first = with_operator(cluster, kube, Load(1), Path(scratch))["namespace"]
        template = captured(kube, first)
        status = kube.get(names.evolution_path((first, "e000")))["status"]
        for size in map(int, arguments.sizes.split(",")):
            load = Load(size, arguments.over)
            clear(kube)
            before = bare(kube, load, template)
            clear(kube)
            ours = with_operator(cluster, kube, load, Path(scratch))
            clear(kube)
            after = bare(kube, load, template)
            for said in lines(load, ours, before, after):
                print(json.dumps(said), flush=True)
            if arguments.statuses:
                clear(kube)
                kept = bare(kube, load, template, status)
                print(json.dumps(with_statuses(load, kept, before, after)), flush=True)


STAGES_FILE = Path(__file__).resolve().parent / "kwok-stages.yaml"

if __name__ == "__main__":
    main()
