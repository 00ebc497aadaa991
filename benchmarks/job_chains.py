"""What the benchmarks of the operator and of the bare client share: the load, Jobs, and times."""

from __future__ import annotations

import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.integration.operator.api import document

from selfemo_api.stages import job_name, stages_of
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names

GENERATIONS = 2
#: The stages of a run of so many generations, after the baseline.
STAGES = sum(len(stages_of(generation)) for generation in range(GENERATIONS + 1))
Json = dict[str, Any]


def evolution(name: str) -> Json:
    """Return an evolution whose pods run on fake nodes, where they end at once."""
    placement = {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return document(
        name,
        seed=int(name[1:]),  # as in a sweep: no spec is equal to another
        stopping={"maxGenerations": GENERATIONS, "patience": GENERATIONS + 1},
        podTemplate=[{"template": placement}],
    )


@dataclass
class JobTimes:
    """When a watch first reported each Job, and first reported it complete."""

    created: dict[str, float] = field(default_factory=dict)
    complete: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """The names of complete Jobs in the order in which they were reported."""

    def watch(self, kube: KubeClient, namespace: str, stop: threading.Event) -> None:
        path = self.path(namespace)
        version = kube.get(path)["metadata"]["resourceVersion"]
        while not stop.is_set():
            query = {"resourceVersion": version, "timeoutSeconds": "60"}
            try:
                for event in kube.watch(path, query, 90):
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._record(event["object"])
                    if stop.is_set():
                        return
            except ApiError as error:
                print(error, file=sys.stderr)

    def path(self, namespace: str) -> str:
        """Return the path of the objects that stand for stages."""
        return names.jobs_path(namespace)

    def describe(self, item: Json) -> tuple[str, bool]:
        """Return the name of a stage's object, and whether the stage is complete."""
        conditions = item.get("status", {}).get("conditions", [])
        is_complete = any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)
        return item["metadata"]["name"], is_complete

    def _record(self, item: Json) -> None:
        (name, is_complete), now = self.describe(item), time.monotonic()
        with self.changed:
            self.created.setdefault(name, now)
            if is_complete and name not in self.complete:
                self.complete[name] = now
                self.ended.put(name)
            self.changed.notify_all()

    def wait(self, count: int, seconds: float) -> None:
        """Wait until this many Jobs are complete. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while len(self.complete) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(self.complete)} of {count} Jobs are complete")
                self.changed.wait(min(left, 5.0))


def job_names(name: str) -> list[str]:
    """Return the names of an evolution's Jobs in order."""
    return [
        job_name(name, generation, stage, 1)
        for generation in range(GENERATIONS + 1)
        for stage in stages_of(generation)
    ]


def latencies(
    times: JobTimes,
    begin_times: dict[str, float],
    stages_of_chain: Callable[[str], list[str]] = job_names,
) -> list[float]:
    """Return the seconds from each event to the creation of the object that it causes.

    The events are the creation of a chain, and the end of each stage but the last.
    """
    waits = []
    for name, start in begin_times.items():
        jobs = stages_of_chain(name)
        waits.append(times.created[jobs[0]] - start)
        waits += [times.created[b] - times.complete[a] for a, b in pairwise(jobs)]
    return [max(0.0, seconds) for seconds in waits]


def percentiles(waits: list[float]) -> Json:
    """Return the median and the 99th percentile of waits."""
    ordered = sorted(waits)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": statistics.median(ordered), "p99": p99}


@dataclass(frozen=True)
class Load:
    """The number of evolutions, and the time over which they begin."""

    count: int
    over: float = 0.0
    """Seconds. 0: all evolutions begin at the same time."""

    def begin(self, create: Callable[[str], None], pool: ThreadPoolExecutor) -> None:
        """Call a function with the name of each evolution at its time; return when all are done."""
        start, futures = time.monotonic(), []
        for number in range(self.count):
            time.sleep(max(0.0, start + self.over * number / self.count - time.monotonic()))
            futures.append(pool.submit(create, f"e{number:03d}"))
        for future in futures:
            future.result()

    def __str__(self) -> str:
        begun = f" begun over {self.over:g} s" if self.over else ""
        return f"{self.count} evolution{'s' if self.count > 1 else ''}{begun}"
