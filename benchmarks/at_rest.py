"""Measures an operator whose evolutions have all ended: its start, resyncs, scrapes and memory.

The evolutions are on a real API server, each with the status that the operator itself has written
at the end of a run of two generations. Prints one JSON line for each operator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.bare_client import CLIENT_THREADS, USER_THREADS, StatusRecorder
from benchmarks.control_plane import (
    AuditLog,
    by_kind,
    control_plane_seconds,
    mebibytes,
    process_seconds,
)
from benchmarks.job_chains import Load, evolution
from benchmarks.reconcile import STAGES_FILE, Bench, run_operator
from tests.integration.operator.api import create_namespace, serve_crd
from tests.support.cluster import borrowed

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names

#: Seconds between two resyncs while they are measured, and the number of those.
RESYNC_SECONDS, RESYNCS = 10.0, 6
SCRAPES = 5
Json = dict[str, Any]


def create_at_rest(kube: KubeClient, namespace: str, count: int, status: Json) -> None:
    """Create evolutions that have ended."""

    def create(number: int) -> None:
        created = kube.create(names.evolutions_path(namespace), evolution(f"e{number:04d}"))
        path = names.evolution_path((namespace, created["metadata"]["name"]))
        kube.replace(f"{path}/status", {**created, "status": status})

    with ThreadPoolExecutor(USER_THREADS) as pool:
        for future in [pool.submit(create, number) for number in range(count)]:
            future.result()


def measure(bench: Bench, namespace: str, count: int, checkout: Path | None) -> Json:
    """Start the operator of a checkout, and return its figures."""
    audit, start = AuditLog(bench.cluster), time.monotonic()
    operator = bench.operator(namespace, checkout)
    operator.options += ("--resync-seconds", str(RESYNC_SECONDS))
    operator.start()
    operator.wait_ready()
    ready = time.monotonic() - start
    assert operator.process is not None
    pid = operator.process.pid
    while by_kind(audit.requests())["get emotionevolutions"] < count:
        time.sleep(1)
    reconciled = time.monotonic() - start
    start_cpu, start_memory = process_seconds(pid), mebibytes(pid)
    time.sleep(2 * RESYNC_SECONDS)  # until the resyncs are like all later ones
    audit, cpu = AuditLog(bench.cluster), process_seconds(pid)
    server = control_plane_seconds(bench.cluster)
    time.sleep(RESYNCS * RESYNC_SECONDS)
    cpu = (process_seconds(pid) - cpu) / RESYNCS
    server_cpu = control_plane_seconds(bench.cluster)["kube-apiserver"] - server["kube-apiserver"]
    requests = by_kind(audit.requests())
    scrapes = [_scrape(operator.metrics_port) for _ in range(SCRAPES)]
    figures = {
        "readySeconds": ready,
        "allReconciledSeconds": reconciled,
        "startCpuSeconds": start_cpu,
        "startPeakMiB": start_memory,
        "resyncCpuSeconds": cpu,
        "resyncServerCpuSeconds": server_cpu / RESYNCS,
        "scrapeSeconds": statistics.median(seconds for seconds, _ in scrapes),
        "memoryMiB": mebibytes(pid, peak=False),
        "peakMiB": mebibytes(pid),
    }
    operator.stop()
    rounded = {name: round(value, 3) for name, value in figures.items()}
    counts = {kind: round(number / RESYNCS, 2) for kind, number in sorted(requests.items())}
    return {**rounded, "scrapeBytes": scrapes[0][1], "resyncRequests": counts}


def _scrape(port: int) -> tuple[float, int]:
    start = time.perf_counter()
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        size = len(response.read())
    return time.perf_counter() - start, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evolutions", type=int, default=2000)
    parser.add_argument("--baseline", type=Path, help="a checkout whose operator is run as well")
    arguments = parser.parse_args()
    with borrowed(control_plane_only=True) as cluster, tempfile.TemporaryDirectory() as scratch:
        kube = KubeClient(connections=2 * CLIENT_THREADS, kubeconfig=str(cluster.kubeconfig))
        serve_crd(kube)
        cluster.start_fake_nodes(4, STAGES_FILE)
        bench, recorder = Bench(cluster, kube, Path(scratch)), StatusRecorder()
        run_operator(bench, Load(1), record=recorder.watch)
        bench.delete_namespaces()
        namespace = create_namespace(kube, f"bench-rest-{int(time.time())}")
        create_at_rest(kube, namespace, arguments.evolutions, recorder.statuses[-1])
        checkouts = [("baseline", arguments.baseline)] if arguments.baseline else []
        for name, checkout in [*checkouts, ("operator", None)]:
            figures = measure(bench, namespace, arguments.evolutions, checkout)
            head = {"name": f"operator: {arguments.evolutions} evolutions at rest", "of": name}
            print(json.dumps({**head, **figures}), flush=True)


if __name__ == "__main__":
    main()
