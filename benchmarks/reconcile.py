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
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, borrowed
from tests.operator.api import create_namespace, delete_namespace, document, namespaces, serve_crd
from tests.operator.process import OperatorProcess

from selfemo_api.stages import STAGE_ORDER, Stage, job_name
from selfemo_operator.cluster import names
from selfemo_operator.cluster.jobwatch import list_into
from selfemo_operator.cluster.rest import ApiError, Rest

ROOT = Path(__file__).resolve().parent.parent
GENERATIONS = 2
STAGES = 1 + 5 * GENERATIONS
P99_GOAL, WRITES_GOAL, MEMORY_GOAL, WALL_GOAL = 1.0, 12.0, 200.0, 1.2
AGENT = "selfemo-operator"
#: Requests of the bare client at once: as many as the operator's passes.
CLIENT_THREADS = 32
#: How the names of namespaces made here begin.
MADE = ("bench-", "bare-")
Json = dict[str, Any]


def evolution(name: str) -> Json:
    """Return an evolution whose stages end at once."""
    placed = {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return document(
        name,
        evolution={"maxGenerations": GENERATIONS, "patience": GENERATIONS + 1},
        podTemplate={"shared": placed},
    )


@dataclass
class Seen:
    """When each Job was first seen, and when it was first seen complete."""

    created: dict[str, float] = field(default_factory=dict)
    complete: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def watch(self, rest: Rest, namespace: str, stop: threading.Event) -> None:
        path = names.jobs_path(namespace)
        version = rest.get(path)["metadata"]["resourceVersion"]
        while not stop.is_set():
            query = {"resourceVersion": version, "timeoutSeconds": "60"}
            try:
                for event in rest.watch(path, query, 90):
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["object"])
                    if stop.is_set():
                        return
            except ApiError as error:
                print(error, file=sys.stderr)

    def _take(self, job: Json) -> None:
        name, now = job["metadata"]["name"], time.monotonic()
        done = any(
            c["type"] == "Complete" and c["status"] == "True"
            for c in job.get("status", {}).get("conditions", [])
        )
        with self.changed:
            self.created.setdefault(name, now)
            if done:
                self.complete.setdefault(name, now)
            self.changed.notify_all()

    def wait(self, count: int, seconds: float) -> None:
        """Wait until so many Jobs are complete."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while len(self.complete) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(self.complete)} of {count} Jobs are complete")
                self.changed.wait(min(left, 5.0))


def chain(name: str) -> list[str]:
    """Return the names of an evolution's Jobs in order."""
    found = [job_name(name, 0, Stage.EVALUATE, 1)]
    for generation in range(1, GENERATIONS + 1):
        found += [job_name(name, generation, stage, 1) for stage in STAGE_ORDER]
    return found


def latencies(seen: Seen, begun: dict[str, float]) -> list[float]:
    """Return the seconds from each event to the Job that follows from it."""
    found = []
    for name, start in begun.items():
        jobs = chain(name)
        found.append(seen.created[jobs[0]] - start)
        found += [seen.created[b] - seen.complete[a] for a, b in pairwise(jobs)]
    return [max(0.0, seconds) for seconds in found]


def spread(waits: list[float]) -> Json:
    """Return the median and the 99th percentile of waits."""
    ordered = sorted(waits)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered), "p99": p99}


@dataclass(frozen=True)
class Load:
    """How many evolutions begin, and over how long."""

    count: int
    over: float = 0.0
    """Seconds; 0: all at the same moment."""

    def begin(self, create: Callable[[str], None], pool: ThreadPoolExecutor) -> None:
        """Have each created in its time; return once all are there."""
        start, created = time.monotonic(), []
        for number in range(self.count):
            time.sleep(max(0.0, start + self.over * number / self.count - time.monotonic()))
            created.append(pool.submit(create, f"e{number:03d}"))
        for one in created:
            one.result()

    def __str__(self) -> str:
        begun = f" begun over {self.over:g} s" if self.over else ""
        return f"{self.count} evolution{'s' if self.count > 1 else ''}{begun}"


def with_operator(cluster: Cluster, rest: Rest, load: Load, scratch: Path) -> Json:
    """Run evolutions under the operator and return its figures."""
    count = load.count
    namespace = create_namespace(rest, f"bench-{count}-{int(time.time())}")
    operator = OperatorProcess(
        cluster.kubeconfig, scratch / "operator.log", ("--namespace", namespace)
    )
    operator.start()
    operator.wait_ready()
    seen, stop = Seen(), threading.Event()
    threading.Thread(target=seen.watch, args=(rest, namespace, stop), daemon=True).start()
    time.sleep(2)
    cpu_before = cpu_seconds(operator)
    begun: dict[str, float] = {}
    start = time.monotonic()

    def create(name: str) -> None:
        begun[name] = time.monotonic()
        rest.create(names.evolutions_path(namespace), evolution(name))

    with ThreadPoolExecutor(8) as pool:
        load.begin(create, pool)
    asked = time.monotonic() - start
    seen.wait(count * STAGES, 1200)
    wait_ended(rest, namespace, count)
    wall = time.monotonic() - start
    memory, cpu = peak_mebibytes(operator), cpu_seconds(operator) - cpu_before
    time.sleep(3)  # the last audit lines
    writes = writes_by_generation(cluster, namespace)
    told = operator.metrics()
    requests = sum(told["selfemo_operator_api_requests_total"].values()) / count / GENERATIONS
    passes = sum(told["selfemo_operator_reconciles_total"].values()) / count / GENERATIONS
    operator.stop()
    stop.set()
    template = captured(rest, namespace)
    ended = rest.get(names.evolution_path((namespace, "e000")))
    return {
        "wall": wall,
        "asked": asked,
        **spread(latencies(seen, begun)),
        "writes": writes,
        "requests": requests,
        "passes": passes,
        "memory": memory,
        "cpu": cpu,
        "template": template,
        "status": ended["status"],
    }


def wait_ended(rest: Rest, namespace: str, count: int) -> None:
    for _ in range(600):
        items: list[Json] = []
        list_into(items.append, rest, names.evolutions_path(namespace), {})
        if sum(bool(i.get("status", {}).get("completionTime")) for i in items) == count:
            return
        time.sleep(0.5)
    raise TimeoutError("not all evolutions have ended")


def captured(rest: Rest, namespace: str) -> dict[str, Json]:
    """Return one Job of each stage as the operator made it, for the bare client."""
    query = {"labelSelector": f"{names.LABEL_EVOLUTION}=e000"}
    found: dict[str, Json] = {}
    jobs: list[Json] = []
    list_into(jobs.append, rest, names.jobs_path(namespace), query)
    for job in jobs:
        pod = job["spec"]["template"]
        labels_ = {k: v for k, v in pod["metadata"]["labels"].items() if k.startswith(OURS)}
        kept = {k: job["spec"][k] for k in KEPT if k in job["spec"]}
        kept["template"] = {
            "metadata": {"labels": labels_, "annotations": pod["metadata"]["annotations"]},
            "spec": pod["spec"],
        }
        suffix = job["metadata"]["name"].removeprefix("e000")
        found[suffix] = {"labels": job["metadata"]["labels"], "spec": kept}
    return found


#: Labels of pods that are not the Job controller's own.
OURS = ("app.kubernetes.io/", "selfemo.dev/")
KEPT = (
    "completionMode",
    "completions",
    "parallelism",
    "backoffLimit",
    "podReplacementPolicy",
    "podFailurePolicy",
    "ttlSecondsAfterFinished",
)


@dataclass
class Statuses:
    """Evolutions of nobody, whose status is written before each Job."""

    rest: Rest
    namespace: str
    status: Json
    newest: dict[str, Json] = field(default_factory=dict)

    def write(self, name: str) -> None:
        """Write one anew; the first time it is created as well."""
        if name not in self.newest:
            made = evolution(name)
            made["spec"]["managedBy"] = "selfemo.dev/nobody"
            self.newest[name] = self.rest.create(names.evolutions_path(self.namespace), made)
        newest = self.newest[name]
        attempt = newest.get("status", {}).get("attempt", 0) + 1
        body = {**newest, "status": {**self.status, "attempt": attempt}}
        path = names.evolution_path((self.namespace, name)) + "/status"
        self.newest[name] = self.rest.replace(path, body)


def bare(rest: Rest, load: Load, template: dict[str, Json], status: Json | None = None) -> Json:
    """Chain the same Jobs without an operator; return the seconds, and its own waits.

    With a status, an evolution beside each chain is given it before each Job.
    """
    count = load.count
    namespace = create_namespace(rest, f"bare-{count}-{int(time.time())}")
    seen, stop = Seen(), threading.Event()
    threading.Thread(target=seen.watch, args=(rest, namespace, stop), daemon=True).start()
    time.sleep(1)
    suffixes = [name.removeprefix("e000") for name in chain("e000")]
    following: dict[str, str | None] = {}
    start = time.monotonic()
    pool = ThreadPoolExecutor(CLIENT_THREADS)

    statuses = None if status is None else Statuses(rest, namespace, status)

    def create(name: str, suffix: str) -> None:
        if statuses is not None:
            statuses.write(name)
        made = template[suffix]
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name + suffix, "labels": made["labels"]},
            "spec": made["spec"],
        }
        rest.create(names.jobs_path(namespace), manifest)

    begun: dict[str, float] = {}

    def first(name: str) -> None:
        begun[name] = time.monotonic()
        create(name, suffixes[0])

    beginning = threading.Thread(target=load.begin, args=(first, pool), daemon=True)
    beginning.start()
    for a, b in zip(suffixes, [*suffixes[1:], None], strict=True):
        following[a] = b
    handled: set[str] = set()
    deadline = time.monotonic() + 1200
    while len(handled) < count * STAGES and time.monotonic() < deadline:
        with seen.changed:
            new = [n for n in seen.complete if n not in handled]
            if not new:
                seen.changed.wait(1.0)
                continue
        for name in new:
            handled.add(name)
            evolution_name, suffix = name[:4], name[4:]
            if following[suffix] is not None:
                pool.submit(create, evolution_name, following[suffix])
    wall = time.monotonic() - start
    beginning.join()
    pool.shutdown()
    stop.set()
    return {"wall": wall, **spread(latencies(seen, begun))}


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
    bare_wall = (before["wall"] + after["wall"]) / 2
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
            wall / bare_wall,
            "x",
            WALL_GOAL,
            seconds=wall,
            bareBefore=before["wall"],
            bareAfter=after["wall"],
            askedIn=ours["asked"],
        ),
    ]


def with_statuses(load: Load, kept: Json, before: Json, after: Json) -> Json:
    """Return what statuses alone cost the bare client."""
    wall = kept["wall"] / ((before["wall"] + after["wall"]) / 2)
    name = f"wall time of a bare chain that writes statuses over one that does not, {load}"
    return line(name, wall, "x", WALL_GOAL, seconds=kept["wall"], p99=kept["p99"], p50=kept["p50"])


def clear(rest: Rest) -> None:
    """Delete what earlier runs left, and wait until it is gone: thousands of Jobs slow the next."""
    while left := [n for n in namespaces(rest) if n.startswith(MADE)]:
        for name in left:
            delete_namespace(rest, name)
        time.sleep(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,100,500", help="numbers of evolutions")
    parser.add_argument("--over", type=float, default=0.0, help="seconds over which they begin")
    parser.add_argument("--statuses", action="store_true", help="the bare client writes them too")
    arguments = parser.parse_args()
    with borrowed(control_plane_only=True) as cluster, tempfile.TemporaryDirectory() as scratch:
        rest = Rest(connections=2 * CLIENT_THREADS, kubeconfig=str(cluster.kubeconfig))
        serve_crd(rest)
        cluster.start_fake_nodes(4, STAGES_FILE)
        first = with_operator(cluster, rest, Load(1, 0.0), Path(scratch))
        template = first["template"]
        for size in map(int, arguments.sizes.split(",")):
            load = Load(size, arguments.over)
            clear(rest)
            before = bare(rest, load, template)
            clear(rest)
            ours = with_operator(cluster, rest, load, Path(scratch))
            clear(rest)
            after = bare(rest, load, template)
            for said in lines(load, ours, before, after):
                print(json.dumps(said), flush=True)
            if arguments.statuses:
                clear(rest)
                kept = bare(rest, load, template, first["status"])
                print(json.dumps(with_statuses(load, kept, before, after)), flush=True)


STAGES_FILE = Path(__file__).resolve().parent / "kwok-stages.yaml"

if __name__ == "__main__":
    main()
